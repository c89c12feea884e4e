package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend/flash"
	"github.com/stokerio/stoker/cufile/doctor"
	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/loader/config"
	"github.com/stokerio/stoker/shm"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestMain lets the test program be the second process of stoker doctor --prove.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "doctor" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// outcome is what one run of the command line left.
type outcome struct {
	code     int
	out, err string
}

// place is a runtime directory, perhaps with a daemon in it.
type place struct {
	directory string
	data      string // data directory of a real node
	variables map[string]string
	terminal  bool
	screen    bool
	clock     *virtualClock // nil: the system's
	heard     io.Writer     // if set, takes standard error as it comes

	look func(context.Context, doctor.Options) (*doctor.Machine, error) // nil: the real machine
}

// virtualClock passes when somebody waits, and at once. waited is called before.
type virtualClock struct {
	at     time.Time
	waited func()
}

func (v *virtualClock) clock() clock {
	return clock{
		now: func() time.Time { return v.at },
		wait: func(ctx context.Context, d time.Duration) error {
			v.at = v.at.Add(d)
			if v.waited != nil {
				v.waited()
			}
			return ctx.Err()
		},
	}
}

func newPlace(t *testing.T) *place {
	t.Helper()
	return &place{directory: t.TempDir()}
}

// run runs one command line against the place.
func (p *place) run(t *testing.T, args ...string) outcome {
	t.Helper()
	return p.runContext(t.Context(), args...)
}

func (p *place) runContext(ctx context.Context, args ...string) outcome {
	var out, errs bytes.Buffer
	a := &app{
		environment: p.environment(),
		clock:       systemClock(), out: &out, err: &errs, terminal: p.terminal, screen: p.screen,
		lookAtMachine: p.look,
	}
	if p.heard != nil {
		a.err = io.MultiWriter(&errs, p.heard)
	}
	if p.clock != nil {
		a.clock = p.clock.clock()
	}
	code := a.run(ctx, args)
	return outcome{code, p.fixed(out.String()), p.fixed(errs.String())}
}

// environment is what the command line sees of its surroundings.
func (p *place) environment() config.Environment {
	variables := p.variables
	if variables == nil {
		variables = map[string]string{runtimeDirVariable: p.directory}
	}
	return config.Environment{
		Lookup: func(name string) (string, bool) { value, ok := variables[name]; return value, ok },
		UserID: os.Getuid(),
	}
}

// fixed replaces what differs from run to run.
func (p *place) fixed(text string) string { return strings.ReplaceAll(text, p.directory, "RUNTIME") }

