package tar

import (
	"context"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
)

// maxLintedIndex is the largest index beside a shard that a lint compares with it:
// several of them are in memory at once.
const maxLintedIndex = 64 << 20

// lintBeside is an index beside a shard that is being compared with it.
type lintBeside struct {
	name    string // "": there is none, or it cannot be compared
	dali    *DALIIndex
	energon []int64
	count   int    // samples so far
	wrong   string // the first thing that does not fit
	at      int64
	end     int64 // of the last part
}

// beside reads the index beside a shard, if there is one.
func (l *linter) beside(ctx context.Context, r *shardReport) *lintBeside {
	b := &lintBeside{}
	shard := string(r.object.Name)
	o, isDALI := l.indexes[DALIName(shard)]
	if !isDALI {
		o = l.indexes[EnergonName(shard)]
	}
	if o.Name == nil || r.kind != kindTar || o.Version.Size > maxLintedIndex {
		return b
	}
	if o.Version.ModifiedNs < r.object.Version.ModifiedNs {
		r.findIn(string(o.Name), "index-old", -1, "it is older than %q", shard)
		return b
	}
	content := make([]byte, o.Version.Size)
	err := dataset.ReadObject(ctx, l.store, &o, content, 0)
	if err == nil && isDALI {
		b.dali, err = ReadDALI(content, r.object.Version.Size)
	} else if err == nil {
		b.energon, err = ReadEnergon(content, r.object.Version.Size)
	}
	switch kind := backend.KindOf(err); {
	case err == nil:
		b.name = string(o.Name)
	case kind == backend.Corrupt:
		r.findIn(string(o.Name), "index-misfit", -1, "%s", reason(err))
	case ctx.Err() == nil:
		r.findIn(string(o.Name), "unreadable", -1, "%s", reason(err))
	}
	return b
}

// findIn keeps a finding about a file beside the shard.
func (r *shardReport) findIn(file, code string, offset int64, format string, args ...any) {
	kept := len(r.findings)
	r.find(code, offset, "", format, args...)
	if len(r.findings) > kept {
		r.findings[kept].File = file
	}
}

// spoil ends the comparison: damage in the archive says nothing about its index.
func (b *lintBeside) spoil() { b.name = "" }

// compare holds the next sample against the index.
func (b *lintBeside) compare(s *Sample) {
	if b.name == "" || b.wrong != "" {
		return
	}
	number := b.count
	b.count++
	last := s.Parts[len(s.Parts)-1]
	b.end = last.Data + padded(last.Stored)
	switch {
	case b.energon != nil && (number >= len(b.energon)-1 || b.energon[number] != s.Header),
		b.dali != nil && (number >= b.dali.Len() || !equalSample(b.dali.Sample(number), s)):
		b.wrong, b.at = "the sample here is another one, or none, in the index", s.Header
	}
}

// judge tells whether the index fits.
func (b *lintBeside) judge(r *shardReport, end End) {
	if b.name == "" {
		return
	}
	if b.wrong == "" {
		entries := 0
		switch {
		case b.energon != nil:
			entries = len(b.energon) - 1
			if at := b.energon[entries]; at < b.end || at > end.Offset {
				b.wrong, b.at = "the index ends elsewhere", end.Offset
			}
		case b.dali != nil:
			entries = b.dali.Len()
		}
		if entries != b.count {
			b.wrong, b.at = "the index speaks of more samples", end.Offset
		}
	}
	if b.wrong != "" {
		r.find("index-misfit", b.at, "", "%q does not fit it: %s", b.name, b.wrong)
	}
}
