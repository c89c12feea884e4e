package flash_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/flash"
	"github.com/stokerio/stoker/backend/flash/flashtest"
)

// workload is what is done to a store between two losses of power.
type workload func(ctx context.Context, w *witness, s *flash.Store, files *flashtest.Files)

// wait lets the store do what it does by itself.
func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

var workloads = map[string]workload{
	"puts": func(ctx context.Context, w *witness, s *flash.Store, _ *flashtest.Files) {
		for i, size := range []int{0, 1, 100, 4096, 4097, 60000, 65536, 4096} {
			w.must(w.put(ctx, s, uint64(i), size))
		}
	},
	"puts at once": func(ctx context.Context, w *witness, s *flash.Store, _ *flashtest.Files) {
		done := make(chan error)
		for i := range uint64(6) {
			go func() { done <- w.put(ctx, s, i, 4000+int(i)*900) }()
		}
		for range 6 {
			w.must(<-done)
		}
	},
	"fills": func(ctx context.Context, w *witness, s *flash.Store, _ *flashtest.Files) {
		for i, size := range []int{0, 1, 4096, 30000, 65536} {
			w.must(w.fill(ctx, s, uint64(i), size, 0))
			wait(700 * time.Millisecond)
		}
		wait(3 * time.Second)
	},
	"what was filled is put": func(ctx context.Context, w *witness, s *flash.Store, _ *flashtest.Files) {
		for i := range uint64(3) {
			c := putOf(i, 20000)
			w.set(i, c, false)
			w.must(s.Fill(ctx, c, bytesOf(i, 20000)))
			if i == 1 {
				wait(3 * time.Second)
			}
			w.must(w.put(ctx, s, i, 20000))
		}
	},
	"deletes": func(ctx context.Context, w *witness, s *flash.Store, _ *flashtest.Files) {
		for i := range uint64(3) {
			w.must(w.put(ctx, s, i, 12000))
			w.must(w.fill(ctx, s, 10+i, 12000, 0))
		}
		wait(2 * time.Second)
		w.must(w.delete(ctx, s, putOf(0, 12000)))
		w.must(w.delete(ctx, s, filledOf(11, 12000)))
		w.must(w.put(ctx, s, 0, 12000))
		w.must(w.delete(ctx, s, putOf(1, 12000)))
		wait(2 * time.Second)
		w.must(w.put(ctx, s, 20, 12000))
	},
	"evictions": func(ctx context.Context, w *witness, s *flash.Store, _ *flashtest.Files) {
		w.must(w.put(ctx, s, 0, 30000))
		for i := range uint64(26) {
			w.must(w.fill(ctx, s, 10+i, 60000, 0))
		}
		w.must(w.put(ctx, s, 1, 60000))
		for i := range uint64(6) {
			w.must(w.fill(ctx, s, 50+i, 9000, 0))
		}
	},
	"a lower limit": func(ctx context.Context, w *witness, s *flash.Store, _ *flashtest.Files) {
		for i := range uint64(7) {
			w.must(w.put(ctx, s, i, 60000))
		}
		w.must(w.delete(ctx, s, putOf(0, 60000)))
		w.must(w.delete(ctx, s, putOf(1, 60000)))
		w.must(w.delete(ctx, s, putOf(2, 60000)))
		w.must(w.delete(ctx, s, putOf(3, 60000)))
		wait(2 * time.Second)
		w.must(s.SetLimit("/in-memory", 3<<20/2))
		wait(10 * time.Second)
	},
	"a segment is retired": func(ctx context.Context, w *witness, s *flash.Store, files *flashtest.Files) {
		for i := range uint64(3) {
			w.must(w.put(ctx, s, i, 60000))
		}
		w.must(w.fill(ctx, s, 10, 60000, 0))
		files.Inject(w.t, flashtest.Fault{Kinds: []flashtest.Kind{flashtest.Sync}, Name: "segments/00000000.seg"})
		w.must(w.put(ctx, s, 3, 4000))
		wait(10 * time.Second)
		w.must(w.put(ctx, s, 4, 60000))
	},
	"puts that are not waited for": func(ctx context.Context, w *witness, s *flash.Store, _ *flashtest.Files) {
		w.lenient = true
		for i := range uint64(4) {
			short, cancel := context.WithCancel(ctx)
			done := make(chan error)
			go func() { done <- w.put(short, s, i, 20000) }()
			cancel()
			w.must(<-done)
			w.must(w.put(ctx, s, i, 20000))
		}
	},
}

// blocks is a device for chunks of several blocks.
func blocks(files *flashtest.Files) flash.Device {
	return flash.Device{Path: "/in-memory", LimitBytes: 16 << 20, SpanBytes: 4 << 20, SegmentSpans: 1, Files: files}
}

