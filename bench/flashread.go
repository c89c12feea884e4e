package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/flash"
)

// FlashReadRow is one way to read, over all repeats. MB are of the bytes that were asked
// for.
type FlashReadRow struct {
	Pattern   string `json:"pattern"`
	By        string `json:"by"`         // "gather": whole batches, "read at": piece by piece, the others are bare loops
	Chunks    string `json:"chunks"`     // what the pieces are of, "" for bare loops
	PageCache bool   `json:"page_cache"` // reads go through it; it was emptied before, and each piece is read once
	MBPS      Spread `json:"mb_per_s"`
	CPUSPerGB Spread `json:"cpu_s_per_gb"`
	// Share is of the quicker bare loop's rate in the same repeat.
	Share Spread `json:"share_of_bare_loop"`

	rates, cpu []float64 // of each repeat
}

// How pieces are read.
const (
	byPread     = "bare, pread"
	byRing      = "bare, io_uring"
	byGather    = "gather"
	byGatherers = "gather, no io_uring"
	byReadAt    = "read at"
)

// flashLane is one way to read; lanes of a pattern take turns.
type flashLane struct {
	by  string
	set *flashSet // nil for bare loops
	of  string    // what the pieces are of
	row *FlashReadRow
}

// flashPattern is a pattern of a device with the chunks that are read in it.
type flashPattern struct {
	devicePattern
	sets map[string]*flashSet // by what the pieces are of
}

// What pieces are of.
const (
	ofTheirOwn = "of their own"
	ofLarge    = "8 MiB"
)

// flashReads are the reads of one run.
type flashReads struct {
	*flashBench
	large, medium, small []backend.Chunk
	patterns             []flashPattern
	bare                 *device
	rings                bool // the kernel has io_uring for us
	limit                int64
}

// flashMode is how a store reads.
type flashMode struct {
	label  string
	direct bool // past the page cache
	ring   bool // by io_uring
}

var (
	pastPageCache    = flashMode{"past the page cache", true, true}
	withoutRing      = flashMode{"without io_uring", true, false}
	throughPageCache = flashMode{"through the page cache", false, true}
)

// tarHeader is before each member of a tar file: so pieces do not begin with a page.
const tarHeader = 512

const flashReadFolder = "reads"

func (b *flashBench) readParts() int {
	return 2 + (1+len(b.o.sizes.modes)*len(devicePatterns()))*b.o.sizes.repeats
}

// read measures reads: of a bare file, and of chunks that take as many bytes.
func (b *flashBench) read(ctx context.Context) (err error) {
	r := &flashReads{flashBench: b}
	b.part("write a bare file")
	if r.bare, err = openDevice(DeviceOptions{
		Dir: b.dir, FileBytes: b.o.sizes.readBytes, Depth: b.o.sizes.depth, Section: b.o.sizes.section, SyncBytes: min(8<<20, b.o.sizes.readBytes),
	}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.bare.close(), b.remove(flashReadFolder)) }()
	if _, err := r.bare.write(ctx); err != nil {
		return err
	}
	b.report.Direct, b.report.Refused = r.bare.refused == "", r.bare.refused
	r.name()
	b.part("fill the store")
	if err := r.fill(ctx); err != nil {
		return err
	}
	if err := r.probe(); err != nil {
		return err
	}
	return r.modes(ctx)
}

// probe asks whether there is io_uring.
func (r *flashReads) probe() error {
	ring, err := newRing(r.o.sizes.depth)
	if err != nil {
		r.report.NoRing = err.Error()
		return nil
	}
	r.rings = true
	return ring.close()
}

// modes measures in all modes that there are.
func (r *flashReads) modes(ctx context.Context) error {
	if r.report.Direct {
		if err := r.firstReads(ctx); err != nil {
			return err
		}
	}
	for _, mode := range r.o.sizes.modes {
		if mode.direct && !r.report.Direct {
			continue
		}
		if err := r.measure(ctx, mode); err != nil {
			return err
		}
	}
	r.figures()
	return nil
}

