package tar

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"unicode/utf8"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
)

// shardReport is what a lint found in one shard.
type shardReport struct {
	object   *backend.Object
	kind     string // how it is stored, "" if it cannot be told
	samples  int64
	bytes    int64
	findings []dataset.Finding
	told     map[string]int   // findings by code
	more     map[string]int64 // findings that were not kept, by code
	keys     shardKeys
	parts    shardParts

	// The first of each kind, and how many there are.
	odd, partless, sparse, unsorted firstOf
	last                            []byte // key

	toldBytes, toldSamples int64 // to progress
}

// firstOf is the first of several things of one kind.
type firstOf struct {
	count  int64
	offset int64
	name   string
}

func (p *firstOf) add(offset int64, name []byte) {
	if p.count == 0 {
		p.offset, p.name = offset, string(name)
	}
	p.count++
}

// find keeps a finding.
func (r *shardReport) find(code string, offset int64, key, format string, args ...any) {
	if r.told[code]++; r.told[code] > dataset.MaxShownFindings {
		r.more[code]++
		return
	}
	r.findings = append(r.findings, dataset.Finding{Code: code, File: string(r.object.Name), Offset: offset, Key: key, What: fmt.Sprintf(format, args...)})
}

// walk looks at one shard.
func (l *linter) walk(ctx context.Context, o *backend.Object) *shardReport {
	r := &shardReport{object: o, told: map[string]int{}, more: map[string]int64{}, parts: newShardParts()}
	r.keys.seed = l.keys.seed
	err := l.open(ctx, r)
	if err != nil && ctx.Err() == nil {
		switch kind := backend.KindOf(err); {
		case kind == backend.Corrupt, kind == backend.Invalid:
			r.find("bad-compression", -1, "", "%s", reason(err))
		default:
			r.find("unreadable", -1, "", "%s", reason(err))
		}
	}
	l.report(1, o.Version.Size-r.toldBytes, r.samples-r.toldSamples)
	return r
}

// reason says why an error occurred, without what its finding says anyway.
func reason(err error) string {
	var e *backend.Error
	if !errors.As(err, &e) {
		return err.Error()
	}
	what := e.Detail
	if e.Err != nil && what != "" {
		what += ": "
	}
	if e.Err != nil {
		what += e.Err.Error()
	}
	if what == "" {
		what = string(e.Kind)
	}
	return what
}

// open opens the shard and walks it.
func (l *linter) open(ctx context.Context, r *shardReport) error {
	in, err := backend.OpenObject(ctx, l.store, r.object)
	if err != nil {
		return err
	}
	err = l.walkOpen(ctx, in, r)
	if closed := in.Close(); err == nil {
		err = closed
	}
	return err
}

func (l *linter) walkOpen(ctx context.Context, in backend.Reader, r *shardReport) error {
	kind, err := archiveKind(in, r.object)
	if err != nil {
		return err
	}
	r.kind = kind
	w := NewWalker(objectSource{in, r.object.Version.Size})
	if kind != kindTar {
		r.find("compressed-archive", -1, "", "it is compressed with %s", kind)
		stream, err := newCompressed(in, r.object).decompress(kind)
		if err != nil {
			return err
		}
		w = NewStreamWalker(stream)
	}
	w.Object = string(r.object.Name)
	beside := l.beside(ctx, r)
	if err := l.walkSamples(ctx, w, r, beside); err != nil {
		return err
	}
	r.judge(w, beside)
	return nil
}

