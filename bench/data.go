package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// The generated data says of itself where it belongs: each 8 bytes are an
// invertible mix of their own position. A consumer can locate any row and
// recompute it (consumers/verify.py has the same constants).
const (
	rawSalt      = 0x7261_7700_0000_0000
	rawFileShift = 20 // a raw file has fewer than 2^20 words
	tokenSalt    = 0x746F_6B65_0000_0000

	// rawFileBytes is the size of a raw file: 100 KB of 1000 bytes.
	rawFileBytes = 100_000
	rawClasses   = 10
	// tokenBlock is the block size of the token case: rows of 2049 tokens.
	tokenBlock = 2048
	// dataVersion changes whenever the content does, so that old data is not reused.
	dataVersion = 1
)

// mix is the finalizer of splitmix64.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

// fillWords writes the words first, first+1, ... of a salted stream to p, whose
// length is a multiple of 8.
func fillWords(p []byte, salt, first uint64) {
	for i := 0; i+8 <= len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], mix(salt+first+uint64(i/8)))
	}
}

// fillRaw writes the content of raw file number n to p.
func fillRaw(p []byte, n int) { fillWords(p, rawSalt, uint64(n)<<rawFileShift) }

// rawName is the path of raw file n below its folder: class folders of equal size.
func rawName(n int) string { return fmt.Sprintf("class-%02d/%06d.bin", n%rawClasses, n) }

// Data is where the generated data lies.
type Data struct {
	RawDir    string // folder of RawFiles files, in class folders
	RawList   string // text file: one relative path a line, number order
	RawFiles  int
	TokensDir string // folder that holds only TokensFile
	Tokens    string // the token file
	TokenRows int64
	Sparse7   string // folder with a sparse token file of 10^7 rows of block 15
	Sparse8   string // the same, 10^8 rows

	Tar      TarData // the raw files in shards
	TarSmall TarData // many members of 4 KiB
	TarTiny  TarData // 10^6 members of a few bytes, for scans
}

// sparseBlock is the block size of the sparse token files.
const sparseBlock = 15

// dataStep makes one folder of data.
type dataStep struct {
	group, dir, label string
	make              func(ctx context.Context, dir string) error
}

// MakeData generates what Compare reads for the chosen cases, unless it is there already; an
// interrupted run is continued where it stopped. Equal options give equal bytes.
func MakeData(ctx context.Context, o CompareOptions) (Data, error) {
	d := dataAt(o)
	tar := func(t TarData) dataStep {
		return dataStep{GroupTar, t.Dir, "make tar shards", func(ctx context.Context, _ string) error { return t.write(ctx) }}
	}
	steps := []dataStep{
		{GroupRaw, d.RawDir, "make raw files", func(ctx context.Context, dir string) error { return makeRaw(ctx, dir, d) }},
		{GroupTokens, d.TokensDir, "make token file", func(ctx context.Context, dir string) error { return makeTokens(ctx, dir, o.TokenBytes) }},
		{GroupTokens, d.Sparse7, "make sparse token files", func(_ context.Context, dir string) error { return makeSparse(dir, 1e7) }},
		{GroupTokens, d.Sparse8, "make sparse token files", func(_ context.Context, dir string) error { return makeSparse(dir, 1e8) }},
		tar(d.Tar), tar(d.TarSmall), tar(d.TarTiny),
	}
	steps = slices.DeleteFunc(steps, func(s dataStep) bool { return !o.runs(s.group) })
	for i, step := range steps {
		o.Progress(i, len(steps), step.label)
		if err := makeOnce(ctx, step.dir, step.make); err != nil {
			return d, fmt.Errorf("%s in %q: %w", step.label, step.dir, err)
		}
	}
	return d, nil
}

func dataAt(o CompareOptions) Data {
	raw := filepath.Join(o.DataDir, fmt.Sprintf("raw-%dx%d-v%d", o.RawFiles, rawFileBytes, dataVersion))
	tokens := filepath.Join(o.DataDir, fmt.Sprintf("tokens-%d-v%d", o.TokenBytes, dataVersion))
	tar := func(samples, size int, salt uint64) TarData {
		dir := filepath.Join(o.DataDir, fmt.Sprintf("tar-%dx%d-v%d", samples, size, dataVersion))
		return TarData{Dir: dir, List: dir + ".txt", Samples: samples, SampleBytes: size, salt: salt}
	}
	return Data{
		RawDir:    raw,
		RawList:   raw + ".txt",
		RawFiles:  o.RawFiles,
		TokensDir: tokens,
		Tokens:    filepath.Join(tokens, "train.bin"),
		TokenRows: (o.TokenBytes/2 - 1) / tokenBlock,
		Sparse7:   filepath.Join(o.DataDir, fmt.Sprintf("sparse-1e7-v%d", dataVersion)),
		Sparse8:   filepath.Join(o.DataDir, fmt.Sprintf("sparse-1e8-v%d", dataVersion)),
		Tar:       tar(o.RawFiles, rawFileBytes, rawSalt),
		TarSmall:  tar(o.TarSamples, tarSmallBytes, tarSmallSalt),
		TarTiny:   tar(o.ScanSamples, tarTinyBytes, tarTinySalt),
	}
}

