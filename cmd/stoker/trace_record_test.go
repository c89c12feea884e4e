package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/prefetch/trace"
	"github.com/stokerio/stoker/shm"
)

// Trace implements api.Node: it plays what the test put there.
func (n *fakeNode) Trace(request api.TraceRequest) (api.Recording, error) {
	if len(request.Datasets) > 0 {
		if _, err := n.Dataset(request.Datasets[0]); err != nil {
			return nil, err
		}
	}
	return fakeRecording(n.recording), nil
}

// fakeRecording writes a recording; nil: nothing.
type fakeRecording func(ctx context.Context, out api.Sink) error

// Run implements api.Recording.
func (f fakeRecording) Run(ctx context.Context, out api.Sink) error { return f(ctx, out) }

// small is a trace of two sessions, of which something was lost, without its end.
func small(out io.Writer) (*trace.Writer, error) {
	w, err := trace.NewWriter(out, trace.Header{Start: time.Date(2026, 11, 22, 17, 0, 0, 0, time.UTC), Node: "node-7"})
	if err != nil {
		return nil, err
	}
	_, errDataset := w.Dataset(trace.Dataset{Name: "pets", IndexID: "ab12cd", Samples: 100, Chunks: 100, Bytes: 100 << 20})
	err = errDataset
	for _, job := range []string{"resnet", "vit"} {
		_, errSession := w.Session(trace.Session{Job: job, BatchSize: 4, Order: "global, seed 7", WorldSize: 1})
		err = errors.Join(err, errSession)
	}
	for i := range int64(50) {
		read := trace.Read{At: time.Duration(i) * time.Millisecond, Session: int(i % 2), Epoch: i / 25, Position: i % 25 * 4}
		for j := range int64(4) {
			sample := (i*29 + j*7) % 100
			read.Accesses = append(read.Accesses, trace.Access{Sample: sample, Chunk: sample, Bytes: 1 << 20})
		}
		if i == 30 {
			err = errors.Join(err, w.Mark(read.At, trace.Lost{Reads: 3, Samples: 12}))
		}
		err = errors.Join(err, w.Read(&read))
	}
	return w, err
}

// ended plays a recording that the daemon ends.
func ended(_ context.Context, out api.Sink) error {
	w, err := small(out)
	if err != nil {
		return err
	}
	return errors.Join(w.Close(), out.Flush())
}

// lasting plays one that lasts until its client goes.
func lasting(_ context.Context, out api.Sink) error {
	w, err := small(out)
	for err == nil { // as a recorder does of which nothing comes
		err = errors.Join(w.Mark(time.Second, trace.Lost{}), w.Flush(), out.Flush())
	}
	return err
}

// ear calls stop when it hears a text.
type ear struct {
	text string
	stop func()
}

func (e ear) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(e.text)) {
		e.stop()
	}
	return len(p), nil
}

func TestRecordingsAreWrittenAndCanBeReplayed(t *testing.T) {
	p, node := newPlace(t), newFakeNode()
	p.clock = &virtualClock{at: time.Unix(0, 0)}
	node.recording = ended
	p.serveAPI(t, node)
	path := filepath.Join(p.directory, "x.trace")
	golden(t, "trace-record-daemon", p.run(t, "trace", "record", path))
	golden(t, "trace-record-info", p.run(t, "trace", "info", path))
	golden(t, "trace-record-replay", p.run(t, "trace", "replay", path, "--capacity", "25%", "--policy", "lru"))
	golden(t, "trace-record-exists", p.run(t, "trace", "record", path))
	golden(t, "trace-record-accesses", p.run(t, "trace", "record", path, "--force", "--accesses", "130", "--dataset", "pets"))
	golden(t, "trace-record-json", p.run(t, "trace", "record", path, "--force", "--accesses", "30", "--json"))
	golden(t, "trace-record-unknown", p.run(t, "trace", "record", path, "--force", "--dataset", "none"))
	golden(t, "trace-record-negative", p.run(t, "trace", "record", path, "--for", "-1s"))
	golden(t, "trace-record-zero", p.run(t, "trace", "record", path, "--for", "0s"))
	golden(t, "trace-record-no-accesses", p.run(t, "trace", "record", path, "--accesses", "0"))
	golden(t, "trace-record-nowhere", p.run(t, "trace", "record", filepath.Join(p.directory, "none", "x.trace")))
	golden(t, "complete-trace-session", p.run(t, "__complete", "trace", "record", "x", "--session", ""))
	wantNoHidden(t, p.directory)
}

