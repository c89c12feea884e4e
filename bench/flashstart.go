package bench

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/flash"
)

// FlashStartRow is what opening a directory of very many chunks takes.
type FlashStartRow struct {
	ChunkBytes int64   `json:"chunk_bytes"`
	Chunks     int64   `json:"chunks"`
	Segments   int     `json:"segments"`
	Seconds    Spread  `json:"seconds"` // with nothing of it in the page cache
	PSSMB      Spread  `json:"pss_mb"`  // of a process that does nothing else, just after
	MakeS      float64 `json:"make_s"`  // filling that many, one after another
}

// FlashStartOptions says which directory to open. It is passed as JSON to a process of its
// own (`stoker bench flash-start JSON`), whose memory is the store's.
type FlashStartOptions struct {
	Dir        string `json:"dir"`
	LimitBytes int64  `json:"limit_bytes"`
}

// FlashStartResult is what that took.
type FlashStartResult struct {
	Seconds  float64 `json:"seconds"`
	PSSBytes int64   `json:"pss_bytes"`
	Chunks   int64   `json:"chunks"`
}

// FlashStartMain opens the directory that the JSON argument names and writes the result as
// JSON: the body of the hidden command `stoker bench flash-start`.
func FlashStartMain(ctx context.Context, argument string, w io.Writer) error {
	var o FlashStartOptions
	if err := json.Unmarshal([]byte(argument), &o); err != nil {
		return fmt.Errorf("options of the start: %w", err)
	}
	if o.Dir == "" {
		return errors.New("options of the start: no directory is given")
	}
	var r FlashStartResult
	began := time.Now()
	store, err := flash.Open(ctx, flash.Options{ScrubBytesPerSecond: -1, Devices: []flash.Device{{Path: o.Dir, LimitBytes: o.LimitBytes}}})
	if err != nil {
		return err
	}
	r.Seconds, r.PSSBytes = time.Since(began).Seconds(), pssBytes(os.Getpid())
	err = store.List(ctx, func(backend.Info) error {
		r.Chunks++
		return nil
	})
	if err := errors.Join(err, store.Close()); err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(r)
}

const flashStartFolder = "starts"

// flashStartRoom is enough for what few chunks take beside their bytes.
const flashStartRoom = 4 << 30

func (b *flashBench) startParts() int { return len(b.o.sizes.chunkSizes) * (1 + b.o.sizes.repeats) }

// start measures starts with very many chunks of each size.
func (b *flashBench) start(ctx context.Context) error {
	for _, size := range b.o.sizes.chunkSizes {
		if err := b.startWith(ctx, size); err != nil {
			return fmt.Errorf("chunks of %d bytes: %w", size, err)
		}
	}
	slowest := slices.MaxFunc(b.report.Starts, func(a, b FlashStartRow) int { return cmp.Compare(a.Seconds.Median, b.Seconds.Median) })
	largest := slices.MaxFunc(b.report.Starts, func(a, b FlashStartRow) int { return cmp.Compare(a.PSSMB.Median, b.PSSMB.Median) })
	b.figure("startup_s_1e6_chunks", slowest.Seconds, fmt.Sprintf("of %d KiB", slowest.ChunkBytes>>10))
	b.figure("pss_mb_1e6_chunks", largest.PSSMB, fmt.Sprintf("of %d KiB", largest.ChunkBytes>>10))
	return nil
}

// startWith makes a directory and opens it several times.
func (b *flashBench) startWith(ctx context.Context, size int64) (err error) {
	defer func() { err = errors.Join(err, b.remove(flashStartFolder)) }()
	b.part(fmt.Sprintf("make %d chunks of %d KiB", b.o.sizes.chunks, size>>10))
	row := FlashStartRow{ChunkBytes: size, Chunks: int64(b.o.sizes.chunks)}
	limit, began := int64(b.o.sizes.chunks)*size*9/8+flashStartRoom, time.Now()
	if err := b.makeHollow(ctx, size, limit); err != nil {
		return err
	}
	row.MakeS = time.Since(began).Seconds()
	paths, err := b.segmentFiles(flashStartFolder)
	if err != nil {
		return err
	}
	row.Segments = len(paths)
	var seconds, memory []float64
	for range b.o.sizes.repeats {
		b.part(fmt.Sprintf("start with chunks of %d KiB", size>>10))
		r, err := b.startOnce(ctx, limit)
		if err != nil {
			return err
		}
		if r.Chunks != row.Chunks {
			return fmt.Errorf("%d chunks were found, %d are there", r.Chunks, row.Chunks)
		}
		seconds, memory = append(seconds, r.Seconds), append(memory, float64(r.PSSBytes)/(1<<20))
	}
	row.Seconds, row.PSSMB = spreadOf(seconds), spreadOf(memory)
	b.report.Starts = append(b.report.Starts, row)
	return nil
}