// golden compares an outcome with a committed file.
func golden(t *testing.T, name string, got outcome) {
	t.Helper()
	text, err := json.Marshal(got.code)
	if err != nil {
		t.Fatal(err)
	}
	whole := "exit code " + string(text) + "\n==== standard output\n" + got.out + "==== standard error\n" + got.err
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(path, []byte(whole), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if whole != string(want) {
		t.Errorf("%s is not as committed; got:\n%s\nwant:\n%s", path, whole, want)
	}
}

// fakeNode serves fixed contents over the real API.
type fakeNode struct {
	mu       sync.Mutex
	ready    error
	datasets []api.Dataset
	sessions []api.Session
	stalls   []api.SessionStalls
	removed  []string
	hints    fakeHints

	recording fakeRecording // what Trace plays
	flash     *flash.Store  // what has its chunks; nil: none
	cache     api.Cache     // what Cache says
}

func newFakeNode() *fakeNode {
	added := time.Date(2026, 11, 22, 17, 0, 0, 0, time.UTC)
	return &fakeNode{
		datasets: []api.Dataset{
			{Name: "pets", Format: "raw", Path: "/data/pets", State: api.DatasetReady, OwnerUID: 1000, AddedAt: added, IndexID: "ab12cd",
				Samples: 10485, Files: 10485, Bytes: 1_048_500_000, Saw: "10485 files in 37 directories",
				Classes: []string{"Abyssinian", "Bengal", "Birman", "Bombay", "boxer", "chihuahua", "havanese", "keeshond", "Persian", "pug", "samoyed"},
				Skipped: map[string]int{"empty": 2, "hidden": 1}},
			{Name: "text", Format: "tokens", Path: "/data/\x1b[31mtext", State: api.DatasetDetached, Problem: "the directory is gone", OwnerUID: 1000,
				AddedAt: added, IndexID: "ef34", Tokens: 536_870_912, DType: "uint16", Files: 3, Bytes: 1 << 30},
			{Name: "coco", Format: "tar", Path: "/data/coco", State: api.DatasetReady, OwnerUID: 1000, AddedAt: added, IndexID: "0a1b",
				IndexPath: "/var/lib/stoker/datasets/coco/0a1b.idx", Samples: 12345, Files: 12, Bytes: 1_234_500_000, Saw: "12 tar shards",
				Parts: []api.Part{{Name: "jpg", Samples: 12345, Bytes: 1_230_000_000, MaxBytes: 900_000}, {Name: "json", Samples: 12344, Bytes: 4_500_000, MaxBytes: 2000},
					{Name: "seg.png", Samples: 7, Bytes: 70_000, MaxBytes: 20_000}},
				Archives: map[string]int{"tar": 10, "gzip": 2}, Indexes: map[string]int{"dali used": 9, "dali does not fit": 1}, Skipped: map[string]int{"damaged shard": 1}},
		},
		stalls: fakeStalls(added),
		sessions: []api.Session{
			{ID: "s-1", Dataset: "pets", Client: api.Client{PID: 4711, UID: 1000}, StartedAt: added, Transport: "ring", Order: "global", WorldSize: 2,
				BatchSize: 64, Epoch: 3, SamplesConsumed: 5000, Samples: 10485, Ring: api.Ring{Slots: 8, Ready: 6, Held: 1},
				Traffic: api.Traffic{Batches: 12345, PageCacheBytes: 3 << 30, DiskBytes: 1 << 29},
				Stall:   api.Stall{TotalSeconds: 12.5, DiskSeconds: 10, WakeSeconds: 1}},
			{ID: "s-2", Dataset: "text", Client: api.Client{PID: 4712, UID: 1000}, StartedAt: added, Transport: "socket", Rank: 1, WorldSize: 2},
		},
	}
}

func fakeStalls(started time.Time) []api.SessionStalls {
	ended := started.Add(10 * time.Minute)
	return []api.SessionStalls{
		{ID: "s-1", Dataset: "pets", JobID: "job 7", Client: api.Client{PID: 4711}, StartedAt: started, WallSeconds: 100, Share: 0.125,
			Stall: api.Stall{TotalSeconds: 12.5, DiskSeconds: 10, WakeSeconds: 1, OrderSeconds: 0.01, TransformSeconds: 0.5},
			Foresight: &api.Foresight{WindowSamples: 2684, Fetches: 8000, BroughtBytes: 700 << 20, FoundBytes: 1 << 20, UsedBytes: 672 << 20, WastedBytes: 7 << 20, Gone: 54,
				Samples: 7168, OnTime: 5400, Late: 1700, Unforeseen: 68, MissedReads: 1900, EarlySeconds: 1200, LateSeconds: 3,
				Accuracy: 0.96, Coverage: 0.9905, Timeliness: 0.7606, Waste: 0.01},
			Worst: []api.SlowBatch{
				{Seconds: 2.5, Epoch: 3, Position: 12800, Causes: api.Causes{DiskSeconds: 2.4, OtherSeconds: 0.1}, FirstKey: "cats/\x1b[2J17.jpg",
					Files:   []string{"cats/17.jpg", "dogs/1.jpg", "dogs/2.jpg"},
					Slowest: &api.SlowRead{File: "dogs/1.jpg", Offset: 4096, Bytes: 1 << 20, Seconds: 2.1}},
				{Seconds: 0.5, Epoch: 1, Position: 0, Causes: api.Causes{WakeSeconds: 0.1, TransformSeconds: 0.4}},
			}},
		{ID: "s-0", Dataset: "text", JobID: "job 7", Client: api.Client{PID: 4700}, StartedAt: started, EndedAt: &ended, WallSeconds: 600,
			Foresight: &api.Foresight{FoundBytes: 1 << 20, Samples: 512, OnTime: 512, Accuracy: 1, Coverage: 1, Timeliness: 1}},
	}
}

func (n *fakeNode) Version() api.Version {
	return api.Version{Version: "0.1.0", Revision: "abc123", Go: "go1.26.0", Protocol: 1, PID: 42}
}

func (n *fakeNode) Ready() error                { return n.ready }
func (n *fakeNode) Datasets() []api.Dataset     { return n.datasets }
func (n *fakeNode) Stalls() []api.SessionStalls { return n.stalls }
func (n *fakeNode) Stats() api.Stats            { return api.Stats{} }
func (n *fakeNode) removedNames() []string      { n.mu.Lock(); defer n.mu.Unlock(); return n.removed }
func (n *fakeNode) noSuch(name string) error {
	return &api.Error{Code: api.CodeNotFound, What: "no such dataset; there are: pets, text", Where: "dataset " + name, Remedy: "`stoker dataset ls` lists datasets"}
}

func (n *fakeNode) Sessions() []api.Session {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.sessions)
}