// A chunk that is filled block by block has those that are there, and no others.
func partly(ctx context.Context, w *witness, s *flash.Store, _ *flashtest.Files) {
	const size = 2*backend.BlockBytes + 5000
	c := filledOf(1, size)
	w.set(1, c, false)
	for _, b := range []int64{1, 2, 0} {
		off := b * backend.BlockBytes
		w.must(s.FillRange(ctx, c, off, bytesOf(1, size)[off:min(size, off+backend.BlockBytes)]))
		if b == 1 {
			wait(2 * time.Second)
		}
	}
	own := putOf(2, size)
	w.set(2, own, false)
	w.must(s.FillRange(ctx, own, 0, bytesOf(2, size)[:backend.BlockBytes]))
	wait(2 * time.Second)
	w.must(w.put(ctx, s, 2, size))
}

func TestLossOfPowerWithChunksOfManyBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { lossesOfPower(t, blocks, partly, 2) })
}

// A long random workload, with crashes at some of its steps: of what they leave, the next
// one begins.
func TestLossOfPowerUnderLoad(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 5))
				files, w := flashtest.New(), newWitness(t)
				for range 60 {
					files = crashUnderLoad(w, files, rng)
					if t.Failed() {
						return
					}
				}
			})
		})
	}
}

// crashUnderLoad uses what a crash left, from several sides, until a random step, and
// returns what a crash leaves then.
func crashUnderLoad(w *witness, files *flashtest.Files, rng *rand.Rand) (left *flashtest.Files) {
	steps, last := 0, 1+rng.IntN(120)
	var known *witness
	chance := rand.New(rand.NewPCG(rng.Uint64(), 1))
	files.Before = func(flashtest.Operation) {
		if steps++; steps == last {
			known, left = w.copy(), files.Crash(flashtest.Some(chance))
		}
	}
	s := w.open(tiny(files))
	w.check(s)
	w.lenient = true
	var users sync.WaitGroup
	for user := range uint64(3) {
		mine := rand.New(rand.NewPCG(rng.Uint64(), user))
		users.Go(func() { w.use(s, mine, user) })
	}
	users.Wait()
	_ = s.Close()
	if left == nil {
		known, left = w.copy(), files.Crash(flashtest.Some(chance))
	}
	w.mu.facts = known.mu.facts
	return left
}

// use does random things to chunks of its own.
func (w *witness) use(s *flash.Store, rng *rand.Rand, user uint64) {
	ctx := context.Background()
	for range 12 {
		number := user + 3*rng.Uint64N(12)
		size := int(number*7919) % 65000
		switch rng.IntN(8) {
		case 0, 1:
			w.must(w.put(ctx, s, number, size))
		case 2:
			w.must(w.delete(ctx, s, putOf(number, size)))
		case 3:
			c := putOf(number, size)
			if f, found := w.knows(c); !found || !f.put {
				w.set(number, c, false)
			}
			w.must(s.Fill(ctx, c, bytesOf(number, size)))
		case 4:
			short, cancel := context.WithTimeout(ctx, time.Duration(rng.IntN(3))*time.Millisecond)
			w.must(w.put(short, s, number, size))
			cancel()
		case 5:
			time.Sleep(time.Duration(rng.IntN(2000)) * time.Millisecond)
		default:
			w.must(w.fill(ctx, s, 1000+number, size, 0))
		}
	}
}

// At each write and each sync of a workload the power goes. Whatever part of what was not
// synced is left, what was put is whole and the store goes on.
func TestLossOfPowerAtEachStep(t *testing.T) {
	for name, work := range workloads {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { lossesOfPower(t, tiny, work, 4) })
		})
	}
}

// lossesOfPower does a workload and tries, before each of its changes, several crashes.
func lossesOfPower(t *testing.T, device func(*flashtest.Files) flash.Device, work workload, random int) {
	files := flashtest.New()
	w := newWitness(t)
	rng := rand.New(rand.NewPCG(1, 2))
	steps := 0
	files.Before = func(o flashtest.Operation) {
		steps++
		losses := []flashtest.Loss{flashtest.Nothing, flashtest.Everything}
		for range random {
			losses = append(losses, flashtest.Some(rng))
		}
		for n, loss := range losses {
			if t.Failed() {
				return
			}
			aside(func() { afterwards(w.copy(), files.Crash(loss), device, (steps+n)%2 == 0) })
			if t.Failed() {
				t.Errorf("after a crash of kind %d before step %d: %s of %s at %d", n, steps, o.Kind, o.Name, o.Offset)
			}
		}
	}
	s := w.open(device(files))
	work(context.Background(), w, s, files)
	w.close(s)
	files.Before = nil
	afterwards(w, files.Crash(flashtest.Nothing), device, true)
	t.Logf("%d steps", steps)
}

// aside does something in a goroutine that Fatal may end: the caller's is the store's.
func aside(do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	<-done
}

// afterwards opens what a crash left, reads all of it first or not, uses it, and opens it
// again.
func afterwards(w *witness, files *flashtest.Files, device func(*flashtest.Files) flash.Device, read bool) {
	w.t.Helper()
	s := w.open(device(files))
	if read {
		w.check(s)
	}
	w.goesOn(s)
	w.close(s)
	s = w.open(device(files.Crash(flashtest.Nothing)))
	w.check(s)
	w.close(s)
}
