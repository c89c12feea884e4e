package tar

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
)

// What a lint takes for small and large.
const (
	tinyShard     = 16 << 20
	hugeShard     = 32 << 30
	severalShards = 8
	hugePart      = 1 << 20 // smaller parts are never reported as huge
	hugeRatio     = 64      // times the median
)

// Lint looks for everything in the archives of a dataset that would end a scan, slow
// training, or surprise, and tells visit of it, in the order of the shards and at last
// of what concerns several. dataset.LintCodes lists what there is.
//
// It walks each archive's headers once, several archives at a time, and decompresses
// those that are compressed without keeping anything. Beside about 300 bytes a shard
// it takes up to 256 MiB for the keys of 8 million samples; more are compared within
// their archive only. Keys are compared by 64 bits of hash.
//
// progress may be nil. Errors: those of listing the origin, that of visit, the cause of
// ctx. What is wrong with a single file is a finding.
func Lint(ctx context.Context, store backend.Store, opts Options, visit func(dataset.Finding) error, progress dataset.Progress) (dataset.LintSummary, error) {
	l := &linter{store: store, Lint: dataset.NewLint(Format, visit), progress: progress,
		indexes: map[string]backend.Object{}, archives: map[string]int{}, parts: newPartTable(), keys: newKeyTable(maxKeys)}
	if err := l.lint(ctx, opts); err != nil {
		return l.Summary, fmt.Errorf("lint tar shards: %w", err)
	}
	return l.Summary, nil
}

// linter is the state of one Lint.
type linter struct {
	*dataset.Lint
	store    backend.Store
	progress dataset.Progress

	indexes  map[string]backend.Object // what may be an index beside a shard, by name
	shards   []backend.Object
	total    int64          // bytes of all shards
	archives map[string]int // how shards are stored
	parts    *partTable
	keys     *keyTable
	full     bool // keys are not compared across shards any more

	mu struct {
		sync.Mutex
		moved  *sync.Cond // when next, merged or stopped has changed
		next   int        // shard to begin
		merged int        // shards that are done
		stop   bool
		ready  map[int]*shardReport
		done   dataset.Done
	}
}

func (l *linter) lint(ctx context.Context, opts Options) error {
	patterns := opts.Include
	if len(patterns) == 0 {
		patterns = []string{DefaultInclude}
	}
	in, err := dataset.CompileInclude(patterns)
	if err != nil {
		return err
	}
	if err := l.list(ctx, in); err != nil {
		return err
	}
	if err := l.walkAll(ctx); err != nil {
		return err
	}
	if err := l.sumUp(); err != nil {
		return err
	}
	_, err = l.Finish()
	return err
}

