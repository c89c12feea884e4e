package loader

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/shm"
)

// sharedMappings counts the memory files that this process has mapped.
func sharedMappings(t *testing.T) int {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(maps), "memfd:stoker")
}

func TestBatchesThatFailBesideTheirSlotLeaveNothing(t *testing.T) {
	for _, transport := range []string{shm.TransportRing, shm.TransportSocket} {
		t.Run(transport, func(t *testing.T) {
			options := testOptions(t)
			options.Session.RingBytesMax = 64 << 10
			n := startNode(t, options)
			dir, _ := writeFiles(t, 8, func(int) int { return 50_000 })
			n.add("d", dir)
			if err := os.Remove(filepath.Join(dir, "c0/f003")); err != nil { // in the first batch
				t.Fatal(err)
			}
			request := openRequest("d")
			request.Transport = transport
			c := n.openSession(request)
			var mappings, descriptors int
			for round := range 60 {
				if round == 10 {
					mappings, descriptors = sharedMappings(t), openDescriptors(t)
				}
				var b batch
				if transport == shm.TransportRing {
					b = c.next()
				} else {
					b = c.nextOverSocket()
				}
				if b.Kind != shm.KindError {
					t.Fatalf("entry %+v, expected the error", b.Entry)
				}
				var seeked shm.Seeked
				c.ask(shm.Seek{Type: shm.TypeSeek}, &seeked)
			}
			// Production goes on to its next failure, and then stands still. The 8 files
			// may be kept open for reuse; how many were at round 10 is chance.
			eventually(t, "what 50 failed batches had is given back", func() bool {
				return sharedMappings(t)-mappings <= 2 && openDescriptors(t)-descriptors <= 8+2
			})
		})
	}
}

func TestABatchBesideItsSlotIsGivenBackWithTheSlot(t *testing.T) {
	options := testOptions(t)
	options.Session.RingBytesMax = 64 << 10
	n := startNode(t, options)
	dir, _ := writeFiles(t, 12, func(int) int { return 50_000 })
	n.add("d", dir)
	c := n.openSession(openRequest("d"))
	e, ok := c.consumer.Take(5 * time.Second)
	if !ok {
		t.Fatal("no batch")
	}
	packet, descriptors, err := c.Receive()
	if err != nil || len(descriptors) != 1 {
		t.Fatalf("received %s with %d descriptors, %v", packet, len(descriptors), err)
	}
	defer shm.CloseAll(descriptors)
	c.consumer.Release(e)
	for range 40 { // until the daemon has used the slot again
		c.next()
	}
	var st unix.Stat_t
	if err := unix.Fstat(descriptors[0], &st); err != nil || st.Blocks != 0 {
		t.Errorf("the released batch still has %d blocks, %v", st.Blocks, err)
	}
}

func TestAClientCanHoldNoMoreThanOneSample(t *testing.T) {
	n := startNode(t, testOptions(t))
	dir, _ := writeFiles(t, 8, func(int) int { return 500_000 })
	n.add("d", dir)
	c := n.greeted()
	var held []int
	for i := range int64(8) {
		var answer shm.SampleAnswer
		held = append(held, c.ask(shm.SampleRequest{Type: shm.TypeSample, Dataset: "d", Index: i}, &answer)...)
	}
	defer shm.CloseAll(held)
	blocks := int64(0)
	for _, fd := range held {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			t.Fatal(err)
		}
		blocks += st.Blocks
	}
	if limit := int64(2 * 500_000 / 512); blocks > limit {
		t.Errorf("8 samples held take %d blocks, expected those of the last one only (at most %d)", blocks, limit)
	}
	if n.budget.used() == 0 {
		t.Error("the sample held is not accounted for")
	}
}

func TestAClientThatDoesNotReadDoesNotDelayShutdown(t *testing.T) {
	n := startNode(t, testOptions(t))
	dir, _ := writeFiles(t, 8, func(int) int { return 10 })
	n.add("d", dir)
	stuck := n.greeted()
	for stuck.SendRaw([]byte(`{"type":"dataset_info","name":"d"}`), 50*time.Millisecond) == nil {
		continue // until neither side can write
	}
	polite := n.openSession(openRequest("d"))
	closed := make(chan error, 1)
	go func() { closed <- n.Close() }()
	kind, _, _, err := polite.receive()
	if err != nil || kind != shm.TypeBye {
		t.Errorf("the other client received %q, %v", kind, err)
	}
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the daemon still waits for a client that does not read")
	}
}