// name makes up the chunks and the pieces of them.
func (r *flashReads) name() {
	bytes := r.o.sizes.readBytes
	r.large = chunksOf("shards", 8<<20, bytes)
	r.medium = chunksOf("images", 100<<10, bytes)
	r.small = chunksOf("crops", 4<<10, bytes)
	of := func(s flashSet) *flashSet { return &s }
	for _, p := range devicePatterns() {
		sets := map[string]*flashSet{}
		switch p.block {
		case 1 << 20:
			sets[ofLarge] = of(split(r.large, p.block, 0))
		case 100 << 10:
			sets[ofTheirOwn], sets[ofLarge] = of(whole(r.medium)), of(split(r.large, p.block, tarHeader))
		default:
			sets[ofTheirOwn], sets[ofLarge] = of(whole(r.small)), of(split(r.large, p.block, tarHeader))
		}
		r.patterns = append(r.patterns, flashPattern{p, sets})
	}
	spans := int64(0)
	for _, chunks := range [][]backend.Chunk{r.large, r.medium, r.small} {
		perSpan := r.o.sizes.spanBytes / chunks[0].Size
		spans += (int64(len(chunks)) + perSpan - 1) / perSpan
	}
	r.limit = r.spansFor(spans + int64(len(r.patterns))) // one of each more, so that nothing is dropped
}

// fill stores all chunks, durably.
func (r *flashReads) fill(ctx context.Context) error {
	store, err := r.open(ctx, flashReadFolder, r.limit, flash.Options{})
	if err != nil {
		return err
	}
	for _, chunks := range [][]backend.Chunk{r.large, r.medium, r.small} {
		set := whole(chunks)
		if err := set.fill(ctx, store); err != nil {
			return errors.Join(err, store.Close())
		}
	}
	if err := store.Close(); err != nil {
		return err
	}
	return r.evict(flashReadFolder)
}

// firstReads measures reads of what was not checked since the store was opened, beside
// reads of what was.
func (r *flashReads) firstReads(ctx context.Context) error {
	var shares []float64
	set := whole(r.medium)
	for repeat := range r.o.sizes.repeats {
		r.part("first reads after a start")
		store, err := r.open(ctx, flashReadFolder, r.limit, flash.Options{Direct: true})
		if err != nil {
			return err
		}
		var rates [2]float64
		for i := range rates {
			done, err := r.once(ctx, store, &set, uint64(repeat))
			if err != nil {
				return errors.Join(err, store.Close())
			}
			rates[i] = done.perSecond()
		}
		if err := store.Close(); err != nil {
			return err
		}
		shares = append(shares, rates[0]/rates[1])
	}
	r.figure("first_read_share", spreadOf(shares), "")
	return nil
}

// once reads each piece of a set once.
func (r *flashReads) once(ctx context.Context, store *flash.Store, set *flashSet, seed uint64) (turned, error) {
	order := permutation(int(set.pieces()), seed)
	return r.gather(ctx, store, set, func(n int64) int64 { return int64(order[n]) }, reading{})
}

// measure reads in all patterns, in one mode.
func (r *flashReads) measure(ctx context.Context, mode flashMode) error {
	bare, store, err := r.opened(ctx, mode)
	if err != nil {
		return err
	}
	closing := func(err error) error {
		if bare != r.bare {
			err = errors.Join(err, bare.file.Close())
		}
		return errors.Join(err, store.Close())
	}
	for i, p := range r.patterns {
		lanes := r.lanes(p, mode)
		for repeat := range r.o.sizes.repeats {
			r.part(p.name + ", " + mode.label)
			for n := range lanes {
				lane := lanes[(n+repeat)%len(lanes)]
				if err := r.run(ctx, bare, store, p, lane, uint64(len(r.patterns)*repeat+i)); err != nil {
					return closing(fmt.Errorf("%s, %s: %w", p.name, lane.by, err))
				}
			}
		}
		r.summarise(lanes)
	}
	return closing(nil)
}

