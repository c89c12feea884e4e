package bench

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// tarSmallSalt is of the members of tar-4k; tar-100k holds the raw files.
	tarSmallSalt = 0x7461_7273_0000_0000
	// tarTinySalt is of the members that only scans see.
	tarTinySalt = 0x7461_7274_0000_0000

	tarSmallBytes = 4096
	tarTinyBytes  = 16
	// tarPart is the one part of each sample.
	tarPart = "bin"
	// shardBytes is how large a shard may be.
	shardBytes = 64_000_000
	tarBlock   = 512
)

// TarData is a set of tar shards in WebDataset's layout: member NNNNNN.bin is sample
// NNNNNN, all of one size.
type TarData struct {
	Dir string // folder of shard-NNNNNN.tar
	// List is a text file: shard number, offset of the data and size of each member,
	// one a line: what a reader needs that has an index already.
	List        string
	Samples     int
	SampleBytes int // a multiple of 8
	salt        uint64
}

// stored is how many bytes of an archive a member takes.
func (t TarData) stored() int {
	return tarBlock + (t.SampleBytes+tarBlock-1)/tarBlock*tarBlock
}

func (t TarData) samplesPerShard() int { return shardBytes / t.stored() }

func (t TarData) shards() int { return (t.Samples + t.samplesPerShard() - 1) / t.samplesPerShard() }

func (t TarData) shard(number int) string {
	return filepath.Join(t.Dir, fmt.Sprintf("shard-%06d.tar", number))
}

// samplesOf is the first sample of a shard, and the one after its last.
func (t TarData) samplesOf(shard int) (first, end int) {
	first = shard * t.samplesPerShard()
	return first, min(first+t.samplesPerShard(), t.Samples)
}

// files are all shards.
func (t TarData) files() []string {
	paths := make([]string, t.shards())
	for number := range paths {
		paths[number] = t.shard(number)
	}
	return paths
}

// write writes the shards that are missing or not of full size, and the list.
func (t TarData) write(ctx context.Context) error {
	if err := t.writeList(); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for number := range t.shards() {
		group.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return t.writeShard(number)
		})
	}
	return group.Wait()
}

// writeShard writes a shard unless it is there whole.
func (t TarData) writeShard(number int) error {
	first, end := t.samplesOf(number)
	path := t.shard(number)
	// Two zero blocks end an archive.
	if info, err := os.Stat(path); err == nil && info.Size() == int64((end-first)*t.stored()+2*tarBlock) {
		return nil
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	buffer := bufio.NewWriterSize(f, 1<<20)
	if err := t.writeMembers(tar.NewWriter(buffer), first, end); err != nil {
		return fmt.Errorf("write %q: %w", path, err)
	}
	if err := buffer.Flush(); err != nil {
		return err
	}
	return f.Close()
}

func (t TarData) writeMembers(archive *tar.Writer, first, end int) error {
	content := make([]byte, t.SampleBytes)
	for n := first; n < end; n++ {
		header := tar.Header{
			Name: fmt.Sprintf("%06d.%s", n, tarPart), Size: int64(t.SampleBytes), Mode: 0o444,
			Uname: "bench", Gname: "bench", ModTime: time.Unix(1_700_000_000, 0), Format: tar.FormatUSTAR,
		}
		if err := archive.WriteHeader(&header); err != nil {
			return err
		}
		fillWords(content, t.salt, uint64(n)<<rawFileShift)
		if _, err := archive.Write(content); err != nil {
			return err
		}
	}
	return archive.Close()
}

func (t TarData) writeList() error {
	var list []byte
	for shard := range t.shards() {
		first, end := t.samplesOf(shard)
		for n := range end - first {
			list = strconv.AppendInt(list, int64(shard), 10)
			list = strconv.AppendInt(append(list, ' '), int64(n*t.stored()+tarBlock), 10)
			list = strconv.AppendInt(append(list, ' '), int64(t.SampleBytes), 10)
			list = append(list, '\n')
		}
	}
	return os.WriteFile(t.List, list, 0o644)
}

// member is a line of a TarData.List.
type member struct {
	shard        int32
	offset, size int64
}

// readMembers reads a TarData.List. Errors: a line that is not three numbers.
func readMembers(list string) ([]member, error) {
	content, err := os.ReadFile(list)
	if err != nil {
		return nil, err
	}
	members := make([]member, 0, bytes.Count(content, []byte("\n")))
	for line := range bytes.Lines(content) {
		var numbers [3]int64
		fields := bytes.Fields(line)
		if len(fields) != len(numbers) {
			return nil, fmt.Errorf("%q: line %d has %d fields, not 3", list, len(members)+1, len(fields))
		}
		for i, field := range fields {
			if numbers[i], err = strconv.ParseInt(string(field), 10, 64); err != nil {
				return nil, fmt.Errorf("%q: line %d: %w", list, len(members)+1, err)
			}
		}
		members = append(members, member{shard: int32(numbers[0]), offset: numbers[1], size: numbers[2]})
	}
	return members, nil
}

// openShards opens the shards that the members are in. The caller calls closeAll.
func openShards(dir string, members []member) ([]*os.File, error) {
	var files []*os.File
	for _, m := range members {
		for len(files) <= int(m.shard) {
			f, err := os.Open(TarData{Dir: dir}.shard(len(files)))
			if err != nil {
				closeAll(files)
				return nil, err
			}
			files = append(files, f)
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}
