package tar

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
)

// Open returns the samples of an index. It reads all records and keeps about 250 bytes
// a shard in memory; where samples lie stays in the index, which must not be closed
// before the View's last use.
//
// Errors: Corrupt or Unavailable for the index; Invalid for a Select that names no part
// that there is, or a column that samples lack under MissingError.
func Open(idx *dataset.Index, opts ViewOptions) (dataset.View, error) {
	if format := idx.Info().Format; format != Format {
		return nil, idx.CorruptIndex(fmt.Sprintf("it is of format %q, not %q", format, Format))
	}
	if opts.Missing != "" && opts.Missing != MissingError && opts.Missing != MissingEmpty {
		return nil, &backend.Error{Kind: backend.Invalid, Op: "use missing", Object: opts.Missing,
			Detail: "it is not known", Remedy: fmt.Sprintf("use %q or %q", MissingError, MissingEmpty)}
	}
	selection, err := newSelection(idx, opts.Select)
	if err != nil {
		return nil, err
	}
	v := &view{index: idx}
	for _, column := range selection.columns {
		v.columns = append(v.columns, dataset.Column{Name: column.Name, DType: dataset.Uint8, Shape: []int64{}, Ragged: true})
	}
	if err := v.load(selection); err != nil {
		return nil, err
	}
	missing := opts.Missing
	if missing == "" && len(opts.Select) > 0 {
		missing = MissingError
	}
	return v, v.judge(selection, missing == MissingError)
}

// selection is what a View makes columns of.
type selection struct {
	columns []dataset.Select
	shapes  map[string]*columns // by the names of their parts
	lists   map[string][]*columns

	// What the index holds of the selected columns.
	bytes   int64
	largest int64 // of a sample: at most
	twice   bool  // some part is more than one column
	lacking []int64
	example []example // per column, of a sample that lacks it
}

// example is where a sample of a shape is to be found.
type example struct{ shard, shape int }

// newSelection checks what a session selects.
func newSelection(idx *dataset.Index, selected []dataset.Select) (*selection, error) {
	there := map[string]bool{}
	var names []string
	for _, p := range idx.Info().Parts {
		there[p.Name] = true
		names = append(names, p.Name)
	}
	all := len(selected) == 0 // columns are named as their parts are, one of which may be ""
	if all {
		for _, name := range names {
			selected = append(selected, dataset.Select{Name: name, Parts: []string{name}})
		}
	}
	used := map[string]bool{}
	for _, s := range selected {
		switch {
		case s.Name == "" && !all || s.Name == PresentColumn || used[s.Name]:
			return nil, &backend.Error{Kind: backend.Invalid, Op: "select column", Object: s.Name,
				Detail: "columns need names of their own", Remedy: "name each column once"}
		case !slices.ContainsFunc(s.Parts, func(name string) bool { return there[name] }):
			return nil, &backend.Error{Kind: backend.Invalid, Op: "select column", Object: s.Name,
				Detail: fmt.Sprintf("no sample has %s; there are %s", anyOf(s.Parts), listed(names)),
				Remedy: "select parts that there are"}
		}
		used[s.Name] = true
	}
	n := len(selected)
	return &selection{columns: selected, shapes: map[string]*columns{}, lists: map[string][]*columns{},
		lacking: make([]int64, n), example: make([]example, n)}, nil
}

// anyOf names the alternatives of a column for people.
func anyOf(parts []string) string {
	switch len(parts) {
	case 0:
		return "a part without a name"
	case 1:
		return "a part " + quoted(parts)
	}
	return "any of the parts " + listed(parts)
}

// listed lists the first parts of a dataset for people.
func listed(names []string) string {
	const most = 30
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", quoted(names[:most]), len(names)-most)
	}
	return quoted(names)
}