// opened opens the store, with everything checked, and the bare file.
func (r *flashReads) opened(ctx context.Context, mode flashMode) (*device, *flash.Store, error) {
	store, err := r.open(ctx, flashReadFolder, r.limit, flash.Options{Direct: mode.direct, NoUring: !mode.ring})
	if err != nil {
		return nil, nil, err
	}
	for _, chunks := range [][]backend.Chunk{r.large, r.medium, r.small} {
		set := whole(chunks)
		if _, err := r.once(ctx, store, &set, 0); err != nil {
			return nil, nil, errors.Join(err, store.Close())
		}
	}
	if mode.direct || r.bare.refused != "" {
		return r.bare, store, nil
	}
	file, err := os.Open(r.bare.path)
	if err != nil {
		return nil, nil, errors.Join(err, store.Close())
	}
	return &device{o: r.bare.o, path: r.bare.path, file: file, size: r.bare.size, refused: "it is to be read through the page cache"}, store, nil
}

// lanes are a pattern's ways to read, the bare loops first.
func (r *flashReads) lanes(p flashPattern, mode flashMode) []flashLane {
	lanes := []flashLane{{by: byPread}}
	if r.rings {
		lanes = append(lanes, flashLane{by: byRing})
	}
	gather := byGather
	if !mode.ring {
		gather = byGatherers
	}
	for _, of := range []string{ofTheirOwn, ofLarge} {
		if set := p.sets[of]; set != nil {
			lanes = append(lanes, flashLane{by: gather, set: set, of: of})
			if mode.direct && mode.ring {
				lanes = append(lanes, flashLane{by: byReadAt, set: set, of: of})
			}
		}
	}
	for i := range lanes {
		lanes[i].row = &FlashReadRow{Pattern: p.name, By: lanes[i].by, Chunks: lanes[i].of, PageCache: !mode.direct}
	}
	return lanes
}

// run reads in one lane until its section is over.
func (r *flashReads) run(ctx context.Context, bare *device, store *flash.Store, p flashPattern, lane flashLane, seed uint64) error {
	cached := bare.refused != ""
	if cached {
		if err := r.evict(flashReadFolder); err != nil {
			return err
		}
	}
	began := cpuNs()
	var rate, bytes float64
	if lane.set == nil {
		how := bare.read
		if lane.by == byRing {
			how = bare.readByRing
		}
		row, err := how(ctx, p.devicePattern, seed)
		if err != nil {
			return err
		}
		rate, bytes = row.MBPS, float64(row.Bytes)
	} else {
		order := p.order(lane.set.pieces(), seed)
		how := r.gather
		if lane.by == byReadAt {
			how = r.readAt
		}
		done, err := how(ctx, store, lane.set, order, reading{again: !cached, within: r.o.sizes.section})
		if err != nil {
			return err
		}
		rate, bytes = done.perSecond()/1e6, float64(done.bytes)
	}
	lane.row.rates = append(lane.row.rates, rate)
	lane.row.cpu = append(lane.row.cpu, float64(cpuNs()-began)/max(1, bytes))
	return nil
}

// summarise makes rows of lanes.
func (r *flashReads) summarise(lanes []flashLane) {
	bare := lanes[0].row.rates
	if ring := lanes[1].row; ring.By == byRing && spreadOf(ring.rates).Median > spreadOf(bare).Median {
		bare = ring.rates
	}
	for _, lane := range lanes {
		row := lane.row
		row.MBPS, row.CPUSPerGB = spreadOf(row.rates), spreadOf(row.cpu)
		row.Share = spreadOf(ratios(row.rates, bare))
		r.report.Reads = append(r.report.Reads, *row)
	}
}

// gatherers is how many batches are gathered at once: as many as the smallest ring has slots
// (session.slots). Each has its part of the reads under way, which all together are as many
// as a bare loop's.
const gatherers = 4

