package loader

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/loader/dataset/tar"
	"github.com/stokerio/stoker/loader/dataset/tokens"
	"github.com/stokerio/stoker/loader/order"
	"github.com/stokerio/stoker/prefetch"
	"github.com/stokerio/stoker/shm"
)

// hintLead is the part of a deadline within which everything is to be there, so that a
// slow moment does not break it.
const hintLead = 0.8

// hintDrawn is how many random numbers are drawn for the tables of a hint at most, which
// takes some seconds.
const hintDrawn = 1 << 28

// indicesOfFile is how many indices take the memory of one range of a file.
const indicesOfFile = 6

// hintFrom is whose hint it is.
type hintFrom struct {
	client api.Client
	owner  string        // by which limits count
	lease  time.Duration // 0: until its connection ends
}

// addHint takes a hint in and begins to fetch for it.
func (n *Node) addHint(ctx context.Context, request api.HintRequest, from hintFrom) (api.Hint, error) {
	none := api.Hint{}
	if n.hints.carrier == nil {
		return none, &shm.Failure{Code: "unavailable", Where: "hints", What: "nothing is fetched ahead by this daemon", Remedy: "set prefetch.enabled"}
	}
	if err := n.checkHint(&request); err != nil {
		return none, err
	}
	if err := n.hints.room(from.owner); err != nil {
		return none, err
	}
	select {
	case n.hints.making <- struct{}{}:
		defer func() { <-n.hints.making }()
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
	held, err := n.registry.acquire(request.Dataset)
	if err != nil {
		return none, err
	}
	held.watch()
	h, err := n.makeHint(ctx, held, &request, from)
	if err == nil {
		err = n.hints.admit(h)
	}
	if err != nil {
		held.unwatch()
		return none, err
	}
	h.stream.budget, h.stream.probed = h.budget, h.budget < h.size.most()
	if err := n.hints.carrier.carry(h.stream, held.unwatch); err != nil {
		held.unwatch()
		_, _ = n.hints.end(h.id, hintUncarried) // that it is over already is all right
		return none, err
	}
	n.hints.start(h)
	return n.hints.describe(h), nil
}

// checkHint refuses what no dataset could make sense of.
func (n *Node) checkHint(r *api.HintRequest) error {
	named := 0
	for _, is := range []bool{r.Indices != nil, r.Sampler != nil, r.Files != nil} {
		if is {
			named++
		}
	}
	switch {
	case named == 0, r.Sampler == nil && len(r.Indices) == 0 && len(r.Files) == 0:
		return unusable("hint", "it names nothing that will be read", "give one of indices, sampler and files")
	case named > 1:
		return unusable("hint", "it names more than one of indices, sampler and files", "send a hint for each")
	case r.Window != nil && r.Sampler == nil:
		return unusable("window", "it is a part of a sampler's order, and there is no sampler", "leave it out, or name a sampler")
	case r.DeadlineSeconds != nil && r.SamplesPerSecond != nil:
		return unusable("deadline_seconds", "it contradicts samples_per_second", "give one of them")
	case r.BudgetBytes != nil && *r.BudgetBytes < 1:
		return unusable("budget_bytes", fmt.Sprintf("it is %d", *r.BudgetBytes), "give at least 1, or leave it out")
	}
	for name, value := range map[string]*float64{"deadline_seconds": r.DeadlineSeconds, "samples_per_second": r.SamplesPerSecond, "priority": r.Priority} {
		if value != nil && !(*value > 0 && !math.IsInf(*value, 1)) {
			return unusable(name, fmt.Sprintf("it is %v", *value), "give a number above 0, or leave it out")
		}
	}
	if count := int64(len(r.Indices) + indicesOfFile*len(r.Files)); count > n.hints.options.IndicesMax {
		return limitFailure("indices of hints", n.hints.options.IndicesMax, "indices", "announce fewer at a time, or raise prefetch.indices_max")
	}
	return nil
}

func unusable(where, what, remedy string) error {
	return &shm.Failure{Code: "invalid", Where: where, What: what, Remedy: remedy}
}

func beyond(where, what string) error {
	return &shm.Failure{Code: "out_of_range", Where: where, What: what, Remedy: "announce what there is"}
}

// makeHint finds out what a hint means for a dataset.
func (n *Node) makeHint(ctx context.Context, held *attached, r *api.HintRequest, from hintFrom) (*hint, error) {
	view, err := hintView(held, r)
	if err != nil {
		return nil, err
	}
	if err := sameIndex(r.Dataset, r.IndexID, view); err != nil {
		return nil, err
	}
	h := &hint{
		job: clip(r.JobID), client: from.client, owner: from.owner, lease: from.lease, created: time.Now(), dataset: held,
		stream: &hintStream{view: view, store: held.bytes, weight: 1},
	}
	h.stream.mu.progress = hintProgress{state: api.HintActive, begun: h.created}
	switch {
	case r.Sampler != nil:
		h.kind = r.Sampler.Kind
		h.stream.order, h.indices, err = n.sampled(ctx, view, r)
	case r.Files != nil:
		h.kind, h.indices = "files", indicesOfFile*int64(len(r.Files))
		h.stream.order, h.stream.files, err = filesOf(held, view, r.Files)
	default:
		h.kind, h.indices = "indices", int64(len(r.Indices))
		h.stream.order, err = listOf(r.Dataset, view, r.Indices)
	}
	if err != nil {
		return nil, err
	}
	if r.BudgetBytes != nil {
		h.budget = *r.BudgetBytes
	}
	if r.Priority != nil {
		h.stream.weight = *r.Priority
	}
	switch {
	case r.SamplesPerSecond != nil:
		h.stream.rate = *r.SamplesPerSecond
	case r.DeadlineSeconds != nil:
		h.stream.rate = min(float64(h.stream.order.length)/(hintLead**r.DeadlineSeconds), math.MaxFloat64)
	}
	if h.stream.layout = h.stream.files; h.stream.files == nil {
		h.stream.layout = newLayout(view)
	}
	h.size, h.watched, err = measureHint(ctx, h.stream)
	return h, err
}

// hintView cuts the dataset into the samples that the hint counts in.
func hintView(held *attached, r *api.HintRequest) (dataset.View, error) {
	c := cut{blockSize: r.BlockSize}
	for _, column := range r.Select {
		c.columns = append(c.columns, shm.SelectColumn(column))
	}
	switch {
	case held.info.Format == tar.Format:
		c.missing = tar.MissingEmpty
	case held.info.Format == tokens.Format && c.blockSize == 0 && r.Files != nil:
		c.blockSize = 1 // files have no rows
	}
	return held.view(c)
}

// listOf is the order of indices that were written down.
func listOf(name string, view dataset.View, indices []int64) (*hintOrder, error) {
	for _, sample := range indices {
		if err := withinDataset(name, sample, view); err != nil {
			return nil, err
		}
	}
	list, err := order.NewList(view.Len(), indices)
	if err != nil {
		return nil, unusable("indices", err.Error(), "announce another order")
	}
	return &hintOrder{places: listed{list.Epoch(0)}, length: list.Len()}, nil
}

// sampled is the order of a sampler, and how many indices it keeps in memory.
func (n *Node) sampled(ctx context.Context, view dataset.View, r *api.HintRequest) (*hintOrder, int64, error) {
	s := *r.Sampler
	setOne(&s.Epochs)
	setOne(&s.WorldSize)
	setOne(&s.BatchSize)
	if s.Kind == string(order.Windowed) && s.Window == 0 {
		s.Window = order.DefaultWindow
	}
	spec := order.Spec{Kind: order.Kind(s.Kind), Seed: s.Seed, Samples: view.Len(), Window: s.Window, Seeding: order.Seeding(s.Seeding)}
	share := order.Share{Rank: s.Rank, WorldSize: s.WorldSize, BatchSize: s.BatchSize, DropLast: s.DropLast, Padded: spec.Kind.Padded()}
	err := spec.Validate()
	if err == nil {
		err = share.Validate(spec.Samples)
	}
	if err == nil && (s.Epoch < 0 || s.Epochs < 0) {
		err = fmt.Errorf("epoch %d, epochs %d: neither may be negative", s.Epoch, s.Epochs)
	}
	if err == nil && (s.Window != 0 && spec.Kind != order.Windowed || s.Seeding != "" && !spec.Kind.Tabled()) {
		err = fmt.Errorf("kind %q takes no %s", s.Kind, map[bool]string{true: "window", false: "seeding"}[s.Window != 0])
	}
	if err != nil {
		return nil, 0, unusable("sampler", err.Error(), "give the sampler the parameters that the job's has")
	}
	places := newShared(nil, spec.Samples, share, s.Epoch, s.Epochs)
	if places.length == 0 || s.Epochs > math.MaxInt64/places.length || s.Epoch > math.MaxInt64-s.Epochs {
		return nil, 0, unusable("sampler", fmt.Sprintf("the rank reads %d samples in an epoch, %d times", places.length, s.Epochs), "name fewer epochs, or another rank")
	}
	o := &hintOrder{places: places, length: places.len()}
	if w := r.Window; w != nil {
		if w.From < 0 || w.Count < 1 || w.Count > o.length || w.From > o.length-w.Count {
			return nil, 0, beyond("window", fmt.Sprintf("%d samples from %d on: the rank reads %d", w.Count, w.From, o.length))
		}
		o.from, o.length = w.From, w.Count
	}
	if spec.Kind.Tabled() {
		return n.drawn(ctx, spec, places, o)
	}
	computed, err := order.New(spec)
	if err != nil {
		return nil, 0, unusable("sampler", err.Error(), "give the sampler the parameters that the job's has")
	}
	places.order = computed.Epoch
	return o, 0, nil
}

// setOne is for counts that are 1 where nothing is said.
func setOne[T int | int64](v *T) { setDefault(v, 1) }

// drawn writes a part of an order down that has tables, and lets the tables go.
func (n *Node) drawn(ctx context.Context, spec order.Spec, places *shared, o *hintOrder) (*hintOrder, int64, error) {
	if o.length > n.hints.options.IndicesMax {
		return nil, 0, limitFailure("indices of hints", n.hints.options.IndicesMax, "indices",
			"announce a window of the order at a time, or raise prefetch.indices_max: orders of torch and numpy are written down")
	}
	if tables := (o.from+o.length-1)/places.length - o.from/places.length + 1; tables > max(1, hintDrawn/(spec.Samples+1000)) {
		return nil, 0, limitFailure("random numbers drawn for a hint", hintDrawn, "numbers",
			fmt.Sprintf("name fewer epochs: each of these %d is drawn as a whole, for all ranks", tables))
	}
	indices := make([]int64, 0, o.length)
	for from := o.from; from < o.from+o.length; {
		epoch, place := from/places.length, from%places.length
		count := min(places.length-place, o.from+o.length-from)
		table, err := n.tables.Acquire(ctx, spec, places.epoch+epoch)
		if err != nil {
			return nil, 0, tableFailure(err)
		}
		indices = places.inEpoch(table.Permutation(), place, count, indices)
		table.Release()
		from += count
	}
	list, err := order.NewList(spec.Samples, indices)
	if err != nil {
		return nil, 0, unusable("sampler", err.Error(), "announce another order")
	}
	return &hintOrder{places: listed{list.Epoch(0)}, length: o.length}, o.length, nil
}

// filesOf finds files of the dataset by their names.
func filesOf(held *attached, view dataset.View, files []api.HintFile) (*hintOrder, *fileLayout, error) {
	l := &fileLayout{objects: view.Objects(), ranges: make([]prefetch.Piece, 0, len(files))}
	var scratch []byte
	l.size = func(number int64) int64 {
		o, err := view.Object(number, &scratch)
		if err != nil {
			return math.MaxInt64 // nobody fetches that as a whole
		}
		return o.Version.Size
	}
	named := view.Objects()
	if held.info.Format == tar.Format {
		named /= 2 // those behind have the names of their shards
	}
	for i := range files {
		piece, err := fileRange(view, named, &files[i])
		if err != nil {
			return nil, nil, err
		}
		if l.bytes += piece.Bytes; l.bytes < 0 {
			return nil, nil, beyond("files", "they have more bytes than there are numbers")
		}
		l.ranges = append(l.ranges, piece)
	}
	return &hintOrder{places: numbered(len(files)), length: int64(len(files))}, l, nil
}

// fileRange finds one file among the first named objects, which are sorted by name.
func fileRange(view dataset.View, named int64, f *api.HintFile) (prefetch.Piece, error) {
	none, where := prefetch.Piece{}, "file "+elide(f.Path, 256)
	if !fs.ValidPath(f.Path) || f.Path == "." || strings.IndexByte(f.Path, 0) >= 0 {
		return none, unusable(where, "it is no path within the dataset's directory", "give a path relative to that directory, without \".\", \"..\" and double slashes")
	}
	var scratch []byte
	var found backend.Object
	low, high := int64(0), named
	for low < high {
		middle := low + (high-low)/2
		o, err := view.Object(middle, &scratch)
		if err != nil {
			return none, err
		}
		switch strings.Compare(string(o.Name), f.Path) {
		case 0:
			found, low, high = o, middle, middle
			found.Name = slices.Clone(o.Name)
		case -1:
			low = middle + 1
		default:
			high = middle
		}
	}
	switch size := found.Version.Size; {
	case found.Name == nil:
		return none, &shm.Failure{Code: "not_found", Where: where, What: "the dataset has no such file", Remedy: "`stoker dataset preview` shows some; add the dataset anew if the file is new"}
	case f.Offset < 0 || f.Length < 0 || f.Offset > size || f.Length > size-f.Offset:
		return none, beyond(where, fmt.Sprintf("%d bytes from %d on: it has %d", f.Length, f.Offset, size))
	case f.Length == 0:
		return prefetch.Piece{Chunk: low, Offset: f.Offset, Bytes: size - f.Offset}, nil
	}
	return prefetch.Piece{Chunk: low, Offset: f.Offset, Bytes: f.Length}, nil
}

// decodeHint reads a hint's JSON as the HTTP API does.
func decodeHint(text json.RawMessage) (r api.HintRequest, err error) {
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&r); err != nil {
		return r, unusable("hint", err.Error(), "use a client of this release")
	}
	return r, nil
}