// load reads the index's records.
func (v *view) load(sel *selection) error {
	var scratch, names []byte
	idx, samples, at := v.index, int64(0), sections{}
	n, origin := idx.Len(), idx.Meta().Origin
	if n > MaxShards {
		return idx.CorruptIndex(fmt.Sprintf("it has %d records", n))
	}
	v.shards, v.ends = make([]shard, n), make([]int64, n)
	for i := range n {
		r, err := idx.Record(i, &scratch)
		if err != nil {
			return err
		}
		about, err := decodeDescription(r.Extra)
		if err == nil && (about.samples == 0 || about.samples > math.MaxInt64/groupSamples-samples) {
			err = fmt.Errorf("%w: %d samples", errIndex, about.samples)
		}
		if err != nil {
			return idx.CorruptIndex(fmt.Sprintf("record %d, %q: %v", i, r.Name, err))
		}
		samples += about.samples
		from := len(names)
		names = append(names, r.Name...) // names given before stay valid where they are
		s := &v.shards[i]
		*s = shard{groupBytes: about.groupBytes, keyBytes: about.keyBytes, at: at}
		s.archive = backend.Object{Origin: origin, Number: i, Version: r.Version, Name: names[from:len(names):len(names)]}
		if about.expanded.Tag != "" {
			expanded := s.archive
			expanded.Number, expanded.Version = n+i, about.expanded
			s.expanded = &expanded
		}
		s.shapes = sel.use(about, int(i))
		at.skip(about)
		v.ends[i] = samples
	}
	return v.check(sel, samples, at)
}

// check holds the sums of the records against the metadata and the sections.
func (v *view) check(sel *selection, samples int64, at sections) error {
	idx, meta := v.index, v.index.Meta()
	if info := meta.Info; samples == 0 || info.Samples != samples || info.Files != idx.Len() || sel.bytes < 0 || sel.largest < 0 {
		return idx.CorruptIndex(fmt.Sprintf("metadata speaks of %d samples in %d shards; there are %d in %d",
			info.Samples, info.Files, samples, idx.Len()))
	}
	for name, want := range map[string]int64{sectionGroups: at.groups, sectionKeys: at.keys, sectionDirectory: at.directory} {
		if have, _ := idx.SectionBytes(name); have != want {
			return idx.CorruptIndex(fmt.Sprintf("section %q has %d bytes, its records speak of %d", name, have, want))
		}
	}
	v.mean, v.max = sel.bytes/samples, sel.largest
	if !sel.twice {
		v.max = min(v.max, meta.MaxBytes)
	}
	return nil
}

// use counts a shard for the selection and returns what its shapes are for it. Most
// shards share what they are made of, and then this.
func (sel *selection) use(about *description, number int) []*columns {
	var all strings.Builder
	shapes := make([]*columns, len(about.shapes))
	for i := range about.shapes {
		sh := &about.shapes[i]
		key := about.keyOf(sh)
		c, known := sel.shapes[key]
		if !known {
			c = sel.columnsOf(about, sh)
			sel.shapes[key] = c
		}
		shapes[i] = c
		fmt.Fprintf(&all, "%d:%s", len(key), key)
		sel.count(about, i, c, number)
	}
	if before, known := sel.lists[all.String()]; known {
		return before
	}
	sel.lists[all.String()] = shapes
	return shapes
}

// keyOf names a shape, whatever the shard.
func (d *description) keyOf(s *shape) string {
	var b []byte
	for _, p := range s.parts {
		b = appendText(b, d.suffixes[p.suffix].name)
		b = append(b, byte(partCode(shapePart{0, p.expanded})))
	}
	return string(b)
}

// columnsOf finds out which columns a shape has.
func (sel *selection) columnsOf(about *description, sh *shape) *columns {
	c := &columns{expanded: make([]bool, len(sh.parts)), to: make([][]int32, len(sh.parts))}
	for i, p := range sh.parts {
		c.expanded[i] = p.expanded
		c.anyExpanded = c.anyExpanded || p.expanded
	}
	for number, column := range sel.columns {
		part := about.first(sh, column.Parts)
		if part < 0 {
			c.missing = append(c.missing, int32(number))
			continue
		}
		c.to[part] = append(c.to[part], int32(number))
		if sel.twice = sel.twice || len(c.to[part]) > 1; number < maxPresent {
			c.present |= 1 << number
		}
	}
	return c
}

