package loader

import (
	"encoding/binary"
	"math"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/stokerio/stoker/internal/faultfs"
	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/shm"
)

func TestAWaitIsDividedAmongThePhasesThatItOverlaps(t *testing.T) {
	e := shm.Entry{WaitSlotAt: 100, OrderAt: 110, IndexAt: 130, ReadAt: 160, DoneAt: 200}
	for what, test := range map[string]struct {
		asked, got uint64
		want       shm.Waits
	}{
		"all of it":        {90, 210, shm.Waits{Total: 120, Ring: 10, Order: 20, Index: 30, Disk: 40, Wake: 10}},
		"from the reading": {170, 205, shm.Waits{Total: 35, Disk: 30, Wake: 5}},
		"after it":         {300, 310, shm.Waits{Total: 10, Wake: 10}},
		"nothing":          {90, 90, shm.Waits{}},
	} {
		if got := attribute(test.asked, test.got, &e); got != test.want {
			t.Errorf("%s: %+v, want %+v", what, got, test.want)
		}
	}
}

func TestCausesNeverAddUpToMoreThanTheWait(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mark := rapid.Uint64Range(0, 1000)
		e := shm.Entry{
			WaitSlotAt: mark.Draw(t, "slot"), OrderAt: mark.Draw(t, "order"), IndexAt: mark.Draw(t, "index"),
			ReadAt: mark.Draw(t, "read"), DoneAt: mark.Draw(t, "done"),
		}
		asked := mark.Draw(t, "asked")
		w := attribute(asked, asked+mark.Draw(t, "waited"), &e)
		if sum := w.Disk + w.Index + w.Order + w.Ring + w.Wake; sum > w.Total {
			t.Fatalf("%+v of %+v: the causes add up to %d", w, e, sum)
		}
	})
}

// slowFile makes every read of one file wait for a slow disk.
func slowFile(faults *faultfs.FS, name string, latency time.Duration) {
	faults.Inject(faultfs.Fault{Op: faultfs.Preadv2, Name: name, Errno: syscall.EAGAIN})
	faults.Inject(faultfs.Fault{Op: faultfs.Pread, Name: name, Latency: latency})
}

func TestStallsNameTheFileThatTheTrainerWaitedFor(t *testing.T) {
	n, faults := faultyNode(t)
	dir, _ := writeFiles(t, 40, func(int) int { return 100 })
	n.add("d", dir)
	const latency = 500 * time.Millisecond // long beside what a busy machine takes to ask
	slowFile(faults, "*/f003", latency)
	request := openRequest("d")
	request.Transport = shm.TransportSocket
	c := n.openSession(request)
	c.nextOverSocket()
	stalls := n.Stalls()
	faults.AssertFired(t)
	if len(stalls) != 1 || stalls[0].EndedAt != nil || stalls[0].Share <= 0 || stalls[0].Share > 1 {
		t.Fatalf("stalls of one open session: %+v", stalls)
	}
	checkSlowest(t, stalls[0], latency)
	_ = c.Close()
	eventually(t, "the session has ended", func() bool { return len(n.Sessions()) == 0 })
	if ended := n.Stalls(); len(ended) != 1 || ended[0].EndedAt == nil || len(ended[0].Worst) != len(stalls[0].Worst) {
		t.Errorf("stalls of the session that ended: %+v", ended)
	}
}

func checkSlowest(t *testing.T, s api.SessionStalls, latency time.Duration) {
	t.Helper()
	if len(s.Worst) == 0 {
		t.Fatalf("no batch is named: %+v", s)
	}
	w := s.Worst[0]
	if w.Slowest == nil || w.Slowest.File != "c0/f003" || w.Slowest.Seconds < latency.Seconds() || w.Slowest.Bytes != 100 {
		t.Errorf("slowest read %+v of %+v, expected c0/f003", w.Slowest, w)
	}
	if w.Causes.DiskSeconds < latency.Seconds()/2 || w.Causes.DiskSeconds > w.Seconds {
		t.Errorf("of %v s waited, %+v; the disk took %v", w.Seconds, w.Causes, latency)
	}
	if len(w.Files) != filesNamed || w.FirstKey != "c0/f000" {
		t.Errorf("a batch of four files is told as %q, first %q", w.Files, w.FirstKey)
	}
}