// makeOnce runs generate on dir unless a marker beside it says that it has ended.
// The data is synced first: writeback must not run beside a measurement.
func makeOnce(ctx context.Context, dir string, generate func(context.Context, string) error) error {
	marker := dir + ".done"
	if isFile(marker) {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := generate(ctx, dir); err != nil {
		return err
	}
	if err := syncFilesystem(dir); err != nil {
		return err
	}
	return os.WriteFile(marker, nil, 0o644)
}

func syncFilesystem(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync the filesystem of %q: %w", dir, err)
	}
	return nil
}

// makeRaw writes the files that are missing or not of full size.
func makeRaw(ctx context.Context, dir string, d Data) error {
	for class := range rawClasses {
		if err := os.MkdirAll(filepath.Join(dir, fmt.Sprintf("class-%02d", class)), 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(d.RawList, []byte(rawListing(d.RawFiles)), 0o644); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			content := make([]byte, rawFileBytes)
			for ctx.Err() == nil {
				n := int(next.Add(1)) - 1
				if n >= d.RawFiles {
					return nil
				}
				if err := writeRaw(filepath.Join(dir, rawName(n)), n, content); err != nil {
					return err
				}
			}
			return context.Cause(ctx)
		})
	}
	return group.Wait()
}

func writeRaw(path string, n int, content []byte) error {
	if info, err := os.Stat(path); err == nil && info.Size() == int64(len(content)) {
		return nil
	}
	fillRaw(content, n)
	return os.WriteFile(path, content, 0o644)
}

func rawListing(files int) string {
	var b strings.Builder
	for n := range files {
		b.WriteString(rawName(n))
		b.WriteByte('\n')
	}
	return b.String()
}

// makeTokens writes train.bin; an incomplete file is written again from its last
// whole piece.
func makeTokens(ctx context.Context, dir string, size int64) error {
	const piece = 4 << 20
	f, err := os.OpenFile(filepath.Join(dir, "train.bin"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	content := make([]byte, piece)
	for at := info.Size() / piece * piece; at < size; at += piece {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		p := content[:min(piece, size-at)]
		fillWords(p, tokenSalt, uint64(at/8))
		if _, err := f.WriteAt(p, at); err != nil {
			return err
		}
	}
	if err := f.Truncate(size); err != nil {
		return err
	}
	return f.Close()
}

// makeSparse makes a token file of holes: rows of sparseBlock tokens, and one
// token more for the last row's y.
func makeSparse(dir string, rows int64) error {
	f, err := os.Create(filepath.Join(dir, "train.bin"))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate((rows*sparseBlock + 1) * 2); err != nil {
		return err
	}
	return f.Close()
}

// forget lets MakeData write a group's data anew, but for what is sparse.
func (d Data) forget(group string) error {
	var problems []error
	for _, dir := range d.folders(group) {
		problems = append(problems, os.RemoveAll(dir+".done"), os.RemoveAll(dir))
	}
	return errors.Join(problems...)
}

// folders are those of a group whose files are read.
func (d Data) folders(group string) []string {
	switch group {
	case GroupRaw:
		return []string{d.RawDir}
	case GroupTokens:
		return []string{d.TokensDir}
	}
	return []string{d.Tar.Dir, d.TarSmall.Dir, d.TarTiny.Dir}
}

// files are those of a group that are read.
func (d Data) files(group string) []string {
	switch group {
	case GroupRaw:
		paths := make([]string, d.RawFiles)
		for n := range paths {
			paths[n] = filepath.Join(d.RawDir, rawName(n))
		}
		return paths
	case GroupTokens:
		return []string{d.Tokens}
	}
	return slices.Concat(d.Tar.files(), d.TarSmall.files(), d.TarTiny.files())
}

// bytes is how much of the page cache a group's data takes.
func (d Data) bytes(group string) int64 {
	switch group {
	case GroupRaw:
		return int64(d.RawFiles) * rawFileBytes
	case GroupTokens:
		return d.TokenRows * tokenBlock * 2
	}
	var sum int64
	for _, t := range []TarData{d.Tar, d.TarSmall, d.TarTiny} {
		sum += int64(t.Samples) * int64(t.stored())
	}
	return sum
}

// evict drops a group's data from the page cache, as far as it is on the device.
func (d Data) evict(group string) error {
	for _, path := range d.files(group) {
		if err := evictFile(path); err != nil {
			return err
		}
	}
	return nil
}

func evictFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("drop %q from the page cache: %w", path, err)
	}
	return nil
}

// warm reads a group's data once, so that it is in the page cache.
func (d Data) warm(ctx context.Context, group string) error {
	buffer := make([]byte, 1<<20)
	for _, path := range d.files(group) {
		if err := readThrough(ctx, path, buffer); err != nil {
			return fmt.Errorf("warm the page cache: %w", err)
		}
	}
	return nil
}

func readThrough(ctx context.Context, path string, buffer []byte) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if _, err := f.Read(buffer); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
