package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/flash"
)

// fewBytes are sizes with which every step runs within seconds.
func fewBytes() flashSizes {
	return flashSizes{
		repeats: 2, section: 5 * time.Millisecond, modes: []flashMode{pastPageCache, withoutRing, throughPageCache},
		readBytes: 16 << 20, writeBytes: 16 << 20, puts: 8,
		chunks: 2000, chunkSizes: []int64{4 << 10, 1<<20 + 4<<10}, churnHours: 1, churnBytes: 256 << 20,
		spanBytes: 8 << 20, segmentSpans: 4, depth: 4,
	}
}

// here opens a store in this process.
func here(ctx context.Context, o FlashStartOptions) (r FlashStartResult, err error) {
	argument, err := json.Marshal(o)
	if err != nil {
		return r, err
	}
	var out bytes.Buffer
	if err := FlashStartMain(ctx, string(argument), &out); err != nil {
		return r, err
	}
	return r, json.Unmarshal(out.Bytes(), &r)
}

func TestTheFlashStoreIsMeasuredInEveryStep(t *testing.T) {
	dir := t.TempDir()
	last, all := -1, 0
	o := FlashOptions{Dir: dir, sizes: fewBytes(), open: here, Progress: func(done, total int, label string) {
		if done < last || done > total || label == "" || all > 0 && total != all {
			t.Errorf("%d of %d after %d of %d: %s", done, total, last, all, label)
		}
		last, all = done, total
	}}
	r, err := Flash(t.Context(), o)
	if onMemory(t, dir) {
		if err == nil || !strings.Contains(err.Error(), "--dir") {
			t.Errorf("a directory in memory: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if r.Direct && last != all {
		t.Errorf("%d parts of %d were told", last, all)
	}
	checkFlashFigures(t, r)
	checkFlashRows(t, r)
	var out bytes.Buffer
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"sequential 1 MiB", "put, 4 at once", "16 at once", "of 8 MiB", "2000", "images, shards, images", "write_amplification"} {
		if !strings.Contains(out.String(), text) {
			t.Errorf("%q is not printed:\n%s", text, out.String())
		}
	}
}

// checkFlashFigures looks whether all figures are there that can be, as their texts say.
func checkFlashFigures(t *testing.T, r *FlashReport) {
	t.Helper()
	for _, text := range FlashFigures() {
		f, there := r.Figures[text.Name]
		switch {
		case !there && (r.Direct || !strings.HasSuffix(text.Name, "_read_at") && !strings.HasSuffix(text.Name, "_pread") && text.Name != "first_read_share"):
			t.Errorf("%s is missing", text.Name)
		case there && (f.Unit != text.Unit || f.Target != text.Target() || !strings.HasPrefix(f.Note, text.What) || !(f.Value > 0)):
			t.Errorf("%s: %+v", text.Name, f)
		}
	}
}

func checkFlashRows(t *testing.T, r *FlashReport) {
	t.Helper()
	for _, row := range r.Reads {
		if !(row.MBPS.Min > 0) || !(row.Share.Median > 0) || len(row.rates) != 2 {
			t.Errorf("%+v", row)
		}
	}
	if len(r.Writes) != 4 || len(r.Puts) != 2 || len(r.Starts) != 2 || len(r.Churn) != len(flashMixes) {
		t.Errorf("%d, %d, %d and %d rows", len(r.Writes), len(r.Puts), len(r.Starts), len(r.Churn))
	}
	for _, row := range r.Starts {
		if row.Chunks != 2000 || row.Segments == 0 || !(row.PSSMB.Min > 0) {
			t.Errorf("%+v", row)
		}
	}
	for _, row := range r.Amplification {
		if row.Ratio < 1 || row.PayloadBytes != 16<<20 {
			t.Errorf("%+v", row)
		}
	}
	for _, row := range r.Puts {
		if row.P99Ms < row.P50Ms || row.Puts != 8 {
			t.Errorf("%+v", row)
		}
	}
}

func TestStepsOfFlash(t *testing.T) {
	if _, err := Flash(t.Context(), FlashOptions{Steps: []string{"read", "nonsense"}}); err == nil || !strings.Contains(err.Error(), "read, write, start, churn") {
		t.Errorf("a step that is not there: %v", err)
	}
	dir := t.TempDir()
	if onMemory(t, dir) {
		return
	}
	cancelled, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if _, err := Flash(cancelled, FlashOptions{Dir: dir, sizes: fewBytes(), open: here}); !errors.Is(err, enough) {
		t.Errorf("cancelled: %v", err)
	}
	broken := func(context.Context, FlashStartOptions) (FlashStartResult, error) {
		return FlashStartResult{Chunks: 1}, nil
	}
	if _, err := Flash(t.Context(), FlashOptions{Dir: dir, Steps: []string{StepStart}, sizes: fewBytes(), open: broken}); err == nil || !strings.Contains(err.Error(), "2000 are there") {
		t.Errorf("a start that loses chunks: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestUsualSizesAreBounded(t *testing.T) {
	for _, quick := range []bool{true, false} {
		s := usualSizes(quick)
		if files := 4*s.readBytes + s.spanBytes*int64(s.segmentSpans); files > 4<<30 || 3*s.writeBytes > 4<<30 {
			t.Errorf("quick %v: %d bytes of files", quick, files)
		}
		if s.chunks != 1_000_000 || s.churnHours != 24 {
			t.Errorf("quick %v: %+v is not what the figures are named for", quick, s)
		}
	}
}

// Pieces of a set lie within their chunks, none touches another, and each knows its bytes.
func TestPiecesOfChunks(t *testing.T) {
	chunks := chunksOf("shards", 1<<20, 3<<20)
	for name, set := range map[string]flashSet{
		"whole": whole(chunks), "split": split(chunks, 100<<10, 0), "members": split(chunks, 4<<10, tarHeader),
	} {
		content := make([]byte, set.size)
		last, end := int64(-1), int64(0)
		for n := range set.pieces() {
			p := make([]byte, set.piece)
			read := set.read(n, p)
			chunk := slices.IndexFunc(chunks, func(c backend.Chunk) bool { return c.Object == read.Chunk.Object })
			if int64(chunk) != last {
				last, end = int64(chunk), 0
				set.stampAll(last, content)
			}
			if read.Offset < end || read.Offset+set.piece > set.size {
				t.Fatalf("%s: piece %d is at %d, the one before ended at %d", name, n, read.Offset, end)
			}
			end = read.Offset + set.piece
			copy(p, content[read.Offset:])
			if err := set.check(n, p); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if err := set.check((n+1)%set.pieces(), p); err == nil {
				t.Fatalf("%s: piece %d passes for the next", name, n)
			}
		}
		if last != int64(len(chunks)-1) {
			t.Errorf("%s: pieces of %d chunks of %d", name, last+1, len(chunks))
		}
	}
}

// What a store of very many chunks is made of reads back as such, and takes little room.
func TestHollowFilesKeepRecordsOnly(t *testing.T) {
	b := &flashBench{o: FlashOptions{sizes: fewBytes()}, dir: t.TempDir()}
	if err := b.o.EnsureDefaults(); err != nil {
		t.Fatal(err)
	}
	const size = 1<<20 + 4<<10
	if err := b.makeHollow(t.Context(), size, 8<<30); err != nil {
		t.Fatal(err)
	}
	r, err := here(t.Context(), FlashStartOptions{Dir: filepath.Join(b.dir, flashStartFolder), LimitBytes: 8 << 30})
	if err != nil || r.Chunks != 2000 {
		t.Errorf("%+v, %v", r, err)
	}
	paths, err := b.segmentFiles(flashStartFolder)
	if err != nil || len(paths) == 0 {
		t.Fatalf("%v, %v", paths, err)
	}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil || info.Size() < 1<<20 {
			t.Errorf("%+v, %v", info, err)
		}
	}
}

func TestAStartSaysWhatItDoesNotUnderstand(t *testing.T) {
	var out bytes.Buffer
	for _, options := range []string{"", "{", "{}"} {
		if err := FlashStartMain(t.Context(), options, &out); err == nil || out.Len() > 0 {
			t.Errorf("%q: %v, %s", options, err, out.String())
		}
	}
	if err := FlashStartMain(t.Context(), `{"dir":"/proc/nowhere"}`, &out); !errors.Is(err, flash.ErrNoDevice) {
		t.Errorf("a directory that cannot be made: %v", err)
	}
}