// TestWhatAHostileTrainerSaysOfItsWaitsIsBounded writes nonsense where the trainer
// keeps its longest waits.
func TestWhatAHostileTrainerSaysOfItsWaitsIsBounded(t *testing.T) {
	n := startNode(t, testOptions(t))
	dir, _ := writeFiles(t, 8, func(int) int { return 10 })
	n.add("d", dir)
	c := n.greeted()
	fds := c.ask(openRequest("d"), &c.opened)
	mem, err := unix.Mmap(fds[0], 0, int(c.opened.Ring.TotalBytes), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	shm.CloseAll(fds)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(mem) })
	const waitedTransform, worst, worstTransform = 256, 320, 1120
	binary.LittleEndian.PutUint64(mem[waitedTransform:], math.MaxUint64)
	binary.LittleEndian.PutUint64(mem[worstTransform:], math.MaxUint64)
	for _, words := range [][10]uint64{
		{math.MaxUint64, math.MaxUint64, math.MaxUint64, 1, 2, 3, math.MaxUint64, math.MaxUint64, math.MaxUint64, math.MaxUint64},
		{1, 1 << 63, 0, 0, 0, 0, 0, 1 << 63, 7, 1 << 40},
		{1 << 62, 5, 0, 0, 0, 0, 3, math.MaxInt64, 7, 1 << 40},
		{1 << 62, 5, 0, 0, 0, 0, 3, 0, 8, 1},
	} {
		for i, word := range words {
			binary.LittleEndian.PutUint64(mem[worst+8*i:], word)
		}
		for _, s := range n.Stalls() {
			if s.Stall.TransformSeconds > s.Stall.TotalSeconds {
				t.Errorf("transforms took %v s of %v", s.Stall.TransformSeconds, s.Stall.TotalSeconds)
			}
			for _, w := range s.Worst {
				if w.Causes.TransformSeconds > w.Seconds {
					t.Errorf("transforms took %v s of %v", w.Causes.TransformSeconds, w.Seconds)
				}
				if w.Seconds > s.WallSeconds || w.Epoch < 0 || w.Position < 0 || w.Position >= 8 {
					t.Errorf("%x is told as %+v of a session of %v s", words, w, s.WallSeconds)
				}
			}
		}
	}
}

// TestWhatATrainerTellsOfItsTransformsIsBounded has trainers that copy batches tell truths
// and lies.
func TestWhatATrainerTellsOfItsTransformsIsBounded(t *testing.T) {
	n := startNode(t, testOptions(t))
	dir, _ := writeFiles(t, 8, func(int) int { return 10 })
	n.add("d", dir)
	request := openRequest("d")
	request.Transport = shm.TransportSocket
	c := n.openSession(request)
	first := c.nextOverSocket()
	before := n.Stalls()[0].Stall
	c.nextTelling(&shm.TransformWait{Total: 3000, Longest: 2000, Sequence: first.Sequence, Rows: first.Rows})
	s := n.Stalls()[0]
	if got := s.Stall.TransformSeconds; got != 3e-6 || s.Stall.TotalSeconds < before.TotalSeconds+got {
		t.Errorf("%+v became %+v", before, s.Stall)
	}
	named := slices.IndexFunc(s.Worst, func(w api.SlowBatch) bool { return w.Causes.TransformSeconds == 2e-6 })
	if named < 0 || s.Worst[named].Seconds != 2e-6 || s.Worst[named].FirstKey != "c0/f000" {
		t.Errorf("the batch is not named: %+v", s.Worst)
	}
	for _, lie := range []shm.TransformWait{
		{Total: math.MaxUint64, Longest: math.MaxUint64, Sequence: math.MaxUint64, Epoch: math.MaxUint64, Position: math.MaxUint64, Rows: math.MaxUint32},
		{Total: math.MaxUint64, Longest: 1 << 62, Position: 7, Rows: math.MaxUint32},
		{Longest: 1 << 62, Position: 7},
		{Total: math.MaxUint64, Epoch: 1 << 62},
	} {
		c.nextTelling(&lie)
		s := n.Stalls()[0]
		if s.Stall.TransformSeconds > s.Stall.TotalSeconds || s.Stall.TotalSeconds > s.WallSeconds || s.Share > 1 {
			t.Errorf("after %+v: %+v of %v s", lie, s.Stall, s.WallSeconds)
		}
		for _, w := range s.Worst {
			if w.Seconds > s.WallSeconds || w.Causes.TransformSeconds > w.Seconds || w.Position < 0 || w.Position >= 8 || w.Epoch < 0 {
				t.Errorf("after %+v: %+v", lie, w)
			}
		}
	}
}

// TestFilesOfADrawnOrderAreNamedWhileItsTableIsThere has a wait of the epoch that is read,
// and one of an epoch whose table is not kept.
func TestFilesOfADrawnOrderAreNamedWhileItsTableIsThere(t *testing.T) {
	c := newColdFiles(t, 40, 100, nil)
	request := openRequest("files")
	request.Order = "torch"
	drain(t, c.openSession(request), 1)
	s := c.session()
	for epoch, named := range map[uint64]bool{0: true, 7: false} {
		wait := shm.WorstWait{Waits: shm.Waits{Total: 1000}, Epoch: epoch, Rows: 4}
		if b := s.describeWorst(&wait, time.Hour); (len(b.Files) == 4) != named || (b.FirstKey != "") != named {
			t.Errorf("epoch %d: %+v", epoch, b)
		}
	}
}
