package loader

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stokerio/stoker/backend/object"
	"github.com/stokerio/stoker/internal/faultfs"
	"github.com/stokerio/stoker/shm"
)

// faultyNode is a node whose files are read through a layer of faults.
func faultyNode(t *testing.T) (*testNode, *faultfs.FS) {
	t.Helper()
	faults := faultfs.New(object.Kernel())
	options := testOptions(t)
	options.Object.System = faults
	return startNode(t, options), faults
}

func TestAReadErrorEndsTheSessionsProductionAndNamesTheFile(t *testing.T) {
	n, faults := faultyNode(t)
	dir, _ := writeFiles(t, 40, func(int) int { return 100 })
	n.add("d", dir)
	fault := faults.Inject(faultfs.Fault{Op: faultfs.Preadv2, Name: "*/f015", Errno: syscall.EIO})
	c := n.openSession(openRequest("d"))
	var b batch
	for b = c.next(); b.Kind == shm.KindBatch; b = c.next() {
		if slices.Contains(b.index, 5) { // c0/f000, f003, ... f015
			t.Fatal("the unreadable file was delivered")
		}
	}
	if b.Kind != shm.KindError || b.failure.Code != "unavailable" || !strings.Contains(b.failure.What, "f015") {
		t.Fatalf("entry %+v, failure %+v", b.Entry, b.failure)
	}
	if faults.Fired(fault) == 0 {
		t.Error("the fault never fired")
	}
	faults.Clear()
	var seeked shm.Seeked
	c.ask(shm.Seek{Type: shm.TypeSeek, Epoch: int64(b.Epoch), SamplesConsumed: int64(b.SamplesConsumed) - 4}, &seeked)
	again := c.next()
	if again.Kind != shm.KindBatch || again.Position != b.Position {
		t.Errorf("after the device came back: %+v, expected the batch that failed", again.Entry)
	}
}

func TestOneSessionsReadErrorsDoNotDisturbAnother(t *testing.T) {
	n, faults := faultyNode(t)
	bad, _ := writeFiles(t, 10, func(int) int { return 100 })
	good, _ := writeFiles(t, 10, func(int) int { return 100 })
	n.add("bad", bad)
	n.add("good", good)
	healthy := n.openSession(openRequest("good"))
	failing := n.openSession(openRequest("bad"))
	drain(t, healthy, 5)
	fault := faults.Inject(faultfs.Fault{Op: faultfs.Preadv2, Name: "*/f00?", Errno: syscall.EIO, Count: 1})
	eventually(t, "the fault has fired", func() bool {
		for _, c := range []*client{failing, healthy} {
			if e, ok := c.consumer.Take(0); ok && e.Slot != shm.NoSlot {
				c.consumer.Release(e)
			}
		}
		return faults.Fired(fault) > 0
	})
	if stats := n.Stats(); stats.Errors["unavailable"] > 1 {
		t.Errorf("one fault, errors %v", stats.Errors)
	}
}

func TestAReadThatTakesLongIsTheDisksStall(t *testing.T) {
	n, faults := faultyNode(t)
	dir, _ := writeFiles(t, 40, func(int) int { return 100 })
	n.add("d", dir)
	const latency = 30 * time.Millisecond
	faults.Inject(faultfs.Fault{Op: faultfs.Preadv2, Name: "*/f000", Latency: latency})
	b := n.openSession(openRequest("d")).next()
	read, before := time.Duration(b.DoneAt-b.ReadAt), time.Duration(b.ReadAt-b.WaitSlotAt)
	if read < latency || before > read {
		t.Errorf("reading took %v and what came before it %v; the file's latency is %v", read, before, latency)
	}
	faults.AssertFired(t)
}
