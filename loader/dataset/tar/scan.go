// Package tar makes a dataset of WebDataset's shards: tar archives in which consecutive
// members that share a key are the parts of one sample ("000017.jpg", "000017.cls").
//
// Samples are numbered in the order of their shards by the bytes of their paths, and
// within a shard in the order of the archive. Nothing is unpacked: the index says where
// in the archive each part lies, and compressed archives are kept in a seekable
// compressed form. Which members are samples follows WebDataset to the letter (see
// SplitName, Skipped and Samples).
//
// A View's columns are parts: those that are selected, else all, sorted by name. All
// are ragged bytes; a part that a sample lacks is 0 bytes long, and a value column
// PresentColumn tells it from an empty one.
package tar

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/seekable"
	"github.com/stokerio/stoker/loader/dataset"
)

// Format is the name of this format.
const Format = "tar"

// Options say what belongs to a dataset and how a scan deals with it.
type Options struct {
	// Include are patterns as dataset.Include has them. None: DefaultInclude.
	Include []string `json:"include,omitempty"`

	// Bad is what becomes of damage: BadFail (or "") or BadSkip.
	Bad string `json:"bad,omitempty"`

	// Journal is the path of a file that keeps what the scan has finished, so that one
	// that was interrupted is not begun again; it is removed with the scan's success.
	// "": none is kept.
	Journal string `json:"-"`

	// Reuse is an earlier index of the origin: shards that have not changed since are
	// taken from it. May be nil. It is not closed.
	Reuse *dataset.Index `json:"-"`
}

// What Options.Bad may be.
const (
	BadFail = "fail" // the scan ends with an error that names the place
	BadSkip = "skip" // what is damaged is left out and counted
)

// Reasons for which samples and shards are left out, keys of Info.Skipped.
const (
	SkippedEmpty       = "empty shard"   // no member is part of a sample
	SkippedDamaged     = "damaged shard" // samples before the damage are kept
	SkippedDuplicate   = "sample with a duplicate part"
	SkippedReserved    = "sample with a reserved part"          // see Reserved
	SkippedParts       = "sample of too many parts"             // see MaxParts
	SkippedKinds       = "shard with samples of too many kinds" // the whole shard
	SkippedUnsupported = "shard that cannot be read"            // too large when unpacked, or packed in a way that is not supported
)

const (
	maxWalkers   = 8   // shards walked at once
	reportAfter  = 256 // samples between two calls of a Progress for one shard
	remedyDamage = "`stoker dataset lint` lists all damage, --bad skip leaves it out"
)

// MaxShards is how many shards a dataset may have. An open dataset keeps about 250
// bytes for each in memory.
const MaxShards = 1 << 20

// DefaultInclude is what files are taken for shards if no patterns are given; see Named.
const DefaultInclude = "**/*.{tar,tgz,tbz,tbz2,txz,tzst,tar.gz,tar.bz2,tar.xz,tar.zst,tar.zstd}"

// Scan lists the origin's files once, walks the headers of each archive and writes the
// index to dataset.IndexPath(dir, Info.ID). Of a plain archive it reads little more
// than the pages of the headers; a compressed one is brought into seekable form in
// dir, once. An index of DALI or Energon beside a shard lets several walk it at once (see
// Info.Indexes).
//
// It keeps about 300 bytes a shard in memory and, for each of the up to 8 shards that
// are walked at once, their part of the index; finished ones wait in a file in dir.
//
// store, or one below it, must be a backend.Lister. progress may be nil.
// Errors: NotFound if no file matches or none holds a sample, Corrupt for a damaged
// archive, those of the origin, NoSpace and the like for dir, and the cause of ctx.
func Scan(ctx context.Context, store backend.Store, opts Options, dir string, progress dataset.Progress) (dataset.Info, error) {
	s := &scanner{store: store, opts: opts, dir: dir, progress: progress, indexes: map[string]backend.Object{}}
	info, err := s.scan(ctx)
	if err != nil {
		return dataset.Info{}, fmt.Errorf("scan tar shards: %w", err)
	}
	return info, nil
}

// scanner is the state of one Scan.
type scanner struct {
	store    backend.Store
	opts     Options
	dir      string
	progress dataset.Progress

	indexes map[string]backend.Object // what may be an index beside a shard, by name
	shards  []scannedShard
	walkers int // that may run at once

	large sync.Mutex // held while a large index beside a shard is in memory

	mu struct {
		sync.Mutex
		journal *journal
		done    dataset.Done
	}
}

// scannedShard is a shard of the dataset.
type scannedShard struct {
	object  backend.Object // as listed
	done    bool           // it is in the journal
	at      place          // there
	samples int64          // if it was taken from an earlier scan
	kept    bool           // it has samples
}

func (s *scanner) scan(ctx context.Context) (dataset.Info, error) {
	if s.opts.Bad != "" && s.opts.Bad != BadFail && s.opts.Bad != BadSkip {
		return dataset.Info{}, &backend.Error{Kind: backend.Invalid, Op: "use bad", Object: s.opts.Bad,
			Detail: "it is not known", Remedy: fmt.Sprintf("use %q or %q", BadFail, BadSkip)}
	}
	patterns := s.opts.Include
	if len(patterns) == 0 {
		patterns = []string{DefaultInclude}
	}
	in, err := dataset.CompileInclude(patterns)
	if err != nil {
		return dataset.Info{}, err
	}
	listing, err := dataset.List(ctx, s.store, in, s.dir, s.progress, s.visit)
	if err != nil {
		return dataset.Info{}, err
	}
	defer listing.Close()
	if err := listing.Each(ctx, nil, func(r *dataset.Record) error { return s.add(listing.Origin, r) }); err != nil {
		return dataset.Info{}, err
	}
	if err := s.openJournal(); err != nil {
		return dataset.Info{}, err
	}
	s.report(0, 0, 0)
	if err = s.walkAll(ctx); err == nil {
		var info dataset.Info
		if info, err = s.write(ctx, listing, in); err == nil {
			s.mu.journal.remove()
			return info, nil
		}
	}
	s.mu.journal.close()
	return dataset.Info{}, err
}

