package tar

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
)

// ViewOptions are the choices of a session.
type ViewOptions struct {
	// Select are the columns, in order. None: one for each part, sorted by name.
	Select []dataset.Select

	// Missing is what becomes of samples that lack all parts of a column: MissingError
	// refuses the View, MissingEmpty makes them 0 bytes. "": MissingError if there is a
	// Select, else MissingEmpty.
	Missing string
}

// What ViewOptions.Missing may be.
const (
	MissingError = "error"
	MissingEmpty = "empty"
)

// PresentColumn is the value column of a View in which some sample lacks a column: bit
// c is set if the sample has column c. It limits such a View to maxPresent columns.
const PresentColumn = "__present__"

const maxPresent = 62

// view is the dataset.View of an index of tar shards.
type view struct {
	index   *dataset.Index
	columns []dataset.Column
	present bool  // there is a PresentColumn
	mean    int64 // bytes of a sample, of the selected columns
	max     int64

	// shards[i] holds samples [ends[i-1], ends[i]) of the dataset.
	shards []shard
	ends   []int64
}

// shard is an archive of the dataset.
type shard struct {
	archive    backend.Object
	expanded   *backend.Object // holds the sparse members, nil if there are none
	groupBytes int64
	keyBytes   int64
	at         sections
	shapes     []*columns // by the numbers of its shapes
}

// columns is what the parts of a shape are for a View.
type columns struct {
	expanded    []bool // per part: whether it lies in the expanded file
	anyExpanded bool
	to          [][]int32 // per part: its columns
	missing     []int32   // columns that the shape lacks
	present     int64     // bit mask of those it has
}

// ID implements dataset.View: no choice of a session changes the samples.
func (v *view) ID() string { return v.index.Info().ID }

// Len implements dataset.View.
func (v *view) Len() int64 { return v.ends[len(v.ends)-1] }

// Columns implements dataset.View.
func (v *view) Columns() []dataset.Column { return slices.Clone(v.columns) }

// ValueColumns implements dataset.View: PresentColumn if some sample lacks a column.
func (v *view) ValueColumns() []dataset.Column {
	if !v.present {
		return nil
	}
	return []dataset.Column{{Name: PresentColumn, DType: dataset.Int64, Shape: []int64{}}}
}

// SampleBytes implements dataset.View. max is a bound that a sample may stay below.
func (v *view) SampleBytes() (mean, max int64) { return v.mean, v.max }

// Objects implements dataset.View: as many numbers as shards for archives, and as many
// for what holds the sparse members of each, which few shards have.
func (v *view) Objects() int64 { return 2 * int64(len(v.shards)) }

// Object implements dataset.View. Its name is the View's own.
func (v *view) Object(number int64, _ *[]byte) (backend.Object, error) {
	shards := int64(len(v.shards))
	switch {
	case number >= 0 && number < shards:
		return v.shards[number].archive, nil
	case number >= shards && number < 2*shards && v.shards[number-shards].expanded != nil:
		return *v.shards[number-shards].expanded, nil
	}
	return backend.Object{}, dataset.NoObject(number, v.Objects())
}

// Plan implements dataset.View: one part a column, one object a shard, two where its
// sparse members are selected. Object names are the View's own and live as long as it
// does.
func (v *view) Plan(p *dataset.Plan, samples []int64) error {
	p.Reset()
	objects := dataset.NewObjectTable(p, 2*len(samples))
	for len(samples) > 0 {
		n := min(len(samples), planAtOnce)
		if err := v.planSome(p, objects, samples[:n]); err != nil {
			return err
		}
		samples = samples[n:]
	}
	return nil
}

// Samples are planned in steps for many of them, as what takes the time is waiting for
// the index's memory: in a shuffle each sample is of another group.
const (
	planAtOnce      = 256
	planGroupsBytes = 256 << 10 // of groups that are copied at once, unless one has more
)