// list lists the shards and what may be indexes beside them.
func (l *linter) list(ctx context.Context, in *dataset.Include) error {
	seen, err := dataset.ListForLint(ctx, l.store, in, l.Lint, Named, func(o backend.Object, included bool) error {
		o.Name = bytes.Clone(o.Name)
		switch {
		case isIndex(o.Name):
			l.indexes[string(o.Name)] = o
		case included:
			l.shards = append(l.shards, o)
			l.total += o.Version.Size
		}
		if len(l.shards) > MaxShards || len(l.indexes) > 2*MaxShards {
			return tooMany(string(o.Name))
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(l.shards, func(a, b backend.Object) int { return bytes.Compare(a.Name, b.Name) })
	l.Summary.Files = int64(len(l.shards))
	l.mu.done.FilesTotal, l.mu.done.BytesTotal = l.Summary.Files, l.total
	l.report(0, 0, 0)
	if len(l.shards) == 0 {
		return l.Add(dataset.Finding{Code: "no-files", Offset: -1, What: fmt.Sprintf("looked for %s; saw %s", in, counted(seen, "other file", "other files"))})
	}
	return nil
}

// walkAll looks at the shards, several at once, and merges what was found in their
// order.
func (l *linter) walkAll(ctx context.Context) error {
	workers := min(runtime.GOMAXPROCS(0), maxWalkers)
	l.mu.moved, l.mu.ready = sync.NewCond(&l.mu), map[int]*shardReport{}
	var wait sync.WaitGroup
	for range min(workers, len(l.shards)) {
		wait.Go(func() {
			for i := l.take(2 * workers); i >= 0; i = l.take(2 * workers) {
				r := l.walk(ctx, &l.shards[i])
				l.mu.Lock()
				l.mu.ready[i] = r
				l.mu.moved.Broadcast()
				l.mu.Unlock()
			}
		})
	}
	err := l.mergeAll(ctx)
	l.mu.Lock()
	l.mu.stop = true
	l.mu.moved.Broadcast()
	l.mu.Unlock()
	wait.Wait()
	return err
}

// take returns the next shard to look at, -1 if there is none. It waits while more than
// ahead shards are not merged.
func (l *linter) take(ahead int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.mu.stop && l.mu.next < len(l.shards) && l.mu.next >= l.mu.merged+ahead {
		l.mu.moved.Wait()
	}
	if l.mu.stop || l.mu.next == len(l.shards) {
		return -1
	}
	l.mu.next++
	return l.mu.next - 1
}

// mergeAll merges the shards' reports.
func (l *linter) mergeAll(ctx context.Context) error {
	for i := range l.shards {
		l.mu.Lock()
		for l.mu.ready[i] == nil {
			l.mu.moved.Wait()
		}
		r := l.mu.ready[i]
		delete(l.mu.ready, i)
		l.mu.Unlock()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := l.merge(i, r); err != nil {
			return err
		}
		l.mu.Lock()
		l.mu.merged++
		l.mu.moved.Broadcast()
		l.mu.Unlock()
	}
	return nil
}

// merge tells of what was found in one shard.
func (l *linter) merge(i int, r *shardReport) error {
	o := &l.shards[i]
	l.Summary.Samples += r.samples
	l.Summary.Bytes += r.bytes
	for _, f := range r.findings {
		if err := l.Add(f); err != nil {
			return err
		}
	}
	for code, n := range r.more {
		l.Count(code, n)
	}
	if r.kind != "" {
		l.archives[r.kind]++
	}
	if err := l.judgeSize(i); err != nil {
		return err
	}
	l.parts.merge(i, r)
	return l.mergeKeys(i, o, r)
}

// judgeSize tells of a shard that is too small or large. The last one holds what is
// left over.
func (l *linter) judgeSize(i int) error {
	size, mean := l.shards[i].Version.Size, l.total/int64(len(l.shards))
	switch {
	case size > 0 && size < tinyShard && size < mean/4 && i+1 < len(l.shards):
		return l.addFile("tiny-shard", i, fmt.Sprintf("%d bytes; the mean of %d archives is %d", size, len(l.shards), mean))
	case size > hugeShard:
		return l.addFile("huge-shard", i, fmt.Sprintf("%d bytes", size))
	}
	return nil
}

func (l *linter) addFile(code string, shard int, what string) error {
	return l.Add(dataset.Finding{Code: code, File: string(l.shards[shard].Name), Offset: -1, What: what})
}

// sumUp tells of what concerns the dataset.
func (l *linter) sumUp() error {
	if l.Summary.Samples == 0 && l.Summary.Errors == 0 {
		if err := l.Add(dataset.Finding{Code: "empty-dataset", Offset: -1,
			What: counted(int64(len(l.shards)), "archive holds no sample", "archives hold no sample")}); err != nil {
			return err
		}
	}
	if n := int64(len(l.shards)); n >= severalShards && l.total/n < tinyShard {
		if err := l.Add(dataset.Finding{Code: "small-shards", Offset: -1,
			What: fmt.Sprintf("%d archives of %d bytes in the mean", n, l.total/n)}); err != nil {
			return err
		}
	}
	if len(l.archives) > 1 {
		what := "archives are stored as"
		for _, kind := range []string{kindTar, kindGzip, kindBzip2, kindXZ, kindZstd} {
			if n := l.archives[kind]; n > 0 {
				what += fmt.Sprintf(" %s: %d", kind, n)
			}
		}
		if err := l.Add(dataset.Finding{Code: "mixed-archives", Offset: -1, What: what}); err != nil {
			return err
		}
	}
	return l.parts.sumUp(l)
}

// report adds to what is done and tells the caller.
func (l *linter) report(files, bytes, samples int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := &l.mu.done
	d.Files += files
	d.Bytes += bytes
	d.Samples += samples
	if l.progress != nil {
		l.progress(*d)
	}
}