// makeHollow makes a store of very many chunks without their bytes: nothing of these is read
// at a start. Of large chunks only the last block, of a page, is there. Files are sparse,
// so that devices larger than this one can be measured.
func (b *flashBench) makeHollow(ctx context.Context, size, limit int64) error {
	dir := filepath.Join(b.dir, flashStartFolder)
	files, err := flash.OpenDirectory(dir)
	if err != nil {
		return err
	}
	hollow := hollowFiles{files, new(int64)}
	store, err := flash.Open(ctx, flash.Options{Logger: b.o.Logger, ScrubBytesPerSecond: -1, Devices: []flash.Device{{Path: dir, Files: hollow, LimitBytes: limit}}})
	if err != nil {
		return err
	}
	if *hollow.payloadEnd, err = payloadEnd(dir); err != nil {
		return errors.Join(err, store.Close())
	}
	chunk, content := backend.Chunk{Size: size}, make([]byte, deviceBlock)
	for i := 0; i < b.o.sizes.chunks && err == nil; i++ {
		for word := range 4 {
			binary.LittleEndian.PutUint64(chunk.ID[word*8:], mix(uint64(4*i+word)))
		}
		err = store.FillRange(ctx, chunk, size-deviceBlock, content)
	}
	return errors.Join(err, store.Close(), syncFilesystem(dir))
}

// payloadEnd is where the payload of a whole segment of a store ends.
func payloadEnd(dir string) (int64, error) {
	var format struct {
		SpanBytes    int64 `json:"span_bytes"`
		SegmentSpans int64 `json:"segment_spans"`
	}
	text, err := os.ReadFile(filepath.Join(dir, "format.json"))
	if err != nil {
		return 0, err
	}
	err = json.Unmarshal(text, &format)
	return flashHeadBytes + format.SpanBytes*format.SegmentSpans, err
}

// startOnce opens the directory with nothing in the page cache.
func (b *flashBench) startOnce(ctx context.Context, limit int64) (FlashStartResult, error) {
	if err := b.evict(flashStartFolder); err != nil {
		return FlashStartResult{}, err
	}
	return b.o.open(ctx, FlashStartOptions{Dir: filepath.Join(b.dir, flashStartFolder), LimitBytes: limit})
}

// openApart opens a store in a process of its own.
func (o *FlashOptions) openApart(ctx context.Context, what FlashStartOptions) (r FlashStartResult, err error) {
	argument, err := json.Marshal(what)
	if err != nil {
		return r, err
	}
	out, err := output(ctx, "start of the store", exec.Command(o.Stoker, "bench", "flash-start", string(argument)), o.Logger)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return r, fmt.Errorf("answer of the start: %w: %.200s", err, out)
	}
	return r, nil
}

// hollowFiles are files of a real directory that get no room ahead, keep no payload, and
// are not made durable one by one.
type hollowFiles struct {
	flash.Files
	payloadEnd *int64 // in a segment: from the head to here is payload
}

// Open implements flash.Files.
func (f hollowFiles) Open(name string, create bool) (flash.File, error) {
	file, err := f.Files.Open(name, create)
	if err != nil {
		return nil, err
	}
	return hollowFile{file, f.payloadEnd}, nil
}

// SyncDirectory implements flash.Files.
func (hollowFiles) SyncDirectory(string) error { return nil }

type hollowFile struct {
	flash.File
	payloadEnd *int64
}

// Sync implements flash.File.
func (hollowFile) Sync() error { return nil }

// WriteAt implements flash.File.
func (f hollowFile) WriteAt(p []byte, off int64) (int, error) {
	if off >= flashHeadBytes && off+int64(len(p)) <= *f.payloadEnd {
		return len(p), nil
	}
	return f.File.WriteAt(p, off)
}

// Allocate makes the file longer, and no more.
func (f hollowFile) Allocate(off, n int64) error {
	size, err := f.Size()
	if err != nil || size >= off+n {
		return err
	}
	_, err = f.File.WriteAt([]byte{0}, off+n-1)
	return err
}