// visit keeps what may be indexes, which must be known before their shards are walked.
func (s *scanner) visit(o *backend.Object, _ bool) error {
	if !isIndex(o.Name) {
		return nil
	}
	if len(s.indexes) == 2*MaxShards {
		return tooMany(string(o.Name))
	}
	kept := *o
	kept.Name = bytes.Clone(o.Name)
	s.indexes[string(o.Name)] = kept
	return nil
}

func isIndex(name []byte) bool { return bytes.HasSuffix(name, []byte(".idx")) }

func tooMany(name string) error {
	return &backend.Error{Kind: backend.Invalid, Op: "index", Object: name, Detail: fmt.Sprintf("it is one more than %d shards", MaxShards),
		Remedy: "write larger shards, or choose some with --include"}
}

// add takes a file that matches.
func (s *scanner) add(origin string, r *dataset.Record) error {
	if isIndex(r.Name) { // a pattern matched it too; it counts with its shard
		return nil
	}
	if len(s.shards) == MaxShards {
		return tooMany(string(r.Name))
	}
	s.shards = append(s.shards, scannedShard{object: backend.Object{
		Origin: origin, Number: int64(len(s.shards)), Name: bytes.Clone(r.Name), Version: r.Version}})
	s.mu.done.FilesTotal++
	s.mu.done.BytesTotal += r.Version.Size
	return nil
}

// openJournal opens the journal and takes from it, and from an earlier index, the
// shards that have not changed.
func (s *scanner) openJournal() error {
	byName := make(map[string]int, len(s.shards))
	for i := range s.shards {
		byName[string(s.shards[i].object.Name)] = i
	}
	j, err := openJournal(s.opts.Journal, s.dir, func(name []byte, about *description, at place) {
		if i, ok := byName[string(name)]; ok && s.unchanged(&s.shards[i], about) {
			s.shards[i].done, s.shards[i].at, s.shards[i].samples = true, at, about.samples
		}
	})
	if err != nil {
		return err
	}
	s.mu.journal = j
	if err := s.reuse(byName); err != nil {
		j.close()
		return err
	}
	for i := range s.shards {
		if sh := &s.shards[i]; sh.done {
			s.report(1, sh.object.Version.Size, sh.samples)
		}
	}
	return nil
}

// unchanged reports whether what was found of a shard before is what would be found
// now.
func (s *scanner) unchanged(sh *scannedShard, about *description) bool {
	if len(about.skipped) > 0 && s.opts.Bad != BadSkip {
		return false // now it is an error
	}
	_, sidecar := s.sidecar(string(sh.object.Name))
	return about.source == withoutDevice(sh.object.Version) && about.sidecar == withoutDevice(sidecar.Version) &&
		s.present(about.unpacked) && s.present(about.expanded)
}

// present reports whether a file in seekable form that an earlier scan has made is
// still there. A version without a tag stands for no such file.
func (s *scanner) present(v backend.Version) bool {
	if v.Tag == "" {
		return true
	}
	file, _, ok := seekable.FileOf(v.Tag)
	if !ok {
		return false
	}
	_, err := os.Stat(filepath.Join(s.dir, file))
	return err == nil
}

// walkAll walks the shards that are not done, several at once. The error is that of
// the first shard, in their order, that has one.
func (s *scanner) walkAll(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	todo := make(chan int) // closed by this function
	s.walkers = min(runtime.GOMAXPROCS(0), maxWalkers)
	failures := make([]error, len(s.shards))
	var wait sync.WaitGroup
	for range min(s.walkers, len(s.shards)) {
		wait.Go(func() {
			spare := newEncoder()
			for i := range todo {
				if spare, failures[i] = s.walkShard(ctx, i, spare); failures[i] != nil {
					cancel()
				}
			}
		})
	}
	for i := range s.shards {
		if s.shards[i].done {
			continue
		}
		select {
		case todo <- i:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
	}
	close(todo)
	wait.Wait()
	return firstCause(ctx, failures)
}

// firstCause returns the first failure that is not the cancellation that another one
// led to.
func firstCause(ctx context.Context, failures []error) error {
	for _, err := range failures {
		if err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return context.Cause(ctx) // nil unless the scan was interrupted
}

// walkShard finds out what a shard holds and notes it in the journal. It may use the
// memory of an encoder, and returns one for the next shard.
func (s *scanner) walkShard(ctx context.Context, i int, spare *encoder) (*encoder, error) {
	sh := &s.shards[i]
	w := &shardWalk{scanner: s, ctx: ctx, object: &sh.object, spare: spare}
	b, err := w.walk()
	if err != nil {
		return w.spare, w.explain(err)
	}
	s.mu.Lock()
	sh.at, err = s.mu.journal.append(sh.object.Name, b)
	s.mu.Unlock()
	if err != nil {
		return w.spare, err
	}
	sh.done = true
	s.report(1, sh.object.Version.Size-w.bytes.Load(), b.about.samples-w.samples.Load())
	return w.spare, nil
}

// report adds to what is done and tells the caller.
func (s *scanner) report(files, bytes, samples int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := &s.mu.done
	d.Files += files
	d.Bytes += bytes
	d.Samples += samples
	if s.progress != nil {
		s.progress(*d)
	}
}
