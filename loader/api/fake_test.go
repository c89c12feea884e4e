package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valyala/fasthttp/fasthttputil"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeNode is a node with fixed contents. Names it was asked for are kept as they
// were passed, to prove that they are not borrowed.
type fakeNode struct {
	mu       sync.Mutex
	ready    error
	list     []Dataset
	asked    []string
	hold     chan struct{} // if set, RemoveDataset waits for it or its ctx
	entered  chan struct{} // if set, RemoveDataset says that it was entered
	panicked bool          // whether Version panics
	failing  error         // what RemoveDataset and AddHint return
	hinted   []HintRequest // what AddHint was given
	recorder fakeRecorder
	paged    []CachePageRequest
	evicted  []CacheEvict
	limited  []CacheLimit
}

// plenty is a rate that tests which do not look at it never reach.
const plenty = 1_000_000

func newFakeNode() *fakeNode {
	added := time.Date(2026, 11, 22, 17, 0, 0, 0, time.UTC)
	return &fakeNode{list: []Dataset{
		{Name: "pets", Format: "raw", Path: "/data/pets", State: DatasetReady, OwnerUID: 1000, AddedAt: added,
			IndexID: "ab12", Samples: 10485, Files: 10485, Bytes: 1 << 30, Classes: []string{"cat", "dog"}, Skipped: map[string]int{"empty": 2}},
		{Name: "text", Format: "tokens", Path: "/data/text", State: DatasetDetached, Problem: "the directory is gone", AddedAt: added,
			IndexID: "cd34", Tokens: 1 << 29, DType: "uint16", Files: 3, Bytes: 1 << 30},
	}}
}

func (n *fakeNode) Version() Version {
	if n.panicked {
		panic("a defect")
	}
	return Version{Version: "0.1.0", Revision: "abc", Go: "go1.26.0", Protocol: 1, PID: 42}
}

func (n *fakeNode) Ready() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ready
}

func (n *fakeNode) Datasets() []Dataset {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.list)
}

func (n *fakeNode) Dataset(name string) (Dataset, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = append(n.asked, name)
	for _, d := range n.list {
		if d.Name == name {
			return d, nil
		}
	}
	return Dataset{}, &Error{Code: CodeNotFound, What: "no such dataset", Where: name, Remedy: "see stoker dataset ls"}
}

