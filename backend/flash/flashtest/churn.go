package flashtest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/flash"
)

// Mix says how large the chunks are that arrive. Now is how much of the day has passed, from
// 0 to 1.
type Mix func(rng *rand.Rand, now float64) int64

// Fixed are chunks of the largest size: files of many of them.
func Fixed(*rand.Rand, float64) int64 { return backend.MaxChunkBytes }

// Images are the files of ImageNet, nearly: log-normal, 110 kB in the mean.
func Images(rng *rand.Rand, _ float64) int64 {
	const mean, sigma = 110e3, 0.6
	size := int64(math.Exp(math.Log(mean) - sigma*sigma/2 + sigma*rng.NormFloat64()))
	return max(1, min(size, backend.MaxChunkBytes))
}

// Shards are files of 16 to 512 MiB in chunks of 8 MiB: whole ones, and tails of any size.
func Shards(rng *rand.Rand, _ float64) int64 {
	chunks := math.Exp(math.Log(2) + rng.Float64()*math.Log(32))
	if rng.Float64()*chunks < 1 {
		return 1 + rng.Int64N(backend.MaxChunkBytes)
	}
	return backend.MaxChunkBytes
}

// Shifting are images in the first and in the last third of the day, and shards between.
func Shifting(rng *rand.Rand, now float64) int64 {
	if now > 1./3 && now < 2./3 {
		return Shards(rng, now)
	}
	return Images(rng, now)
}

// ChurnOptions configure Churn. Zero values stand for the defaults.
type ChurnOptions struct {
	Mix        Mix     // default Images
	LimitBytes int64   // of the device. Default 4 GiB
	Hours      int     // simulated. Default 24
	Turnover   float64 // of the device's bytes arrive in an hour. Default 1
	Full       float64 // part of the limit that is kept full of chunks. Default 0.95
	Puts       float64 // part of the arrivals that are put; negative: none. Default 0.01
	Seed       uint64
	Progress   func(hours float64) // called now and then; default none
}

func (o *ChurnOptions) ensureDefaults() {
	if o.Mix == nil {
		o.Mix = Images
	}
	if o.LimitBytes <= 0 {
		o.LimitBytes = 4 << 30
	}
	if o.Hours <= 0 {
		o.Hours = 24
	}
	if o.Turnover <= 0 {
		o.Turnover = 1
	}
	if o.Full <= 0 {
		o.Full = 0.95
	}
	if o.Puts == 0 {
		o.Puts = 0.01
	}
	if o.Progress == nil {
		o.Progress = func(float64) {}
	}
}

// ChurnResult is what came of it.
type ChurnResult struct {
	Hours    []flash.Use // at the end of each
	Arrivals int64       // chunks
	Refused  int64       // of them, those for which no room could be made
}

// Lost is the part of the capacity that is lost to fragmentation at the end.
func (r *ChurnResult) Lost() float64 { return r.Hours[len(r.Hours)-1].Lost() }

// Churn simulates days of arrivals on a device in memory whose payload is not kept: chunks
// are filled, some are put, some are read, and the driver deletes the oldest of them, or any,
// so that a certain part of the device is in use. Where the store drops chunks because their
// room cannot be used for what arrives, less is: that is lost. Time is counted in arrivals,
// the real clock has no part in the result.
func Churn(ctx context.Context, o ChurnOptions) (_ *ChurnResult, err error) {
	o.ensureDefaults()
	s, err := flash.Open(ctx, flash.Options{Devices: []flash.Device{{Path: "churn", Files: NewHollow(), LimitBytes: o.LimitBytes}}, ScrubBytesPerSecond: -1})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	c := &churn{
		options: &o, store: s, rng: rand.New(rand.NewPCG(o.Seed, 5)),
		content: make([]byte, backend.MaxChunkBytes),
	}
	for range o.Hours {
		if err := c.hour(ctx); err != nil {
			return nil, fmt.Errorf("hour %d: %w", len(c.result.Hours), err)
		}
	}
	return &c.result, nil
}

// churn is a simulation under way.
type churn struct {
	options *ChurnOptions
	store   *flash.Store
	rng     *rand.Rand
	content []byte // zeros, but for the first bytes of what is put
	kept    []backend.Chunk
	oldest  int   // of kept
	bytes   int64 // of kept from oldest on
	unknown int64 // bytes that arrived since the driver looked
	result  ChurnResult
}