// planSome appends up to planAtOnce samples.
func (v *view) planSome(p *dataset.Plan, objects dataset.ObjectTable, samples []int64) error {
	p.Pieces = p.Pieces[:0]
	for _, sample := range samples {
		number, within, err := v.locate(sample)
		if err != nil {
			return err
		}
		p.Pieces = append(p.Pieces, dataset.Piece{
			Offset: v.shards[number].at.directory + within/groupSamples*directoryEntry, Bytes: 2 * directoryEntry, Note: int64(number),
		})
	}
	b, err := v.index.ReadPieces(sectionDirectory, p.Pieces, &p.Scratch)
	if err != nil {
		return err
	}
	for i := range p.Pieces {
		piece := &p.Pieces[i]
		s := &v.shards[piece.Note]
		from, to, _, _, err := v.bounds(s, (piece.Offset-s.at.directory)/directoryEntry, b[2*directoryEntry*i:])
		if err != nil {
			return err
		}
		piece.Offset, piece.Bytes = s.at.groups+from, to-from
	}
	for from := 0; from < len(samples); {
		to, bytes := from+1, p.Pieces[from].Bytes
		for to < len(samples) && bytes+p.Pieces[to].Bytes <= planGroupsBytes {
			bytes += p.Pieces[to].Bytes
			to++
		}
		if err := v.planGroups(p, objects, samples[from:to], p.Pieces[from:to]); err != nil {
			return err
		}
		from = to
	}
	return nil
}

// planGroups appends samples whose groups are the pieces.
func (v *view) planGroups(p *dataset.Plan, objects dataset.ObjectTable, samples []int64, groups []dataset.Piece) error {
	b, err := v.index.ReadPieces(sectionGroups, groups, &p.Scratch)
	if err != nil {
		return err
	}
	for i, sample := range samples {
		number := int(groups[i].Note)
		if number > 0 {
			sample -= v.ends[number-1]
		}
		if err := v.plan(p, objects, number, sample, b[:groups[i].Bytes]); err != nil {
			return err
		}
		b = b[groups[i].Bytes:]
	}
	return nil
}

// locate returns the shard of a sample, and the sample's number within it.
func (v *view) locate(sample int64) (number int, within int64, err error) {
	if sample < 0 || sample >= v.Len() {
		return 0, 0, &backend.Error{Kind: backend.OutOfRange, Op: "find", Object: fmt.Sprintf("sample %d", sample),
			Detail: fmt.Sprintf("it is not in [0, %d)", v.Len()), Remedy: "ask for a sample within [0, len)"}
	}
	number, _ = slices.BinarySearch(v.ends, sample+1) // the first that ends after sample
	if number > 0 {
		sample -= v.ends[number-1]
	}
	return number, sample, nil
}

// plan appends one sample of a group.
func (v *view) plan(p *dataset.Plan, objects dataset.ObjectTable, number int, within int64, group []byte) error {
	s := &v.shards[number]
	content, err := checkGroup(group, uint32(within/groupSamples))
	if err != nil {
		return v.corrupt(s, err)
	}
	g := groupReader{b: content}
	for range within % groupSamples {
		c := g.shape(s.shapes)
		if c == nil || !g.skip(c) {
			return v.corruptSample(s, within)
		}
	}
	c := g.shape(s.shapes)
	if c == nil || !v.emit(p, objects, number, c, &g) {
		return v.corruptSample(s, within)
	}
	return nil
}

// groupBounds reads and checks the bounds of one group.
func (v *view) groupBounds(s *shard, group int64, scratch *[]byte) (from, to, keysFrom, keysTo int64, err error) {
	b, err := v.index.ReadSection(sectionDirectory, s.at.directory+group*directoryEntry, 2*directoryEntry, scratch)
	if err != nil {
		return 0, 0, 0, 0, err
	}
	return v.bounds(s, group, b)
}

// bounds says where a group and its keys lie in the shard's part of their sections. b
// are the group's entry of the directory and the next.
func (v *view) bounds(s *shard, group int64, b []byte) (from, to, keysFrom, keysTo int64, err error) {
	le := binary.LittleEndian
	from, to = int64(le.Uint32(b)), int64(le.Uint32(b[8:]))
	keysFrom, keysTo = int64(le.Uint32(b[4:])), int64(le.Uint32(b[12:]))
	if from > to || to > s.groupBytes || to-from > maxGroupBytes || keysFrom > keysTo || keysTo > s.keyBytes || keysTo-keysFrom > maxKeyGroup {
		return 0, 0, 0, 0, v.corrupt(s, fmt.Errorf("%w: group %d lies at [%d, %d) of %d, its keys at [%d, %d) of %d", errIndex,
			group, from, to, s.groupBytes, keysFrom, keysTo, s.keyBytes))
	}
	return from, to, keysFrom, keysTo, nil
}

