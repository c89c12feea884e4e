package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/flash"
)

// flashSet is chunks of one size, and the pieces of them that are read. Their bytes are
// stamped as those of a device's file are, so that a wrong read is found.
type flashSet struct {
	chunks []backend.Chunk
	size   int64 // of a chunk
	piece  int64 // bytes of a read
	first  int64 // offset of the first piece of a chunk
	stride int64 // from one piece to the next
	each   int64 // pieces of a chunk
}

// chunksOf makes the names of chunks that take so many bytes together. They are an origin's:
// their identity has to be worked out, as it has in earnest.
func chunksOf(kind string, size, bytes int64) []backend.Chunk {
	chunks := make([]backend.Chunk, max(1, bytes/size))
	for i := range chunks {
		name := fmt.Appendf(nil, "%s/class-%03d/%08d.bin", kind, i%1000, i)
		chunks[i] = backend.Chunk{Size: size, Object: &backend.Object{
			Origin: "file:///data/bench", Number: int64(i), Name: name, Version: backend.Version{Device: 1, Inode: uint64(i), Size: size},
		}}
	}
	return chunks
}

// whole reads chunks as they are; split reads them in pieces of so many bytes, each with a
// header before it as the members of tar files have one.
func whole(chunks []backend.Chunk) flashSet {
	size := chunks[0].Size
	return flashSet{chunks: chunks, size: size, piece: size, stride: size, each: 1}
}

func split(chunks []backend.Chunk, piece, header int64) flashSet {
	stride := piece + header
	return flashSet{chunks: chunks, size: chunks[0].Size, piece: piece, first: header, stride: stride, each: chunks[0].Size / stride}
}

func (s *flashSet) pieces() int64 { return int64(len(s.chunks)) * s.each }

// read is the read of a piece.
func (s *flashSet) read(n int64, p []byte) backend.Read {
	return backend.Read{Chunk: s.chunks[n/s.each], Offset: s.first + n%s.each*s.stride, P: p[:s.piece:s.piece]}
}

// check looks whether a piece has the right bytes: those of the first block that begins
// in it.
func (s *flashSet) check(n int64, p []byte) error {
	at := s.first + n%s.each*s.stride
	block := (at + deviceBlock - 1) / deviceBlock
	got, want := binary.LittleEndian.Uint64(p[block*deviceBlock-at:]), s.stamp(n/s.each, block)
	if got != want {
		return fmt.Errorf("piece %d has %#x, and %#x was written", n, got, want)
	}
	return nil
}

// stamp is at the beginning of a block of a chunk.
func (s *flashSet) stamp(chunk, block int64) uint64 {
	return blockStamp(chunk*((s.size+deviceBlock-1)/deviceBlock) + block)
}

// stampAll writes the stamps of a chunk into its content.
func (s *flashSet) stampAll(chunk int64, content []byte) {
	for block := int64(0); (block+1)*deviceBlock <= s.size; block++ {
		binary.LittleEndian.PutUint64(content[block*deviceBlock:], s.stamp(chunk, block))
	}
}

// fill stores all chunks.
func (s *flashSet) fill(ctx context.Context, store *flash.Store) error {
	content, free, err := mapped(s.size)
	if err != nil {
		return err
	}
	fillWords(content, deviceSalt, 1<<40)
	for i := range s.chunks {
		s.stampAll(int64(i), content)
		if err = store.Fill(ctx, s.chunks[i], content); err != nil {
			break
		}
	}
	return errors.Join(err, free())
}

// mapped returns memory whose address is a multiple of a page, and what gives it back.
func mapped(bytes int64) (p []byte, free func() error, err error) {
	p, err = unix.Mmap(-1, 0, int(bytes), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, nil, fmt.Errorf("allocate %d bytes: %w", bytes, err)
	}
	return p, func() error { return unix.Munmap(p) }, nil
}

// open opens a store in a folder, with the spans of a large device.
func (b *flashBench) open(ctx context.Context, folder string, limit int64, options flash.Options) (*flash.Store, error) {
	options.Logger, options.ScrubBytesPerSecond = b.o.Logger, -1 // what it reads would be in no figure
	options.Reads = b.o.sizes.depth / gatherers                  // of each gather
	options.Devices = []flash.Device{{Path: filepath.Join(b.dir, folder), LimitBytes: limit, SpanBytes: b.o.sizes.spanBytes, SegmentSpans: b.o.sizes.segmentSpans}}
	return flash.Open(ctx, options)
}

// spansFor is a limit that just so many spans fit into.
func (b *flashBench) spansFor(spans int64) int64 {
	s := &b.o.sizes
	segments := (spans + int64(s.segmentSpans) - 1) / int64(s.segmentSpans)
	return segments*flashHeadBytes + spans*(s.spanBytes+s.spanBytes/deviceBlock*flashRecordBytes)
}

// What a segment has beside its spans: a head, and for each page at most one record.
const (
	flashHeadBytes   = 1 << 20
	flashRecordBytes = 128
)

// segmentFiles are the paths of a store's segments.
func (b *flashBench) segmentFiles(folder string) ([]string, error) {
	return filepath.Glob(filepath.Join(b.dir, folder, "segments", "*.seg"))
}

// evict takes a store's segments out of the page cache.
func (b *flashBench) evict(folder string) error {
	paths, err := b.segmentFiles(folder)
	for _, path := range paths {
		err = errors.Join(err, evictFile(path))
	}
	return err
}

// remove removes a store that is closed.
func (b *flashBench) remove(folder string) error { return os.RemoveAll(filepath.Join(b.dir, folder)) }
