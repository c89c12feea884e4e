package tar

import (
	"encoding/binary"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
)

// reuse takes from an earlier index the shards that have not changed and are not in
// the journal yet. What cannot be read there is walked again.
func (s *scanner) reuse(byName map[string]int) error {
	x := s.opts.Reuse
	if x == nil || x.Info().Format != Format {
		return nil
	}
	var scratch []byte
	var at sections
	for number := range x.Len() {
		r, err := x.Record(number, &scratch)
		if err != nil {
			return nil
		}
		about, err := decodeDescription(r.Extra)
		if err != nil {
			return nil
		}
		i, listed := byName[string(r.Name)]
		if listed && !s.shards[i].done && s.unchanged(&s.shards[i], about) {
			encoded := append([]byte(nil), r.Extra...)
			if b := copyShard(x, at, about); b != nil {
				b.description = encoded
				if err := s.note(i, b); err != nil {
					return err
				}
			}
		}
		at.skip(about)
	}
	return nil
}

// note puts a shard of an earlier index into the journal.
func (s *scanner) note(i int, b *blob) error {
	sh := &s.shards[i]
	at, err := s.mu.journal.append(sh.object.Name, b)
	if err != nil {
		return err
	}
	sh.done, sh.at, sh.samples = true, at, b.about.samples
	return nil
}

// sections is where a shard's bytes begin in the sections of an index.
type sections struct{ groups, keys, directory int64 }

// skip goes on to the next shard.
func (s *sections) skip(d *description) {
	s.groups += d.groupBytes
	s.keys += d.keyBytes
	s.directory += d.directoryBytes()
}

// copyShard returns a shard of an index, nil if anything about it is wrong.
func copyShard(x *dataset.Index, at sections, about *description) *blob {
	b := &blob{about: *about}
	for _, part := range []struct {
		to        *[]byte
		section   string
		offset, n int64
	}{
		{&b.groups, sectionGroups, at.groups, about.groupBytes},
		{&b.keys, sectionKeys, at.keys, about.keyBytes},
		{&b.directory, sectionDirectory, at.directory, about.directoryBytes()},
	} {
		if have, ok := x.SectionBytes(part.section); !ok || part.n > have {
			return nil // before that much memory is taken
		}
		read, err := x.ReadSection(part.section, part.offset, part.n, part.to)
		if err != nil {
			return nil
		}
		*part.to = read
	}
	if b.damaged() {
		return nil
	}
	return b
}

// damaged reports whether a shard's directory or a checksum is wrong.
func (b *blob) damaged() bool {
	le := binary.LittleEndian
	groups, keys := uint32(0), uint32(0)
	for number := range uint32(b.about.groupCount()) {
		entry := b.directory[int(number)*directoryEntry:]
		nextGroups, nextKeys := le.Uint32(entry[8:]), le.Uint32(entry[12:])
		if le.Uint32(entry) != groups || le.Uint32(entry[4:]) != keys || nextGroups < groups || nextKeys < keys ||
			int(nextGroups) > len(b.groups) || int(nextKeys) > len(b.keys) {
			return true
		}
		if _, err := checkGroup(b.groups[groups:nextGroups], number); err != nil {
			return true
		}
		if _, err := checkGroup(b.keys[keys:nextKeys], number); err != nil {
			return true
		}
		groups, keys = nextGroups, nextKeys
	}
	return int(groups) != len(b.groups) || int(keys) != len(b.keys)
}

// withoutDevice is a version as the index knows it: one file system has another
// device number after the next start.
func withoutDevice(v backend.Version) backend.Version {
	v.Device = 0
	return v
}
