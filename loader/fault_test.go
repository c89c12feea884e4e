package loader

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/shm"
)

func TestRequestsThatMakeNoSenseAreAnsweredWithTheReason(t *testing.T) {
	n := startNode(t, testOptions(t))
	dir, _ := writeFiles(t, 8, func(int) int { return 10 })
	n.add("d", dir)
	for what, test := range map[string]struct {
		change func(*shm.Open)
		code   string
	}{
		"unknown dataset":          {func(r *shm.Open) { r.Dataset = "nowhere" }, "not_found"},
		"unknown order":            {func(r *shm.Open) { r.Order = "random" }, "invalid"},
		"unknown transport":        {func(r *shm.Open) { r.Transport = "pigeon" }, "invalid"},
		"world above the dataset":  {func(r *shm.Open) { r.WorldSize = 9 }, "invalid"},
		"rank outside the world":   {func(r *shm.Open) { r.Rank = 1 }, "invalid"},
		"batch of nothing":         {func(r *shm.Open) { r.BatchSize = 0 }, "invalid"},
		"absurd batch":             {func(r *shm.Open) { r.BatchSize = 1 << 62 }, "invalid"},
		"negative epoch":           {func(r *shm.Open) { r.Epoch = -1 }, "invalid"},
		"consumed beyond the end":  {func(r *shm.Open) { r.SamplesConsumed = 9 }, "invalid"},
		"block size for files":     {func(r *shm.Open) { r.BlockSize = 8 }, "invalid"},
		"another index":            {func(r *shm.Open) { r.IndexID = "beef" }, "changed"},
		"another order version":    {func(r *shm.Open) { r.OrderVersion = 99 }, "version"},
		"nothing left by dropping": {func(r *shm.Open) { r.BatchSize, r.DropLast = 9, true }, "invalid"},
	} {
		t.Run(what, func(t *testing.T) {
			request := openRequest("d")
			test.change(&request)
			if failure := n.greeted().failure(request); failure.Code != test.code {
				t.Errorf("failure %+v, expected code %s", failure, test.code)
			}
		})
	}
	if sessions := n.Sessions(); len(sessions) != 0 {
		t.Errorf("refused requests left sessions: %+v", sessions)
	}
}