// first returns which part of a shape has the first of the names that it has, -1 if it
// has none.
func (d *description) first(s *shape, names []string) int {
	for _, name := range names {
		for i, p := range s.parts {
			if d.suffixes[p.suffix].name == name {
				return i
			}
		}
	}
	return -1
}

// count adds the samples of one shape of a shard.
func (sel *selection) count(about *description, number int, c *columns, shardNumber int) {
	sh, largest := &about.shapes[number], int64(0)
	for i, p := range sh.parts {
		for range c.to[i] {
			sel.bytes = add(sel.bytes, sh.bytes[i])
			largest = add(largest, about.suffixes[p.suffix].largest)
		}
	}
	sel.largest = max(sel.largest, largest)
	for _, column := range c.missing {
		if sel.lacking[column] == 0 && sh.samples > 0 {
			sel.example[column] = example{shardNumber, number}
		}
		sel.lacking[column] += sh.samples
	}
}

// add adds sizes of a hostile index: what does not fit is the largest number.
func add(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// judge decides what lacking columns mean for the View.
func (v *view) judge(sel *selection, refuse bool) error {
	for column, lacking := range sel.lacking {
		if lacking == 0 {
			continue
		}
		if refuse {
			return v.lacks(sel, column)
		}
		v.present = true
	}
	if v.present && len(v.columns) > maxPresent {
		return &backend.Error{Kind: backend.Invalid, Op: "use", Object: fmt.Sprintf("%d columns", len(v.columns)),
			Detail: fmt.Sprintf("some samples lack some of them, and which can be told of at most %d", maxPresent),
			Remedy: "choose parts with select"}
	}
	return nil
}

// lacks is the error for a column that samples lack.
func (v *view) lacks(sel *selection, column int) error {
	s := &v.shards[sel.example[column].shard]
	key, err := v.keyOfShape(s, sel.example[column])
	if err != nil {
		return err
	}
	name := sel.columns[column].Name
	return &backend.Error{Kind: backend.Invalid, Op: "select column", Object: name,
		Detail: fmt.Sprintf("%d of %s %s, for instance %.200q in %.200q", sel.lacking[column], counted(v.Len(), "sample", "samples"),
			words(sel.lacking[column], "lacks ", "lack ")+anyOf(sel.columns[column].Parts), key, s.archive.Name),
		Remedy: `allow them with missing="empty", or leave the part out of select`}
}

// keyOfShape returns the key of the first sample of a shape in its shard.
func (v *view) keyOfShape(s *shard, e example) (string, error) {
	first := int64(0)
	if e.shard > 0 {
		first = v.ends[e.shard-1]
	}
	samples := v.ends[e.shard] - first
	var scratch []byte
	for group := range (samples + groupSamples - 1) / groupSamples {
		from, to, _, _, err := v.groupBounds(s, group, &scratch)
		if err != nil {
			return "", err
		}
		b, err := v.index.ReadSection(sectionGroups, s.at.groups+from, to-from, &scratch)
		if err != nil {
			return "", err
		}
		content, err := checkGroup(b, uint32(group))
		if err != nil {
			return "", v.corrupt(s, err)
		}
		g := groupReader{b: content}
		for within := range min(groupSamples, samples-group*groupSamples) {
			n, ok := g.uvarint()
			if !ok || n >= uint64(len(s.shapes)) || !g.skip(s.shapes[n]) {
				return "", v.corruptSample(s, group*groupSamples+within)
			}
			if int(n) == e.shape {
				return v.key(s, group*groupSamples+within)
			}
		}
	}
	return "", v.corrupt(s, errors.New("no sample is of a shape that its record speaks of"))
}
