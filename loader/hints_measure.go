package loader

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/prefetch"
)

const (
	// hintLooked is how many samples of a hint are looked at: the share of them that is
	// resident is then that of all within 3 %, nineteen times of twenty.
	hintLooked = 1024
	// hintLooking is how long that may take where files are slow to open.
	hintLooking = 500 * time.Millisecond
)

// hintSize is how large a hint is, and how much of it was there when it came.
type hintSize struct {
	bytes, resident int64
	estimated       bool // from some of its samples
}

// most is a bound that the size is likely to stay below.
func (s hintSize) most() int64 {
	if s.estimated {
		return s.bytes + s.bytes/4 + 1
	}
	return max(1, s.bytes)
}

// measureHint looks at some samples of a hint, at all if they are few.
func measureHint(ctx context.Context, s *hintStream) (size hintSize, w *watched, err error) {
	n := s.order.length
	count := min(n, hintLooked)
	w = newWatched(s.files != nil, count)
	ctx, cancel := context.WithTimeout(ctx, hintLooking)
	defer cancel()
	look := residency{ctx: ctx, stream: s}
	look.prober, _ = backend.As[backend.Prober](s.store)
	var samples []int64
	var pieces []prefetch.Piece
	var ends []int32
	for i := range count {
		place := spread(i, count, n)
		samples = s.order.At(0, place, 1, samples[:0])
		if pieces, ends, err = s.layout.Pieces(samples, pieces[:0], ends[:0]); err != nil {
			return size, nil, err
		}
		key := samples[0]
		if s.files != nil && len(pieces) > 0 {
			key = pieces[0].Chunk
		}
		w.watch(key, place)
		look.at(pieces)
	}
	return look.size(n, count), w, nil
}

// spread is the i-th of count places that lie evenly in [0, n), the ends not first, so
// that whoever stops early has seen some from everywhere.
func spread(i, count, n int64) int64 {
	const stride = 633_910_099 // a prime, larger than any count
	turn := i * stride % count
	if n == count {
		return turn
	}
	return min(int64(float64(turn)*(float64(n)/float64(count))), n-1)
}

// residency sums up what is looked at.
type residency struct {
	ctx    context.Context //nolint:containedctx // of one call
	stream *hintStream
	prober backend.Prober
	name   []byte

	bytes    int64 // of all samples looked at
	probed   int64 // of them, whose residency is known
	resident int64
	over     bool // no time is left
}

func (l *residency) at(pieces []prefetch.Piece) {
	for i := range pieces {
		piece := &pieces[i]
		l.bytes += piece.Bytes
		if l.prober == nil || l.over {
			continue
		}
		o, err := l.stream.view.Object(piece.Chunk, &l.name)
		if err != nil {
			continue
		}
		bytes, known, err := l.prober.Resident(l.ctx, &o, piece.Offset, piece.Bytes)
		l.over = l.ctx.Err() != nil
		if err == nil && known {
			l.probed += piece.Bytes
			l.resident += bytes
		}
	}
}

// size extrapolates from count samples to n.
func (l *residency) size(n, count int64) hintSize {
	s := hintSize{bytes: l.bytes, resident: l.resident, estimated: count < n || l.probed < l.bytes}
	if l.probed > 0 && l.probed < l.bytes {
		s.resident = int64(float64(l.bytes) * (float64(l.resident) / float64(l.probed)))
	}
	if count < n {
		factor := float64(n) / float64(count)
		s.bytes, s.resident = scaled(s.bytes, factor), scaled(s.resident, factor)
	}
	s.resident = min(s.resident, s.bytes)
	return s
}

func scaled(bytes int64, factor float64) int64 {
	return int64(min(float64(bytes)*factor, math.MaxInt64/2))
}

// watched are some samples of a hint, by which it shows whether what was announced is
// read. It sees what sessions read, not who reads the files past the daemon.
type watched struct {
	files bool // keys are numbers of objects, not of samples

	mu struct {
		sync.Mutex
		marks map[int64]mark
	}
}

type mark struct {
	place int64 // the first
	read  bool
}

func newWatched(files bool, count int64) *watched {
	w := &watched{files: files}
	w.mu.marks = make(map[int64]mark, count)
	return w
}

func (w *watched) watch(key, place int64) {
	if m, ok := w.mu.marks[key]; !ok || place < m.place {
		w.mu.marks[key] = mark{place: place}
	}
}

// read notes what a batch consists of. The View counts samples as the hint's does, unless
// the hint is of files.
func (w *watched) read(f *filler) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.files {
		for i := range f.plan.Objects {
			w.readOne(f.plan.Objects[i].Number)
		}
		return
	}
	for _, sample := range f.samples {
		w.readOne(sample)
	}
}

func (w *watched) readOne(key int64) {
	if m, ok := w.mu.marks[key]; ok && !m.read {
		m.read = true
		w.mu.marks[key] = m
	}
}

// share is the part of the watched samples before a place that were read.
func (w *watched) share(ready int64) float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	before, read := 0, 0
	for _, m := range w.mu.marks {
		if m.place < ready {
			before++
			if m.read {
				read++
			}
		}
	}
	if before == 0 {
		return 0
	}
	return float64(read) / float64(before)
}