func TestADatasetIsAddedOnceUnlessReplaced(t *testing.T) {
	n := startNode(t, testOptions(t))
	dir, _ := writeFiles(t, 8, func(int) int { return 10 })
	first := n.add("d", dir)
	request := shm.DatasetAdd{Type: shm.TypeDatasetAdd, Name: "d", Format: "raw", Path: dir}
	c := n.greeted()
	if failure := c.failure(request, openDirectory(t, dir)); failure.Code != "conflict" {
		t.Errorf("adding again: %+v", failure)
	}
	request.Replace = true
	var again shm.DatasetAnswer
	c.ask(request, &again, openDirectory(t, dir))
	if again.Dataset.IndexID != first.IndexID {
		t.Errorf("the same files have index %s, then %s", first.IndexID, again.Dataset.IndexID)
	}
	if err := os.WriteFile(filepath.Join(dir, "c0", "one more"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	c.ask(request, &again, openDirectory(t, dir))
	if again.Dataset.IndexID == first.IndexID || again.Dataset.Samples != 9 {
		t.Errorf("one more file: index %s, %d samples", again.Dataset.IndexID, again.Dataset.Samples)
	}
}

func TestDirectoriesThatCannotBeADatasetAreRefused(t *testing.T) {
	n := startNode(t, testOptions(t))
	c := n.greeted()
	file, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	add := shm.DatasetAdd{Type: shm.TypeDatasetAdd, Name: "d", Format: "auto"}
	for what, fd := range map[string]int{"empty directory": openDirectory(t, t.TempDir()), "a file": int(file.Fd())} {
		if failure := c.failure(add, fd); failure.What == "" {
			t.Errorf("%s: %+v", what, failure)
		}
	}
	if failure := c.failure(add); failure.Code != "invalid" {
		t.Errorf("no descriptor: %+v", failure)
	}
	for _, name := range []string{"", "..", "a/b", ".hidden", strings.Repeat("x", 200), "nul\x00"} {
		add.Name = name
		if failure := c.failure(add, openDirectory(t, t.TempDir())); failure.Code != "invalid" {
			t.Errorf("name %q: %+v", name, failure)
		}
	}
	if left := n.Datasets(); len(left) != 0 {
		t.Errorf("refused datasets are listed: %+v", left)
	}
	if entries, err := os.ReadDir(filepath.Join(n.options.DataDir, "datasets")); err != nil || len(entries) != 0 {
		t.Errorf("refused datasets left %v, %v", entries, err)
	}
}

func TestDatasetsSurviveARestart(t *testing.T) {
	options := testOptions(t)
	dir, _ := writeFiles(t, 8, func(int) int { return 10 })
	gone, _ := writeFiles(t, 3, func(int) int { return 10 })
	first := startNode(t, options)
	info := first.add("d", dir)
	first.add("gone", gone)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(gone, gone+"-elsewhere"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(gone, 0o755); err != nil { // another directory of that name is not it
		t.Fatal(err)
	}
	second := startNode(t, options)
	found, err := second.Dataset("d")
	if err != nil || found.IndexID != info.IndexID || found.State != api.DatasetReady {
		t.Errorf("after a restart: %+v, %v", found, err)
	}
	request := openRequest("d")
	request.IndexID = info.IndexID
	second.openSession(request).next()
	if failure := second.greeted().failure(openRequest("gone")); failure.Code != "unavailable" || !strings.Contains(failure.What, gone) {
		t.Errorf("a directory that is another one now: %+v", failure)
	}
	second.add("gone", gone+"-elsewhere") // a detached dataset may be added again
}

func TestASessionEndsWithItsConnection(t *testing.T) {
	n := startNode(t, testOptions(t))
	dir, _ := writeFiles(t, 8, func(int) int { return 10 })
	n.add("d", dir)
	for range 50 {
		c := n.openSession(openRequest("d"))
		c.next()
		_ = c.Close()
	}
	eventually(t, "all sessions gone", func() bool { return len(n.Sessions()) == 0 && n.budget.used() == 0 })
	stats := n.Stats()
	if stats.LeasesEnded["eof"] != 50 || stats.SessionsOpened != 50 {
		t.Errorf("leases ended %v of %d opened, expected 50 by eof", stats.LeasesEnded, stats.SessionsOpened)
	}
	if err := n.RemoveDataset(t.Context(), "d"); err != nil {
		t.Errorf("remove after the last session: %v", err)
	}
}

// trainerSource is a client in Python that opens a session, forks a child that
// keeps the socket, tells its pid, and waits to be killed.
const trainerSource = `
import json, os, socket, sys, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(sys.argv[1])
for m in ({"type": "hello", "min": 1, "max": 1}, json.loads(sys.argv[2])):
    s.send(json.dumps(m).encode())
    data, fds, *_ = socket.recv_fds(s, 65536, 2)
    assert json.loads(data)["type"] != "error", data
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
time.sleep(60)
`

func TestAKilledTrainerIsNoticedThoughItsForkHoldsTheSocket(t *testing.T) {
	n := startNode(t, testOptions(t))
	dir, _ := writeFiles(t, 8, func(int) int { return 10 })
	n.add("d", dir)
	request, err := json.Marshal(openRequest("d"))
	if err != nil {
		t.Fatal(err)
	}
	trainer := exec.Command("python3", "-c", trainerSource, n.socket, string(request))
	stdout, err := trainer.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := trainer.Start(); err != nil {
		t.Fatalf("start python3, which this test needs: %v", err)
	}
	var child int
	if _, err := fmt.Fscan(stdout, &child); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Kill(child, unix.SIGKILL) }()
	if err := trainer.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = trainer.Wait()
	eventually(t, "session and memory back while the fork lives", func() bool {
		return len(n.Sessions()) == 0 && n.budget.used() == 0
	})
	if err := unix.Kill(child, 0); err != nil {
		t.Errorf("the fork is gone, so this proved nothing: %v", err)
	}
	if ended := n.Stats().LeasesEnded; ended["exit"] != 1 {
		t.Errorf("leases ended: %v, expected one by exit", ended)
	}
}

func TestATrainerThatNeverReleasesStopsOnlyItself(t *testing.T) {
	n := startNode(t, testOptions(t))
	dir, _ := writeFiles(t, 100, func(int) int { return 10 })
	n.add("d", dir)
	stuck := n.openSession(openRequest("d"))
	taken := 0
	for {
		if _, ok := stuck.consumer.Take(200 * time.Millisecond); !ok {
			break
		}
		taken++
	}
	if slots := stuck.opened.Ring.Slots; taken != slots {
		t.Errorf("took %d batches of a ring of %d slots without giving one back", taken, slots)
	}
	other := n.openSession(openRequest("d"))
	for range 200 {
		other.next()
	}
	if levels := n.Sessions()[0].Ring; levels.Held != levels.Slots || levels.Ready != 0 {
		t.Errorf("levels %+v, expected all held", levels)
	}
}

func TestAScribblingTrainerDoesNotDisturbOthers(t *testing.T) {
	n := startNode(t, testOptions(t))
	dir, _ := writeFiles(t, 100, func(int) int { return 1000 })
	n.add("d", dir)
	hostile := n.greeted()
	fds := hostile.ask(openRequest("d"), &hostile.opened)
	mem, err := unix.Mmap(fds[0], 0, int(hostile.opened.Ring.TotalBytes), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	shm.CloseAll(fds)
	stop := make(chan struct{})
	var scribbling sync.WaitGroup
	scribbling.Go(func() {
		for round := byte(0); ; round++ {
			select {
			case <-stop:
				return
			default:
				for i := range mem {
					mem[i] = byte(i)*31 ^ round
				}
			}
		}
	})
	other := n.openSession(openRequest("d"))
	for range 500 {
		if b := other.next(); b.Kind == shm.KindError {
			t.Errorf("the other session failed: %+v", b.failure)
		}
	}
	_ = n.Sessions()
	close(stop)
	scribbling.Wait()
	_ = hostile.Close()
	_ = unix.Munmap(mem)
}

func TestGarbageEndsTheConnectionThatSentIt(t *testing.T) {
	n := startNode(t, testOptions(t))
	for _, garbage := range []string{"x", "{}", `{"type":1}`, `{"type":"open"}`, "[]", `{"type":"hello","min":"a"}`, strings.Repeat("[", 60000), "\x00\xff"} {
		c := n.dial()
		if err := c.SendRaw([]byte(garbage), time.Second); err != nil {
			t.Fatal(err)
		}
		kind, packet, _, err := c.receive()
		if err != nil || kind != shm.TypeError {
			t.Errorf("%.20q: answered %s, %v", garbage, packet, err)
		}
	}
	c := n.dial()
	failure := c.failure(shm.Hello{Type: shm.TypeHello, Min: 2, Max: 9})
	if failure.Code != "version" || failure.Remedy == "" {
		t.Errorf("a client from the future: %+v", failure)
	}
}

func TestTooManyDescriptorsAreClosedAndRefused(t *testing.T) {
	n := startNode(t, testOptions(t))
	before := openDescriptors(t)
	for range 20 {
		c := n.dial()
		fds := []int{int(os.Stdin.Fd()), int(os.Stdin.Fd()), int(os.Stdin.Fd()), int(os.Stdin.Fd()), int(os.Stdin.Fd())}
		if err := c.SendRaw([]byte(`{"type":"hello","min":1,"max":1}`), time.Second, fds...); err != nil {
			t.Fatal(err)
		}
		if kind, _, _, _ := c.receive(); kind != shm.TypeError {
			t.Errorf("answered %q", kind)
		}
		_ = c.Close()
	}
	eventually(t, "descriptors back", func() bool { return openDescriptors(t) <= before })
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestAFloodIsSlowedAndHarmsNobody(t *testing.T) {
	options := testOptions(t)
	options.MessagesPerSecond = 50
	n := startNode(t, options)
	dir, _ := writeFiles(t, 20, func(int) int { return 10 })
	n.add("d", dir)
	flooder := n.greeted()
	sent := 0
	for flooder.SendRaw([]byte(`{"type":"dataset_list"}`), 50*time.Millisecond) == nil && sent < 100_000 {
		sent++
	}
	other := n.openSession(openRequest("d"))
	for range 50 {
		other.next()
	}
	var after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&after)
	if after.HeapAlloc > 64<<20 {
		t.Errorf("heap is %d bytes after a flood of %d messages", after.HeapAlloc, sent)
	}
}

func TestLimitsOfSessionsAndMemoryAreSaid(t *testing.T) {
	options := testOptions(t)
	options.Session.SessionsPerPeer = 2
	n := startNode(t, options)
	dir, _ := writeFiles(t, 20, func(int) int { return 10 })
	n.add("d", dir)
	n.openSession(openRequest("d"))
	n.openSession(openRequest("d"))
	if failure := n.greeted().failure(openRequest("d")); failure.Code != "limit" || failure.Remedy == "" {
		t.Errorf("third session of one process: %+v", failure)
	}

	options = testOptions(t)
	options.Session.RingBytesTotal = 64 << 10
	small := startNode(t, options)
	small.add("d", dir)
	small.openSession(openRequest("d"))
	if failure := small.greeted().failure(openRequest("d")); failure.Code != "limit" || failure.Remedy == "" {
		t.Errorf("session beyond the memory of all: %+v", failure)
	}
}

func TestABatchAboveTheLimitIsAnError(t *testing.T) {
	options := testOptions(t)
	options.Session.RingBytesMax, options.Session.BatchBytesMax = 64<<10, 100<<10
	n := startNode(t, options)
	dir, _ := writeFiles(t, 8, func(int) int { return 50_000 })
	n.add("d", dir)
	b := n.openSession(openRequest("d")).next()
	if b.Kind != shm.KindError || b.failure.Code != "limit" || !strings.Contains(b.failure.Remedy, "batch_size") {
		t.Errorf("entry %+v, failure %+v", b.Entry, b.failure)
	}
}

func TestClientsAreToldWhenTheDaemonStops(t *testing.T) {
	n := startNode(t, testOptions(t))
	dir, _ := writeFiles(t, 8, func(int) int { return 10 })
	n.add("d", dir)
	c := n.openSession(openRequest("d"))
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	kind, packet, _, err := c.receive()
	if err != nil || kind != shm.TypeBye || !strings.Contains(string(packet), "shutdown") {
		t.Errorf("received %s, %v", packet, err)
	}
	if ended := n.Stats().LeasesEnded; ended["shutdown"] != 1 {
		t.Errorf("leases ended %v", ended)
	}
}

func TestAnotherUserIsRefused(t *testing.T) {
	options := testOptions(t)
	options.UID = os.Getuid() + 1 // to this node, we are the other user
	n := startNode(t, options)
	c := n.dial()
	kind, packet, _, err := c.receive()
	if err != nil || kind != shm.TypeError || !strings.Contains(string(packet), "permission") {
		t.Errorf("received %s, %v", packet, err)
	}
	if n.Stats().Refused != 1 {
		t.Errorf("refused %d connections, expected 1", n.Stats().Refused)
	}
}

func TestOneSampleByNumber(t *testing.T) {
	n := startNode(t, testOptions(t))
	dir, _ := writeFiles(t, 8, func(i int) int { return 5 + i })
	n.add("d", dir)
	c := n.greeted()
	var answer shm.SampleAnswer
	fds := c.ask(shm.SampleRequest{Type: shm.TypeSample, Dataset: "d", Index: 4}, &answer)
	memory := readAll(t, fds[0], answer.Bytes)
	if want := "c1/f004"; answer.Key != want || answer.Columns[0].Bytes != 9 || memory[answer.Columns[0].Offset] != 4 {
		t.Errorf("sample %+v", answer)
	}
	for _, index := range []int64{-1, 8, 1 << 62} {
		if failure := c.failure(shm.SampleRequest{Type: shm.TypeSample, Dataset: "d", Index: index}); failure.Code != "out_of_range" {
			t.Errorf("sample %d: %+v", index, failure)
		}
	}
}