func (n *fakeNode) RemoveDataset(ctx context.Context, name string) error {
	if n.entered != nil {
		n.entered <- struct{}{}
	}
	if n.hold != nil {
		select {
		case <-n.hold:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if n.failing != nil {
		return n.failing
	}
	if _, err := n.Dataset(name); err != nil {
		return err
	}
	if name == "text" {
		return &Error{Code: CodeConflict, What: "2 sessions use it", Where: name, Remedy: "stop them first"}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list = slices.DeleteFunc(n.list, func(d Dataset) bool { return d.Name == name })
	return nil
}

func (n *fakeNode) Sessions() []Session {
	return []Session{{ID: "s-1", Dataset: "pets", Format: "raw", Columns: []string{"data", "label"}, Client: Client{PID: 7, UID: 1000},
		Transport: "ring", Order: "global", WorldSize: 1, BatchSize: 64, StartedAt: time.Date(2026, 11, 22, 18, 0, 0, 0, time.UTC),
		Ring: Ring{Bytes: 1 << 28, SlotBytes: 1 << 23, Slots: 8, Ready: 3, Held: 1}}}
}

func (n *fakeNode) Session(id string) (Session, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = append(n.asked, id)
	for _, s := range n.Sessions() {
		if s.ID == id {
			return s, nil
		}
	}
	return Session{}, &Error{Code: CodeNotFound, What: "no such session is open", Where: id, Remedy: "see stoker session ls"}
}

func (n *fakeNode) Stalls() []SessionStalls {
	started := time.Date(2026, 11, 22, 18, 0, 0, 0, time.UTC)
	ended := started.Add(time.Minute)
	worst := SlowBatch{Seconds: 0.5, Epoch: 1, Position: 6400, Causes: Causes{DiskSeconds: 0.4, OtherSeconds: 0.1},
		Files: []string{"cat/1.jpg"}, FirstKey: "cat/1.jpg", Slowest: &SlowRead{File: "cat/1.jpg", Offset: 4096, Bytes: 65536, Seconds: 0.3}}
	return []SessionStalls{
		{ID: "s-1", Dataset: "pets", Client: Client{PID: 7, UID: 1000}, StartedAt: started, WallSeconds: 90, Worst: []SlowBatch{}},
		{ID: "s-0", Dataset: "pets", JobID: "j-9", Client: Client{PID: 6, UID: 1000, Name: "stoker-python/0.1.0"}, StartedAt: started, EndedAt: &ended,
			WallSeconds: 60, Share: 0.01, Stall: Stall{TotalSeconds: 0.6, DiskSeconds: 0.5}, Worst: []SlowBatch{worst},
			Foresight: &Foresight{Fetches: 3, BroughtBytes: 300, Samples: 5, OnTime: 3, Late: 1, Unforeseen: 1}},
	}
}

func (n *fakeNode) Stats() Stats {
	return Stats{
		SessionsOpen: 1, SessionsOpened: 5, LeasesEnded: map[string]int64{"eof": 3, "close": 1, "meteor": 2},
		Traffic:  Traffic{Batches: 100, Samples: 6400, PageCacheBytes: 9000, DiskBytes: 1000, OversizedBatches: 2, CopiedBatches: 3},
		Stall:    Stall{TotalSeconds: 1.5, DiskSeconds: 0.5, RingSeconds: 0.25, WakeSeconds: 0.125},
		Rings:    Ring{Bytes: 1 << 28, Slots: 8, Ready: 3, Held: 1},
		Datasets: map[string]int64{DatasetReady: 1, DatasetDetached: 1},
		Formats:  map[string]int64{"raw": 1, "tokens": 1}, ScansRunning: 1, ScanBytes: 4096, ScanSamples: 12,
		Errors: map[string]int64{"not_found": 4}, Refused: 6,
		Hints:  HintStats{Open: 2, Added: 9, Ended: map[string]int64{"lease": 4, "deleted": 3}, FetchedBytes: 8192, UnreadBytes: 4096},
		Flash:  n.Cache().Devices,
		Traces: TraceStats{Recordings: 1, Accesses: 5000, LostSamples: 64},
		Jobs:   JobsOf(n.Stalls()),
		Foresight: Foresight{WindowSamples: 96, Fetches: 70, Failed: 1, BroughtBytes: 6000, FoundBytes: 500, WastedBytes: 300, Samples: 80, OnTime: 60,
			Late: 15, Unforeseen: 5, MissedReads: 7, EarlySeconds: 2.5, LateSeconds: 0.25},
	}
}

// served is a server with a client that reaches one of its doors.
type served struct {
	node   *fakeNode
	server *Server
	client *http.Client
	dial   func() (net.Conn, error)
	log    *lockedBuffer
	cutOff bool // whether Close is expected to cut somebody off
}

type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// serveInMemory serves the fake node at a door with these rules.
func serveInMemory(t testing.TB, rules access) *served {
	t.Helper()
	s := &served{node: newFakeNode(), log: &lockedBuffer{}}
	ctx, cancel := context.WithCancel(t.Context())
	logger := slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s.server = &Server{handler: newHandler(ctx, s.node, logger), rate: plenty, cancel: cancel}
	listener := fasthttputil.NewInmemoryListener()
	s.server.add(ctx, "memory", rules, listener)
	s.server.serve(s.server.doors[0])
	s.reach(t, listener.Dial)
	return s
}

// serveUnix serves the fake node on real sockets, and reaches socket.
func serveUnix(t *testing.T, socket string, change func(*Options)) *served {
	t.Helper()
	s := &served{node: newFakeNode(), log: &lockedBuffer{}}
	options := Options{
		Node: s.node, Logger: slog.New(slog.NewTextHandler(s.log, nil)),
		RuntimeDir: t.TempDir(), UserID: uint32(os.Getuid()), Admin: true, RequestsPerSecond: plenty,
	}
	if change != nil {
		change(&options)
	}
	server, err := Start(options)
	if err != nil {
		t.Fatal(err)
	}
	s.server = server
	s.reach(t, func() (net.Conn, error) {
		if socket == "tcp" {
			return net.Dial("tcp", server.Address().String())
		}
		return net.Dial("unix", filepath.Join(options.RuntimeDir, socket))
	})
	return s
}

func (s *served) reach(t testing.TB, dial func() (net.Conn, error)) {
	s.dial = dial
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return dial() }}
	s.client = &http.Client{Transport: transport, Timeout: 20 * time.Second}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.server.Close(ctx); err != nil && !s.cutOff {
			t.Errorf("close: %v", err)
		}
	})
}

// do sends a request and returns status, headers and body, which it holds against
// the description.
func (s *served) do(t *testing.T, method, path string, headers ...string) (int, http.Header, string) {
	t.Helper()
	request, err := http.NewRequest(method, "http://localhost", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.URL.Opaque = path // sent as it is
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			request.Host = headers[i+1]
		}
		request.Header.Set(headers[i], headers[i+1])
	}
	addBody(request, path)
	response, err := s.client.Do(request)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	wantDescribed(t, method, path, response.StatusCode, response.Header, body)
	return response.StatusCode, response.Header, string(body)
}

// wantProblem checks that an answer is a whole problem+json.
func wantProblem(t *testing.T, status int, header http.Header, body string, wantStatus int, wantCode Code) Error {
	t.Helper()
	var problem Error
	if err := json.Unmarshal([]byte(body), &problem); err != nil {
		t.Fatalf("%d %q is no problem: %v", status, body, err)
	}
	if status != wantStatus || problem.Status != wantStatus || problem.Code != wantCode ||
		header.Get("Content-Type") != "application/problem+json" || problem.What == "" {
		t.Errorf("got %d %s %s, want %d %s", status, header.Get("Content-Type"), body, wantStatus, wantCode)
	}
	return problem
}

// raw sends bytes and returns the parsed answer, or nil if the server only closed.
func (s *served) raw(t *testing.T, text string) *http.Response {
	t.Helper()
	conn, err := s.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	go io.Copy(conn, strings.NewReader(text))
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("no answer to %.40q", text)
		}
		return nil
	}
	body, _ := io.ReadAll(response.Body)
	response.Body = io.NopCloser(bytes.NewReader(body))
	return response
}