// batchOf is how many pieces a batch has.
func batchOf(piece int64) int64 { return max(32, min(512, (8<<20)/piece)) }

// reading is how long a set is read.
type reading struct {
	again  bool          // all over again when each piece was read
	within time.Duration // as of turns
}

// gather reads whole batches.
func (r *flashReads) gather(ctx context.Context, store *flash.Store, set *flashSet, order func(int64) int64, how reading) (done turned, err error) {
	batch := min(batchOf(set.piece), set.pieces())
	buffer, free, err := mapped(gatherers * batch * set.piece)
	if err != nil {
		return turned{}, err
	}
	defer func() { err = errors.Join(err, free()) }()
	var reads [gatherers][]backend.Read
	loop := turns{flights: gatherers, within: how.within}
	if !how.again {
		loop.count = (set.pieces() + batch - 1) / batch
	}
	return loop.run(ctx, func(flight int, turn int64) (int64, error) {
		mine, own := reads[flight][:0], buffer[int64(flight)*batch*set.piece:]
		first := turn * batch
		n := batch
		if !how.again {
			n = min(batch, set.pieces()-first)
		}
		for i := range n {
			mine = append(mine, set.read(order(first+i), own[i*set.piece:]))
		}
		reads[flight] = mine
		if err := backend.Gather(ctx, store, mine, nil); err != nil {
			return 0, err
		}
		for i := range n {
			if err := set.check(order(first+i), mine[i].P); err != nil {
				return 0, err
			}
		}
		return n * set.piece, nil
	})
}

// readAt reads piece by piece, as many at once as a bare loop does.
func (r *flashReads) readAt(ctx context.Context, store *flash.Store, set *flashSet, order func(int64) int64, how reading) (done turned, err error) {
	depth := r.o.sizes.depth
	buffer, free, err := mapped(int64(depth) * set.piece)
	if err != nil {
		return turned{}, err
	}
	defer func() { err = errors.Join(err, free()) }()
	loop := turns{flights: depth, within: how.within}
	if !how.again {
		loop.count = set.pieces()
	}
	return loop.run(ctx, func(flight int, turn int64) (int64, error) {
		n := order(turn)
		read := set.read(n, buffer[int64(flight)*set.piece:])
		if err := store.ReadAt(ctx, read.Chunk, read.P, read.Offset); err != nil {
			return 0, err
		}
		return set.piece, set.check(n, read.P)
	})
}

// figures are of gathers past the page cache, or through it where there is no other way:
// of two sets of chunks, of the one that is read slower.
func (r *flashReads) figures() {
	names := []string{"sequential", "shuffled_100k", "shuffled_4k"}
	cached := !r.report.Direct
	for i, p := range r.patterns {
		device := r.find(p.name, byPread, cached)
		if ring := r.find(p.name, byRing, cached); ring != nil && ring.MBPS.Median > device.MBPS.Median {
			device = ring
		}
		r.figure(names[i]+"_device", device.MBPS, device.By)
		for suffix, row := range map[string]*FlashReadRow{
			"_share": r.find(p.name, byGather, cached), "_share_pread": r.find(p.name, byGatherers, false),
			"_share_read_at": r.find(p.name, byReadAt, false), "_share_page_cache": r.find(p.name, byGather, true),
		} {
			if row != nil {
				r.figure(names[i]+suffix, row.Share, "chunks "+row.Chunks)
			}
		}
	}
}

// find is the row that is read in one way, of several that with the least share; nil if
// there is none.
func (r *flashReads) find(pattern, by string, cached bool) (worst *FlashReadRow) {
	for i := range r.report.Reads {
		row := &r.report.Reads[i]
		if row.Pattern == pattern && row.By == by && row.PageCache == cached && (worst == nil || row.Share.Median < worst.Share.Median) {
			worst = row
		}
	}
	return worst
}
