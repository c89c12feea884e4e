package api

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeRecorder is what a fakeNode records with.
type fakeRecorder struct {
	mu    sync.Mutex
	asked []TraceRequest
	run   func(ctx context.Context, out Sink) error // nil: writes "a trace"
	ended chan error                                // if set, takes what run returned
}

// Trace implements Node.
func (n *fakeNode) Trace(request TraceRequest) (Recording, error) {
	for _, name := range request.Datasets {
		if name == "none" {
			return nil, &Error{Code: CodeNotFound, What: "no such dataset", Where: name, Remedy: "see stoker dataset ls"}
		}
	}
	if slices.Contains(request.Sessions, "s-limit") {
		return nil, &Error{Code: CodeLimit, What: "as many are under way as can be"}
	}
	n.recorder.mu.Lock()
	defer n.recorder.mu.Unlock()
	n.recorder.asked = append(n.recorder.asked, request)
	return fakeRecording{&n.recorder}, nil
}

type fakeRecording struct{ of *fakeRecorder }

// Run implements Recording.
func (r fakeRecording) Run(ctx context.Context, out Sink) error {
	if r.of.run == nil {
		_, err := io.WriteString(out, "a trace")
		return errors.Join(err, out.Flush())
	}
	err := r.of.run(ctx, out)
	if r.of.ended != nil {
		r.of.ended <- err
	}
	return err
}

// beginning writes what a recording begins with.
func beginning(out Sink) error {
	_, err := io.WriteString(out, "beginning ")
	return errors.Join(err, out.Flush())
}

func TestATraceIsRecordedAsAsked(t *testing.T) {
	s := serveInMemory(t, everything())
	status, header, body := s.do(t, "GET", "/v1/trace?dataset=pets&session=s-1&dataset=a%26b")
	if status != http.StatusOK || body != "a trace" || header.Get("Content-Type") != traceType || header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %v %q", status, header, body)
	}
	if status, _, body = s.do(t, "HEAD", "/v1/trace"); status != http.StatusOK || body != "" {
		t.Errorf("%d %q", status, body)
	}
	if want := []TraceRequest{{Datasets: []string{"pets", "a&b"}, Sessions: []string{"s-1"}}}; !reflect.DeepEqual(s.node.recorder.asked, want) {
		t.Errorf("asked for %+v", s.node.recorder.asked)
	}
}

func TestATraceThatMakesNoSenseIsRefused(t *testing.T) {
	s := serveInMemory(t, everything())
	for query, want := range map[string]string{"verbose=1": "no query parameter of that name", "dataset=": "is empty", "dataset=%zz": "cannot be read", "dataset=a;session=b": "cannot be read"} {
		status, header, body := s.do(t, "GET", "/v1/trace?"+query)
		if problem := wantProblem(t, status, header, body, http.StatusBadRequest, CodeInvalid); !strings.Contains(problem.What, want) {
			t.Errorf("%s: %+v", query, problem)
		}
	}
	status, header, body := s.do(t, "GET", "/v1/trace?dataset=none")
	wantProblem(t, status, header, body, http.StatusNotFound, CodeNotFound)
	status, header, body = s.do(t, "GET", "/v1/trace?session=s-limit")
	wantProblem(t, status, header, body, http.StatusTooManyRequests, CodeLimit)
	if header.Get("Retry-After") == "" {
		t.Error("nobody is told when to try again")
	}
	if len(s.node.recorder.asked) != 0 {
		t.Error("something is recorded")
	}
}

// begun asks for a trace and reads its beginning.
func begun(t *testing.T, s *served) *http.Response {
	t.Helper()
	response, err := s.client.Get("http://localhost/v1/trace")
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len("beginning "))
	if _, err := io.ReadFull(response.Body, b); err != nil || string(b) != "beginning " {
		t.Fatalf("%q, %v", b, err)
	}
	return response
}

func TestAServerThatClosesEndsItsRecordings(t *testing.T) {
	s := serveInMemory(t, everything())
	s.node.recorder.run = func(ctx context.Context, out Sink) error {
		if err := beginning(out); err != nil {
			return err
		}
		<-ctx.Done()
		_, err := io.WriteString(out, "and end")
		return errors.Join(err, out.Flush())
	}
	response := begun(t, s)
	defer response.Body.Close()
	closed := make(chan error)
	go func() { closed <- s.server.Close(context.WithoutCancel(t.Context())) }()
	if rest, err := io.ReadAll(response.Body); err != nil || string(rest) != "and end" {
		t.Errorf("%q, %v", rest, err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

func TestARecordingEndsWithItsClient(t *testing.T) {
	s := serveInMemory(t, everything())
	s.node.recorder.ended = make(chan error, 1)
	s.node.recorder.run = func(_ context.Context, out Sink) (err error) {
		for err = beginning(out); err == nil; {
			err = beginning(out)
		}
		return err
	}
	begun(t, s).Body.Close()
	if err := <-s.node.recorder.ended; err == nil {
		t.Error("it ended without an error")
	}
}

func TestARecordingThatPanicsEndsNothingElse(t *testing.T) {
	s := serveInMemory(t, everything())
	s.node.recorder.run = func(_ context.Context, out Sink) error {
		_ = beginning(out)
		panic("a defect")
	}
	response := begun(t, s)
	_, _ = io.ReadAll(response.Body)
	response.Body.Close()
	if status, _, _ := s.do(t, "GET", "/v1/version"); status != http.StatusOK || !strings.Contains(s.log.String(), "a defect") {
		t.Errorf("%d, log %q", status, s.log)
	}
}

// shut says that it was closed.
type shut struct {
	net.Conn
	closed chan struct{}
}

func (s shut) Close() error { close(s.closed); return s.Conn.Close() }

func TestAClientThatTakesNothingIsCutOff(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	for _, write := range []func(*timedSink) error{
		func(s *timedSink) error { _, err := s.Write(make([]byte, 1<<20)); return err },
		func(s *timedSink) error { return s.Flush() },
	} {
		conn := shut{ours, make(chan struct{})}
		sink := &timedSink{bufio.NewWriter(conn), conn, time.Millisecond}
		_, _ = io.WriteString(sink.Writer, "x")
		if err := write(sink); err == nil {
			t.Error("it was written all the same")
		}
		<-conn.closed
		ours, theirs = net.Pipe()
		defer theirs.Close()
	}
}
