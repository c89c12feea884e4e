package tar

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
)

// write writes the index from the journal.
func (s *scanner) write(ctx context.Context, listing *dataset.Listing, in *dataset.Include) (dataset.Info, error) {
	s.unskipIndexes(listing, in)
	sum := newSummary(listing.Skipped)
	records := int64(0)
	for i := range s.shards {
		about, _, err := s.describe(&s.shards[i])
		if err != nil {
			return dataset.Info{}, err
		}
		if s.shards[i].kept = about.samples > 0; s.shards[i].kept {
			records++
		}
		if err := sum.add(about); err != nil {
			return dataset.Info{}, err
		}
	}
	if records == 0 {
		return dataset.Info{}, nothingHeld(in, listing.Files, sum.info.Skipped)
	}
	options, err := json.Marshal(s.opts)
	if err != nil {
		return dataset.Info{}, fmt.Errorf("encode options: %w", err)
	}
	w, err := dataset.Create(s.dir, records)
	if err != nil {
		return dataset.Info{}, err
	}
	if err := s.fill(ctx, w); err != nil {
		w.Abort()
		return dataset.Info{}, err
	}
	info := sum.finish()
	info.Files = records
	meta, err := w.Commit(dataset.Meta{Origin: listing.Origin, Options: options, MaxBytes: sum.largest, Info: info})
	return meta.Info, err
}

// unskipIndexes takes back that the indexes beside shards were left out.
func (s *scanner) unskipIndexes(listing *dataset.Listing, in *dataset.Include) {
	seen := map[string]bool{}
	for i := range s.shards {
		_, o := s.sidecar(string(s.shards[i].object.Name))
		if o.Name != nil && !seen[string(o.Name)] && !in.Match(o.Name) {
			seen[string(o.Name)] = true
			listing.Unskip(o.Name)
		}
	}
}

// describe reads a shard's description from the journal.
func (s *scanner) describe(sh *scannedShard) (*description, []byte, error) {
	encoded, err := s.mu.journal.about(sh.at)
	if err != nil {
		return nil, nil, err
	}
	about, err := decodeDescription(encoded)
	if err != nil {
		return nil, nil, fmt.Errorf("read journal: shard %q: %w", sh.object.Name, err)
	}
	return about, encoded, nil
}

// fill writes records and sections.
func (s *scanner) fill(ctx context.Context, w *dataset.Writer) error {
	for i := range s.shards {
		sh := &s.shards[i]
		if !sh.kept {
			continue
		}
		about, encoded, err := s.describe(sh)
		if err != nil {
			return err
		}
		r := dataset.Record{Name: sh.object.Name, Version: sh.object.Version, Label: -1, Extra: encoded}
		if about.unpacked.Tag != "" {
			r.Version = about.unpacked
		}
		if err := w.Append(&r); err != nil {
			return err
		}
	}
	scratch := make([]byte, 64<<10)
	for _, section := range []string{sectionGroups, sectionKeys, sectionDirectory} {
		to, err := w.Section(section)
		if err != nil {
			return err
		}
		for i := range s.shards {
			if !s.shards[i].kept {
				continue
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := s.mu.journal.copy(to, s.shards[i].at, section, scratch); err != nil {
				return err
			}
		}
	}
	return nil
}

// nothingHeld is the error for shards without a sample.
func nothingHeld(in *dataset.Include, files int64, skipped map[string]int) error {
	e := &backend.Error{Kind: backend.NotFound, Op: "find", Object: "samples",
		Detail: fmt.Sprintf("looked for %s; no shard of the %d found holds a sample", in, files),
		Remedy: "complete the shards, or choose others with --include"}
	if n := skipped[SkippedDamaged]; n > 0 {
		e.Detail += fmt.Sprintf("; %d are damaged", n)
		e.Remedy = remedyDamage
	}
	return e
}