func (n *fakeNode) Session(id string) (api.Session, error) {
	for _, s := range n.Sessions() {
		if s.ID == id {
			return s, nil
		}
	}
	return api.Session{}, &api.Error{Code: api.CodeNotFound, What: "no such session"}
}

func (n *fakeNode) Dataset(name string) (api.Dataset, error) {
	for _, d := range n.datasets {
		if d.Name == name {
			return d, nil
		}
	}
	return api.Dataset{}, n.noSuch(name)
}

func (n *fakeNode) RemoveDataset(_ context.Context, name string) error {
	if name == "text" {
		return &api.Error{Code: api.CodeConflict, What: "sessions have the dataset open", Where: "dataset text", Remedy: "end them first"}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.removed = append(n.removed, name)
	return nil
}

// serveAPI puts a daemon's API into the place until stop or the end of the test.
func (p *place) serveAPI(t *testing.T, node api.Node) (stop func()) {
	t.Helper()
	server, err := api.Start(api.Options{
		Node: node, Logger: slog.New(slog.DiscardHandler), RuntimeDir: p.directory, UserID: uint32(os.Getuid()),
	})
	if err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		if err := server.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// script is what the fake session socket does with one connection.
type script func(t *testing.T, conn *shm.Conn)

// serveSessions puts a session socket into the place that plays one script for
// every connection.
func (p *place) serveSessions(t *testing.T, play script) {
	t.Helper()
	listener, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: filepath.Join(p.directory, sessionSocket), Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.AcceptUnix()
			if err != nil {
				return
			}
			packets := shm.NewConn(conn)
			play(t, packets)
			packets.Close()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-done
	})
}

// greeted answers hello and then plays next.
func greeted(next script) script {
	return func(t *testing.T, conn *shm.Conn) {
		var hello shm.Hello
		take(t, conn, &hello)
		if hello.Type != shm.TypeHello || hello.Min != shm.ProtocolMin || !strings.HasPrefix(hello.Client, "stoker-cli/") {
			t.Errorf("hello: %+v", hello)
		}
		send(t, conn, shm.Hello{Type: shm.TypeHello, Version: 1, Daemon: "0.1.0"})
		next(t, conn)
	}
}

func send(t *testing.T, conn *shm.Conn, message any) {
	t.Helper()
	if err := conn.Send(message, 10*time.Second); err != nil && !errors.Is(err, unix.EPIPE) {
		t.Errorf("send %+v: %v", message, err)
	}
}

// take receives one message, and returns the descriptors with it.
func take(t *testing.T, conn *shm.Conn, message any) []int {
	t.Helper()
	packet, descriptors, err := conn.Receive()
	if err == nil {
		err = json.Unmarshal(packet, message)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		t.Errorf("receive: %v", err)
	}
	return descriptors
}