// shape reads the shape of the next sample, nil if there is none.
func (g *groupReader) shape(shapes []*columns) *columns {
	n, ok := g.uvarint()
	if !ok || n >= uint64(len(shapes)) {
		return nil
	}
	return shapes[n]
}

// skip reads past a sample's parts: part for each of them, with the numbers of one byte
// read in place, as half of what planning takes is spent here.
func (g *groupReader) skip(c *columns) bool {
	if c.anyExpanded {
		for _, expanded := range c.expanded {
			if _, _, ok := g.part(expanded); !ok {
				return false
			}
		}
		return true
	}
	b, at := g.b, g.at
	for range c.expanded {
		var numbers [2]uint64 // gap and length
		for k := range numbers {
			if i := g.i; i < len(b) && b[i] < 0x80 {
				numbers[k] = uint64(b[i])
				g.i++
				continue
			}
			n, ok := g.long()
			if !ok || n > maxArchiveBytes {
				return false
			}
			numbers[k] = n
		}
		if at += numbers[0] + (numbers[1]+blockBytes-1)/blockBytes; at > maxArchiveBytes/blockBytes {
			return false
		}
	}
	g.at = at
	return true
}

// emit appends a sample's columns to the plan. It is false for parts that do not lie in
// their object or are larger than the metadata allows.
func (v *view) emit(p *dataset.Plan, objects dataset.ObjectTable, number int, c *columns, g *groupReader) bool {
	s, first := &v.shards[number], len(p.Parts)
	for range v.columns {
		p.Parts = append(p.Parts, dataset.Part{})
	}
	row, sum, object := p.Parts[first:], int64(0), -1
	for i, expanded := range c.expanded {
		offset, size, ok := g.part(expanded)
		if !ok {
			return false
		}
		if len(c.to[i]) == 0 {
			continue
		}
		from := &s.archive
		if expanded {
			from = s.expanded // is there: see description.check
		}
		if size > from.Version.Size || offset > from.Version.Size-size {
			return false
		}
		object = v.place(p, objects, number, expanded)
		for _, column := range c.to[i] {
			row[column] = dataset.Part{Object: object, Offset: offset, Length: size}
			if sum += size; sum < 0 {
				return false
			}
		}
	}
	if len(c.missing) > 0 && object < 0 {
		object = v.place(p, objects, number, false) // parts of 0 bytes are of an object too
	}
	for _, column := range c.missing {
		row[column].Object = object
	}
	if v.present {
		p.Values = append(p.Values, c.present)
	}
	return sum <= v.max
}

// place returns the place of a shard's object in the plan.
func (v *view) place(p *dataset.Plan, objects dataset.ObjectTable, number int, expanded bool) int {
	file, from := uint32(2*number), &v.shards[number].archive
	if expanded {
		file, from = file+1, v.shards[number].expanded
	}
	at, found := objects.Find(file, len(p.Objects))
	if !found {
		p.Objects = append(p.Objects, *from)
	}
	return at
}

// Key implements dataset.View: the path of the shard and the sample's key.
func (v *view) Key(sample int64) (file, key string, err error) {
	number, within, err := v.locate(sample)
	if err != nil {
		return "", "", err
	}
	s := &v.shards[number]
	key, err = v.key(s, within)
	return string(s.archive.Name), key, err
}

func (v *view) key(s *shard, within int64) (string, error) {
	var scratch []byte
	group := within / groupSamples
	_, _, from, to, err := v.groupBounds(s, group, &scratch)
	if err != nil {
		return "", err
	}
	b, err := v.index.ReadSection(sectionKeys, s.at.keys+from, to-from, &scratch)
	if err != nil {
		return "", err
	}
	content, err := checkGroup(b, uint32(group))
	if err != nil {
		return "", v.corrupt(s, err)
	}
	keys := keyReader{fields: fields{b: content}}
	for range within % groupSamples {
		if _, err := keys.next(); err != nil {
			return "", v.corrupt(s, err)
		}
	}
	key, err := keys.next()
	if err != nil {
		return "", v.corrupt(s, err)
	}
	return string(key), nil
}

// corrupt is the error for an index that says what cannot be of a shard.
func (v *view) corrupt(s *shard, err error) error {
	return v.index.CorruptIndex(fmt.Sprintf("shard %q: %v", s.archive.Name, err))
}

func (v *view) corruptSample(s *shard, within int64) error {
	return v.corrupt(s, fmt.Errorf("%w: sample %d has parts that are not in it, or are larger than the largest", errIndex, within))
}