// reconcilePart is after what part of the device, one in so many, has arrived the driver
// looks what the store has dropped.
const reconcilePart = 64

// reconcile forgets what the store has dropped.
func (c *churn) reconcile(ctx context.Context) error {
	there := map[backend.ChunkID]struct{}{}
	err := c.store.List(ctx, func(i backend.Info) error {
		there[i.Chunk.ID] = struct{}{}
		return nil
	})
	left := c.kept[c.oldest:]
	c.kept, c.oldest, c.bytes = c.kept[:0], 0, 0
	for _, chunk := range left {
		if _, found := there[chunk.ID]; found {
			c.kept = append(c.kept, chunk)
			c.bytes += chunk.Size
		}
	}
	return err
}

// hour lets as much arrive as in one, and measures.
func (c *churn) hour(ctx context.Context) error {
	o := c.options
	hour := float64(len(c.result.Hours))
	whole := o.Turnover * float64(o.LimitBytes)
	for arrived := 0.; arrived < whole; {
		now := hour + arrived/whole
		size := o.Mix(c.rng, now/float64(o.Hours))
		if err := c.arrive(ctx, size); err != nil {
			return err
		}
		arrived += float64(size)
		if c.unknown += size; c.unknown > o.LimitBytes/reconcilePart {
			c.unknown = 0
			o.Progress(now)
			if err := c.reconcile(ctx); err != nil {
				return err
			}
		}
	}
	use, err := c.store.Use(c.next((hour + 1) / float64(o.Hours)))
	c.result.Hours = append(c.result.Hours, use)
	return err
}

// next are arrivals as those that come, as many as could be kept beside what is.
func (c *churn) next(now float64) (sizes []int64) {
	rng := rand.New(rand.NewPCG(c.options.Seed, 6))
	for bytes := int64(0); bytes < c.options.LimitBytes; {
		size := c.options.Mix(rng, now)
		bytes += size
		sizes = append(sizes, size)
	}
	return sizes
}

// arrive keeps a chunk more, and fewer others.
func (c *churn) arrive(ctx context.Context, size int64) (err error) {
	for float64(c.bytes+size) > c.options.Full*float64(c.options.LimitBytes) {
		if err := c.delete(ctx); err != nil {
			return err
		}
	}
	c.result.Arrivals++
	chunk := backend.Chunk{Size: size}
	binary.LittleEndian.PutUint64(chunk.ID[:], uint64(c.result.Arrivals))
	if c.rng.Float64() < c.options.Puts {
		chunk, err = c.put(ctx, size)
	} else {
		err = c.store.Fill(ctx, chunk, c.content[:size])
	}
	switch {
	case backend.KindOf(err) == backend.NoSpace:
		c.result.Refused++
		return nil
	case err != nil:
		return err
	}
	c.kept = append(c.kept, chunk)
	c.bytes += size
	if c.rng.IntN(4) == 0 {
		return c.read(ctx)
	}
	return nil
}

func (c *churn) put(ctx context.Context, size int64) (backend.Chunk, error) {
	content := c.content[:size]
	head := content[:min(8, len(content))]
	var number [8]byte
	binary.LittleEndian.PutUint64(number[:], uint64(c.result.Arrivals))
	copy(head, number[:])
	defer clear(head)
	id, err := c.store.Put(ctx, content)
	return backend.Chunk{ID: id, Size: size}, err
}

// any is the place in kept of any chunk.
func (c *churn) any() int { return c.oldest + c.rng.IntN(len(c.kept)-c.oldest) }

// read reads of any chunk, so that it stays longer.
func (c *churn) read(ctx context.Context) error {
	err := c.store.ReadAt(ctx, c.kept[c.any()], c.content[:0], 0)
	if backend.KindOf(err) == backend.NotFound { // the store dropped it
		return nil
	}
	return err
}

// delete deletes the oldest chunk, or any.
func (c *churn) delete(ctx context.Context) error {
	at := c.oldest
	if c.rng.IntN(2) == 0 {
		at = c.any()
	}
	chunk := c.kept[at]
	c.kept[at] = c.kept[c.oldest]
	c.oldest++
	c.bytes -= chunk.Size
	if c.oldest > len(c.kept)/2 {
		c.kept = append(c.kept[:0], c.kept[c.oldest:]...)
		c.oldest = 0
	}
	return c.store.Delete(ctx, chunk)
}