// walkSamples looks at all samples of the shard, those behind a bad one too. It
// returns errors that are no fault of the archive's.
func (l *linter) walkSamples(ctx context.Context, w *Walker, r *shardReport, beside *lintBeside) error {
	samples := NewSamples(w)
	samples.each = r.member
	leaving, key := false, "" // of the sample that is being left out
	for {
		s, err := samples.Next()
		switch {
		case err == nil:
			if !leaving || string(s.Key) != key {
				leaving = false
				r.sample(s)
				beside.compare(s)
				if r.samples%reportAfter == 0 {
					l.progressed(w, r)
				}
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		case err == io.EOF:
			return nil
		case w.Fault().Code == "":
			return err
		default:
			f := w.Fault()
			if !leaving || key != f.Key {
				r.find(string(f.Code), f.Offset, f.Key, "%s", f.What)
			}
			beside.spoil()
			if _, perSample := reasons[f.Code]; !perSample {
				return nil
			}
			leaving, key = true, f.Key
			w.WalkRange(w.Offset(), -1)
			samples.Reset()
		}
	}
}

// progressed tells how far the shard is.
func (l *linter) progressed(w *Walker, r *shardReport) {
	offset := w.Offset()
	if r.kind != kindTar {
		offset = 0 // offsets say little about the compressed bytes
	}
	l.report(0, offset-r.toldBytes, r.samples-r.toldSamples)
	r.toldBytes, r.toldSamples = offset, r.samples
}

// member looks at a member of the archive.
func (r *shardReport) member(m *Member) {
	if !m.Regular || Skipped(m.Name) {
		return
	}
	if oddName(m.Name) {
		r.odd.add(m.Header, m.Name)
	}
	if m.Sparse != nil {
		r.sparse.add(m.Header, m.Name)
	}
	if splitAt(m.Name) < 0 {
		r.partless.add(m.Header, m.Name)
	}
}

// sample looks at a sample.
func (r *shardReport) sample(s *Sample) {
	r.samples++
	if r.samples > 1 && bytes.Compare(s.Key, r.last) < 0 {
		r.unsorted.add(s.Header, s.Key)
	}
	r.last = append(r.last[:0], s.Key...)
	r.keys.add(s.Key, s.Header)
	r.bytes += r.parts.add(s)
}

// oddName reports whether other programs may stumble over a name.
func oddName(name []byte) bool {
	plain := true
	for i, c := range name {
		if c < ' ' || c == 0x7f {
			return true
		}
		if c >= utf8.RuneSelf {
			plain = false
		}
		if c == '.' && i > 0 && name[i-1] == '.' && (i == 1 || name[i-2] == '/') && (i+1 == len(name) || name[i+1] == '/') {
			return true
		}
	}
	return len(name) > 0 && name[0] == '/' || !plain && !utf8.Valid(name)
}

// judge tells of what is to be said once the whole shard was seen.
func (r *shardReport) judge(w *Walker, beside *lintBeside) {
	if r.samples == 0 && len(r.findings) == 0 {
		r.find("no-samples", -1, "", "it holds no sample; %d of its files %s part of none", r.partless.count, words(r.partless.count, "is", "are"))
	}
	first := func(code string, p firstOf, one, more string) {
		if p.count > 0 {
			r.find(code, p.offset, "", "%s%s %.120q", counted(p.count, one, more), words(p.count, ":", ", the first of them"), p.name)
		}
	}
	first("odd-name", r.odd, "member has a name that other programs may stumble over", "members have names that other programs may stumble over")
	first("sparse-member", r.sparse, "member is sparse", "members are sparse")
	first("unsorted", r.unsorted, "sample comes behind one of a larger key", "samples come behind one of a larger key")
	if r.samples > 0 {
		first("no-part", r.partless, "file is part of no sample", "files are part of no sample")
	}
	if r.parts.full {
		r.find("too-many-kinds", -1, "", "its samples have %d names of parts in %d different lists or more", len(r.parts.names), len(r.parts.shapes))
	}
	r.parts.judge(r)
	if w.err != io.EOF {
		return
	}
	end := w.End()
	if end.Kind != EndBlocks {
		r.find("unusual-end", end.Offset, "", "it ends with %s, expected %s", end.Kind, EndBlocks)
	}
	if end.After >= 0 {
		r.find("data-after-end", end.After, "", "the archive ends at byte %d", end.Offset)
	}
	beside.judge(r, end)
}

// hashOf hashes a key; 0 stands for no key.
func hashOf(seed maphash.Seed, key []byte) uint64 { return max(1, maphash.Bytes(seed, key)) }