// wantNoHidden fails if an unfinished recording is left.
func wantNoHidden(t *testing.T, directory string) {
	t.Helper()
	if left, _ := filepath.Glob(filepath.Join(directory, ".*trace*")); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
}

func TestCtrlCEndsARecordingProperly(t *testing.T) {
	p, node := newPlace(t), newFakeNode()
	node.recording = lasting
	p.serveAPI(t, node)
	ctx, stop := context.WithCancel(t.Context())
	p.terminal, p.heard = true, ear{"200 accesses", stop}
	path := filepath.Join(p.directory, "x.trace")
	if got := p.runContext(ctx, "trace", "record", path); got.code != exitOK || !strings.Contains(got.out, "wrote RUNTIME/x.trace: 200 accesses") {
		t.Errorf("%+v", got)
	}
	p.terminal, p.heard = false, nil
	if got := p.run(t, "trace", "info", path); got.code != exitOK || got.err != "" { // it has its end
		t.Errorf("%+v", got)
	}
	wantNoHidden(t, p.directory)
}

func TestARecordingEndsAfterItsTime(t *testing.T) {
	p, node := newPlace(t), newFakeNode()
	node.recording = lasting
	p.serveAPI(t, node)
	var answer recordedTrace
	got := p.run(t, "trace", "record", filepath.Join(p.directory, "x.trace"), "--for", "50ms", "--json")
	if err := json.Unmarshal([]byte(got.out), &answer); err != nil || got.code != exitOK || answer.Ended != endedTime {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestARecordingOfALostDaemonIsKept(t *testing.T) {
	p, node := newPlace(t), newFakeNode()
	node.recording = func(_ context.Context, out api.Sink) error { // it dies in the midst of a block
		var all bytes.Buffer
		w, err := small(&all)
		if err = errors.Join(err, w.Flush()); err != nil {
			return err
		}
		first := all.Len()
		if err = errors.Join(w.Mark(time.Second, trace.Lost{}), w.Close()); err != nil {
			return err
		}
		_, err = out.Write(all.Bytes()[:first+3])
		return errors.Join(err, out.Flush())
	}
	p.serveAPI(t, node)
	path := filepath.Join(p.directory, "x.trace")
	got := p.run(t, "trace", "record", path)
	if got.code != exitError || !strings.Contains(got.err, "the connection to stokerd was lost") || !strings.Contains(got.out, "200 accesses in 50 reads") {
		t.Errorf("%+v", got)
	}
	if got := p.run(t, "trace", "info", path); got.code != exitOK || got.err != "" {
		t.Errorf("%+v", got)
	}
	node.recording = func(_ context.Context, out api.Sink) error {
		_, err := io.WriteString(out, "this is no trace")
		return errors.Join(err, out.Flush())
	}
	if got := p.run(t, "trace", "record", path, "--force"); got.code != exitError || !strings.Contains(got.err, "this is no trace") {
		t.Errorf("%+v", got)
	}
	if got := p.run(t, "trace", "info", path); got.code != exitOK { // the one before is untouched
		t.Errorf("%+v", got)
	}
	wantNoHidden(t, p.directory)
}

func TestARecordingShowsHowFarItIs(t *testing.T) {
	now := func() time.Time { return time.Unix(1, 0) }
	var errs bytes.Buffer
	r := &traceCopy{app: &app{err: &errs, terminal: true, clock: clock{now: now}}, file: &traceFile{written: 12345}, length: time.Minute}
	r.began, r.lost = time.Unix(0, 0), trace.Lost{Reads: 2}
	var err error
	if r.out, err = trace.NewWriter(io.Discard, trace.Header{}); err != nil {
		t.Fatal(err)
	}
	r.show()
	r.finish()
	if got := errs.String(); got != "\r\x1b[Krecording: 0 accesses, 12.1 KiB, 1s of 1m0s, 2 reads lost\r\x1b[K" {
		t.Errorf("%q", got)
	}
}

// trainer is the other end of a session, as far as it takes to read batches.
type trainer struct {
	conn     *shm.Conn
	consumer *shm.Consumer
}

func newTrainer(t *testing.T, socket string, request shm.Open) *trainer {
	t.Helper()
	conn, err := shm.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	send(t, conn, shm.Hello{Type: shm.TypeHello, Min: shm.ProtocolMin, Max: shm.ProtocolMin, Client: "test"})
	take(t, conn, &shm.Hello{})
	send(t, conn, request)
	var opened shm.Opened
	descriptors := take(t, conn, &opened)
	if opened.Type != shm.TypeOpened || len(descriptors) != 1 {
		t.Fatalf("%+v with %d descriptors", opened, len(descriptors))
	}
	c := &trainer{conn: conn}
	c.consumer, err = shm.MapConsumer(descriptors[0])
	_ = unix.Close(descriptors[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.consumer.Close() })
	return c
}

// epochs takes so many.
func (c *trainer) epochs(t *testing.T, n int) {
	t.Helper()
	for n > 0 {
		e, ok := c.consumer.Take(20 * time.Second)
		switch {
		case !ok || e.Kind == shm.KindError:
			t.Fatalf("no batch: %+v", e)
		case e.Kind == shm.KindEndOfEpoch:
			n--
		}
		if e.Slot != shm.NoSlot {
			c.consumer.Release(e)
		}
	}
}

// changing is what the page cache and the clock decide in what a replay prints.
var changing = regexp.MustCompile(`(?m)(accesses in \S+,|^recorded: .*|, \S+ % less than was recorded|; the recorded run .*|\s+\S+ %\s+\S+ \S+\s+\S+ ms$)`)

// Two sessions read two epochs each while they are recorded, and the recording is
// replayed.
func TestARecordingOfARealDaemonCanBeReplayed(t *testing.T) {
	p, source := newPlace(t), t.TempDir()
	for i := range 64 {
		if err := os.WriteFile(filepath.Join(source, fmt.Sprintf("%02d.jpg", i)), make([]byte, 1000+i), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	node := p.serveNode(t)
	if got := p.run(t, "dataset", "add", "pets", source); got.code != exitOK {
		t.Fatalf("%+v", got)
	}
	const each, slots, batch = 2 * 64, 4, 8 // samples; what fills the ring behind them is recorded as well
	path, recorded := filepath.Join(p.directory, "pets.trace"), make(chan outcome, 1)
	go func() {
		recorded <- p.run(t, "trace", "record", path, "--accesses", fmt.Sprint(2*(each+slots*batch)), "--json")
	}()
	until := func(what string, is func(api.TraceStats) bool) {
		for deadline := time.Now().Add(20 * time.Second); !is(node.Stats().Traces); runtime.Gosched() {
			if time.Now().After(deadline) {
				t.Fatalf("not within 20 s: %s; %+v", what, node.Stats().Traces)
			}
		}
	}
	until("recording", func(s api.TraceStats) bool { return s.Recordings == 1 })
	for session := range int64(2) {
		request := shm.Open{
			Type: shm.TypeOpen, Dataset: "pets", BatchSize: batch, Order: "global", Seed: uint64(session), WorldSize: 1,
			Transport: shm.TransportRing, Slots: slots,
		}
		newTrainer(t, filepath.Join(p.directory, sessionSocket), request).epochs(t, 2)
		until("all is recorded", func(s api.TraceStats) bool { return s.Accesses == (session+1)*(each+slots*batch) })
	}
	got := <-recorded
	var answer recordedTrace
	if err := json.Unmarshal([]byte(got.out), &answer); err != nil || got.code != exitOK || answer.Sessions != 2 || answer.Ended != endedAccesses || answer.Lost.Reads != 0 {
		t.Fatalf("%+v, %v", got, err)
	}
	got = p.run(t, "trace", "replay", path, "--capacity", "25%,50%", "--policy", "lru")
	golden(t, "trace-record-real", outcome{got.code, changing.ReplaceAllString(got.out, ""), got.err})
}
