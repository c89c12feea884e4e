package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend/object"
	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/loader/dataset/formats"
)

// ScanOptions says which shards to scan. It is passed as JSON to a process of its own
// (`stoker bench scan JSON`), which does what `dataset add` has the daemon do, without
// the daemon's other work.
type ScanOptions struct {
	Dir     string  `json:"dir"`     // folder of the shards
	List    string  `json:"list"`    // as TarData.List
	Work    string  `json:"work"`    // folder for the indexes, each of which is removed at once
	Threads int     `json:"threads"` // of the bare reads
	Seconds float64 `json:"seconds"` // at least so long
	Passes  int     `json:"passes"`  // and at least so often

	Profiles string `json:"profiles,omitempty"` // folder for a CPU profile, "": none is taken
}

// ScanResult is how long each pass took, in nanoseconds. The kinds of passes take
// turns: the n-th of each ran close together.
type ScanResult struct {
	Samples int64   `json:"samples"`
	Pages   int64   `json:"pages"`    // of 4 KiB, that hold headers
	PagesNs []int64 `json:"pages_ns"` // reading these with bare preads
	ScanNs  []int64 `json:"scan_ns"`  // the scan, to the finished index file
	LintNs  []int64 `json:"lint_ns"`  // looking for what is wrong with the shards
}

// ScanThreads is how many shards a scan reads at a time, and so how many threads the
// bare reads have.
func ScanThreads() int { return min(runtime.GOMAXPROCS(0), 8) }

// ScanMain does what the JSON argument says and writes the result as JSON: the body
// of the hidden command `stoker bench scan`.
func ScanMain(ctx context.Context, argument string, w io.Writer) error {
	var o ScanOptions
	if err := json.Unmarshal([]byte(argument), &o); err != nil {
		return fmt.Errorf("options of the scan: %w", err)
	}
	stop, err := startProfile(o.Profiles)
	if err != nil {
		return err
	}
	result, err := Scan(ctx, o)
	if err = errors.Join(err, stop()); err != nil {
		return fmt.Errorf("scan %q: %w", o.Dir, err)
	}
	return json.NewEncoder(w).Encode(result)
}

// startProfile begins a CPU profile of this process in a new file of dir; stop ends it.
func startProfile(dir string) (stop func() error, err error) {
	if dir == "" {
		return func() error { return nil }, nil
	}
	f, err := os.CreateTemp(dir, "scan-*.pprof")
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

// Scan reads the headers' pages, scans and lints the shards in turn. Errors: a List that does
// not fit the shards, and the scan's own.
func Scan(ctx context.Context, o ScanOptions) (ScanResult, error) {
	if o.Threads < 1 || o.Passes < 1 {
		return ScanResult{}, fmt.Errorf("threads %d, passes %d: need at least one of each", o.Threads, o.Passes)
	}
	members, err := readMembers(o.List)
	if err != nil {
		return ScanResult{}, err
	}
	shards, err := openShards(o.Dir, members)
	if err != nil {
		return ScanResult{}, err
	}
	defer closeAll(shards)
	s := scanLoop{options: o, pages: headerPages(members), shards: shards}
	for _, pages := range s.pages {
		s.result.Pages += int64(len(pages))
	}
	return s.result, s.run(ctx, int64(len(members)))
}

const pageBytes = 4096

// headerPages returns, for each shard, where the pages begin that hold its members'
// headers: the block before the data.
func headerPages(members []member) [][]int64 {
	var shards [][]int64
	for _, m := range members {
		for len(shards) <= int(m.shard) {
			shards = append(shards, nil)
		}
		pages := &shards[m.shard]
		page := (m.offset - tarBlock) &^ (pageBytes - 1)
		if n := len(*pages); n == 0 || (*pages)[n-1] != page {
			*pages = append(*pages, page)
		}
	}
	return shards
}

// scanLoop is one run of Scan.
type scanLoop struct {
	options ScanOptions
	pages   [][]int64 // of each shard
	shards  []*os.File
	store   *object.Dir
	result  ScanResult
}

func (s *scanLoop) run(ctx context.Context, samples int64) error {
	s.result.Samples = samples
	store, err := openStore(s.options.Dir) // as the pages' shards, open before the clock runs
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()
	s.store = store
	passes := []struct {
		ns  *[]int64
		run func(context.Context) (time.Duration, error)
	}{{&s.result.PagesNs, s.readPages}, {&s.result.ScanNs, s.scan}, {&s.result.LintNs, s.lint}}
	for pass, begin := 0, time.Now(); pass < s.options.Passes || time.Since(begin).Seconds() < s.options.Seconds; pass++ {
		for _, p := range passes {
			runtime.GC() // what one pass leaves behind, the next does not pay for
			took, err := p.run(ctx)
			if err != nil {
				return err
			}
			*p.ns = append(*p.ns, int64(took))
		}
	}
	return nil
}

// readPages reads the headers' pages, shard by shard.
func (s *scanLoop) readPages(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(s.options.Threads)
	for shard, pages := range s.pages {
		group.Go(func() error {
			var page [pageBytes]byte
			fd := int(s.shards[shard].Fd())
			for _, offset := range pages {
				// The last page of a file may be a part of one.
				if n, err := unix.Pread(fd, page[:], offset); err != nil || n < tarBlock {
					return fmt.Errorf("read %q at %d: %d bytes: %w", s.shards[shard].Name(), offset, n, err)
				}
			}
			return context.Cause(ctx)
		})
	}
	err := group.Wait()
	return time.Since(start), err
}

// scan makes an index as the daemon does: with a journal, and what a restart of the
// same scan could use of it. The folder for it is not the scan's.
func (s *scanLoop) scan(ctx context.Context) (took time.Duration, err error) {
	dir, err := os.MkdirTemp(s.options.Work, "index-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	start := time.Now()
	info, _, err := formats.Scan(ctx, s.store, formats.Options{Format: "tar", Journal: filepath.Join(dir, "journal")}, dir, nil)
	took = time.Since(start)
	if err == nil && info.Samples != s.result.Samples {
		err = fmt.Errorf("the index holds %d samples, the list %d", info.Samples, s.result.Samples)
	}
	return took, err
}

// lint looks for what is wrong with the shards, as `dataset lint` does.
func (s *scanLoop) lint(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	summary, err := formats.Lint(ctx, s.store, formats.Options{Format: "tar"}, func(dataset.Finding) error { return nil }, nil)
	if err == nil && (summary.Samples != s.result.Samples || summary.Errors > 0) {
		err = fmt.Errorf("lint saw %d samples of %d and %d errors", summary.Samples, s.result.Samples, summary.Errors)
	}
	return time.Since(start), err
}

func openStore(dir string) (*object.Dir, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", dir, err)
	}
	return object.OpenDir(fd, object.Options{})
}