func TestALeaseOverTheSocketEndsWithTheConnectionThoughNothingIsReady(t *testing.T) {
	n := startNode(t, testOptions(t))
	dir, _ := writeFiles(t, 4, func(int) int { return 10 })
	n.add("d", dir)
	request := openRequest("d")
	request.Transport = shm.TransportSocket
	c := n.openSession(request)
	if err := os.Remove(filepath.Join(dir, "c0/f000")); err != nil {
		t.Fatal(err)
	}
	for c.nextOverSocket().Kind != shm.KindError {
		continue
	}
	if failure := c.failure(map[string]string{"type": shm.TypeNext}); failure.Code != "conflict" {
		t.Errorf("next after the end: %+v", failure)
	}
	_ = c.Close()
	eventually(t, "the session is gone", func() bool { return len(n.Sessions()) == 0 })
}

func TestOneProcessCannotTakeAllConnections(t *testing.T) {
	options := testOptions(t)
	options.ConnectionsPerPeer = 3
	n := startNode(t, options)
	for range 3 {
		n.greeted()
	}
	c := n.dial()
	kind, packet, _, err := c.receive()
	if err != nil || kind != shm.TypeError || !strings.Contains(string(packet), "one process") {
		t.Errorf("fourth connection: %s, %v", packet, err)
	}
}

func TestAClientThatSaysNothingLosesItsPlace(t *testing.T) {
	n := startNode(t, testOptions(t))
	c := n.dial()
	kind, packet, _, err := c.receive()
	if err != nil || kind != shm.TypeError || !strings.Contains(string(packet), "no hello") {
		t.Errorf("received %s, %v", packet, err)
	}
	if _, _, err := c.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("then %v, expected the end", err)
	}
}

func TestAnErrorNamesItsFileHoweverLongThePath(t *testing.T) {
	failure := &shm.Failure{Code: "changed", What: "open \"" + strings.Repeat("d\x01/", 1300) + "name.bin\": changed", Where: strings.Repeat("directory/", 400) + "name.bin", Remedy: "put it back"}
	text := encodeFailure(failure, shm.PageBytes)
	if len(text) > shm.PageBytes || !strings.Contains(string(text), "name.bin") || !strings.Contains(string(text), "put it back") {
		t.Errorf("%d bytes: %.200s", len(text), text)
	}
}

func TestADatasetBeingReplacedIsNotRemoved(t *testing.T) {
	n := startNode(t, testOptions(t))
	dir, _ := writeFiles(t, 4, func(int) int { return 10 })
	n.add("d", dir)
	if err := n.registry.beginAdd("d", true); err != nil {
		t.Fatal(err)
	}
	if err := n.RemoveDataset(t.Context(), "d"); err == nil || !strings.Contains(err.Error(), "under way") {
		t.Errorf("removed while it is replaced: %v", err)
	}
	n.registry.endAdd("d")
}

func FuzzDatasetRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"info":{"name":"d","path":"/nowhere"},"index":"x.idx"}`))
	f.Add([]byte(`{"version":1,"info":{"name":"d"},"index":"../../etc/passwd"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		directory := t.TempDir()
		if err := errors.Join(os.Mkdir(filepath.Join(directory, "d"), 0o700),
			os.WriteFile(filepath.Join(directory, "d", recordName), text, 0o600)); err != nil {
			t.Fatal(err)
		}
		r, err := openRegistry(directory, testOptions(t).Object, discardLogger())
		if err != nil {
			t.Fatal(err)
		}
		defer r.close()
		for _, info := range r.list() {
			if info.Name != "d" || info.State != stateDetached {
				t.Fatalf("made-up record is listed as %+v", info)
			}
		}
	})
}

func TestMemoryThatTheMachineLacksIsRefusedWhenTheSessionOpens(t *testing.T) {
	options := testOptions(t)
	options.Session.RingBytesMax, options.Session.RingBytesTotal = 1<<45, 1<<46
	n := startNode(t, options)
	dir := t.TempDir()
	path := filepath.Join(dir, "sparse")
	if err := errors.Join(os.WriteFile(path, nil, 0o644), os.Truncate(path, 1<<38)); err != nil {
		t.Fatal(err)
	}
	n.add("huge", dir)
	request := openRequest("huge")
	request.BatchSize = 1
	if failure := n.greeted().failure(request); failure.Code != "no_space" || !strings.Contains(failure.What, "available") {
		t.Errorf("a ring of several TiB: %+v", failure)
	}
	if used := n.budget.used(); used != 0 {
		t.Errorf("the refused ring is still accounted for: %d bytes", used)
	}
}
