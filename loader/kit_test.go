package loader

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend/object"
	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/shm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testNode is a node with its session socket, closed when the test ends.
type testNode struct {
	*Node
	t      testing.TB
	socket string
	served chan error
}

func testOptions(t testing.TB) Options {
	return Options{
		DataDir: t.TempDir(), UID: -1, Version: api.Version{Version: "test"},
		Session: SessionOptions{Readers: 2, RingBytesMax: 8 << 20},
		Object:  object.Options{ColdReads: 2},
	}
}

func discardLogger() *slog.Logger { return slog.New(slog.DiscardHandler) }

func startNode(t testing.TB, options Options) *testNode {
	t.Helper()
	return startChanged(t, options, func(*Node) {})
}

// startChanged is startNode with a change of the node before it serves anybody.
func startChanged(t testing.TB, options Options, change func(*Node)) *testNode {
	t.Helper()
	node, err := Open(options)
	if err != nil {
		t.Fatal(err)
	}
	change(node)
	n := &testNode{Node: node, t: t, socket: filepath.Join(t.TempDir(), "s"), served: make(chan error, 1)}
	listener, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: n.socket, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	go func() { n.served <- n.Serve(listener) }()
	t.Cleanup(func() {
		if err := errors.Join(n.Close(), <-n.served); err != nil {
			t.Error(err)
		}
		if used := n.budget.used(); used != 0 {
			t.Errorf("%d bytes of shared memory are still accounted for after Close", used)
		}
		if used := n.tables.Used(); used != 0 {
			t.Errorf("%d bytes of tables are still accounted for after Close", used)
		}
	})
	return n
}

// client is the other end of a session socket, as a test needs it.
type client struct {
	*shm.Conn
	t        testing.TB
	consumer *shm.Consumer
	opened   shm.Opened
	large    map[uint64][]byte
}

func (n *testNode) dial() *client {
	n.t.Helper()
	conn, err := shm.Dial(n.socket)
	if err != nil {
		n.t.Fatal(err)
	}
	c := &client{Conn: conn, t: n.t, large: map[uint64][]byte{}}
	n.t.Cleanup(func() {
		_ = conn.Close()
		if c.consumer != nil {
			_ = c.consumer.Close()
		}
	})
	return c
}

// greeted dials and says hello.
func (n *testNode) greeted() *client {
	n.t.Helper()
	c := n.dial()
	var hello shm.Hello
	c.ask(shm.Hello{Type: shm.TypeHello, Min: 1, Max: 1, Client: "test"}, &hello)
	return c
}

// receive reads one message, however long it takes within reason. Descriptors of
// oversized batches are mapped and kept.
func (c *client) receive() (string, []byte, []int, error) {
	for {
		if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			return "", nil, nil, err
		}
		packet, descriptors, err := c.ReceiveAny(64 << 20)
		if err != nil {
			return "", nil, nil, err
		}
		var envelope shm.Envelope
		if err := json.Unmarshal(packet, &envelope); err != nil {
			return "", nil, nil, err
		}
		switch envelope.Type {
		case shm.TypeProgress:
		case shm.TypeOversized:
			c.keepLarge(packet, descriptors)
		default:
			return envelope.Type, packet, descriptors, nil
		}
	}
}

func (c *client) keepLarge(packet []byte, descriptors []int) {
	var note shm.OversizedNote
	if err := json.Unmarshal(packet, &note); err != nil || len(descriptors) != 1 {
		c.t.Errorf("oversized note %s with %d descriptors: %v", packet, len(descriptors), err)
		return
	}
	c.large[note.Sequence] = readAll(c.t, descriptors[0], note.Bytes)
}

// readAll reads a memfd and closes it.
func readAll(t testing.TB, fd int, n int64) []byte {
	t.Helper()
	b := make([]byte, n)
	if got, err := unix.Pread(fd, b, 0); err != nil || int64(got) != n {
		t.Errorf("read %d bytes of shared memory: %d, %v", n, got, err)
	}
	_ = unix.Close(fd)
	return b
}

// try sends a request and decodes its answer into into, or returns the failure.
func (c *client) try(request, into any, descriptors ...int) ([]int, error) {
	if err := c.Send(request, time.Second, descriptors...); err != nil {
		return nil, err
	}
	kind, packet, received, err := c.receive()
	if err != nil {
		return nil, err
	}
	if kind == shm.TypeError {
		var answer shm.ErrorAnswer
		if err := json.Unmarshal(packet, &answer); err != nil {
			return nil, err
		}
		return nil, &answer.Error
	}
	return received, json.Unmarshal(packet, into)
}

func (c *client) ask(request, into any, descriptors ...int) []int {
	c.t.Helper()
	received, err := c.try(request, into, descriptors...)
	if err != nil {
		c.t.Fatalf("%+v: %v", request, err)
	}
	return received
}

// failure sends a request that must fail, and returns why it did.
func (c *client) failure(request any, descriptors ...int) *shm.Failure {
	c.t.Helper()
	var ignored map[string]any
	_, err := c.try(request, &ignored, descriptors...)
	var failure *shm.Failure
	if !errors.As(err, &failure) {
		c.t.Fatalf("%+v: answered %v and error %v, expected a failure", request, ignored, err)
	}
	if failure.Code == "" || failure.What == "" || failure.Remedy == "" {
		c.t.Errorf("failure %+v does not say what failed and what to do", failure)
	}
	return failure
}

func openDirectory(t testing.TB, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// add registers a directory.
func (n *testNode) add(name, path string) shm.DatasetInfo {
	n.t.Helper()
	c := n.greeted()
	var answer shm.DatasetAnswer
	c.ask(shm.DatasetAdd{Type: shm.TypeDatasetAdd, Name: name, Format: "auto", Path: path}, &answer, openDirectory(n.t, path))
	_ = c.Close()
	return answer.Dataset
}

func openRequest(name string) shm.Open {
	return shm.Open{
		Type: shm.TypeOpen, Dataset: name, BatchSize: 4, Order: "sequential", WorldSize: 1, Transport: shm.TransportRing,
	}
}

// openSession opens a session and maps its ring.
func (n *testNode) openSession(request shm.Open) *client {
	n.t.Helper()
	c := n.greeted()
	descriptors := c.ask(request, &c.opened)
	if request.Transport != shm.TransportRing {
		return c
	}
	if len(descriptors) != 1 {
		n.t.Fatalf("%d descriptors, expected the ring's", len(descriptors))
	}
	var err error
	c.consumer, err = shm.MapConsumer(descriptors[0])
	_ = unix.Close(descriptors[0])
	if err != nil {
		n.t.Fatal(err)
	}
	return c
}

// batch is one entry with its bytes copied out.
type batch struct {
	shm.Entry
	rows    int
	columns [][]byte // values
	offsets [][]int64
	index   []int64
	failure *shm.Failure
}

// next takes one entry and copies what it holds.
func (c *client) next() batch {
	c.t.Helper()
	e, ok := c.consumer.Take(10 * time.Second)
	if !ok {
		c.t.Fatal("no batch within 10 s")
	}
	return c.decode(e, c.consumer.Slot(e), true)
}

func (c *client) decode(e shm.Entry, slot []byte, release bool) batch {
	c.t.Helper()
	b := batch{Entry: e}
	if e.Flags&shm.FlagOversized != 0 {
		slot = c.awaitLarge(e.Sequence)
	}
	switch e.Kind {
	case shm.KindError:
		b.failure = &shm.Failure{}
		if err := json.Unmarshal(slot, b.failure); err != nil {
			c.t.Fatal(err)
		}
	case shm.KindBatch:
		b.parse(c.t, slot)
	}
	if release && e.Slot != shm.NoSlot {
		c.consumer.Release(e)
	}
	return b
}

func (c *client) awaitLarge(sequence uint64) []byte {
	for c.large[sequence] == nil {
		packet, descriptors, err := c.Receive()
		if err != nil {
			c.t.Fatal(err)
		}
		c.keepLarge(packet, descriptors)
	}
	return c.large[sequence]
}

func (b *batch) parse(t testing.TB, slot []byte) {
	t.Helper()
	rows, columns, err := shm.ParseBatch(slot)
	if err != nil {
		t.Fatal(err)
	}
	b.rows = rows
	for _, column := range columns {
		b.columns = append(b.columns, append([]byte{}, slot[column.ValuesOffset:column.ValuesOffset+column.ValuesBytes]...))
		b.offsets = append(b.offsets, append([]int64{}, int64s(slot, column.OffsetsOffset, column.OffsetsBytes)...))
	}
	last := columns[len(columns)-1]
	b.index = append([]int64{}, int64s(slot, last.ValuesOffset, last.ValuesBytes)...)
}

// writeFiles makes count files dir/c<i%3>/f<i> whose content tells their number.
func writeFiles(t testing.TB, count int, size func(i int) int) (string, map[string][]byte) {
	t.Helper()
	dir, contents := t.TempDir(), map[string][]byte{}
	for i := range count {
		name := fmt.Sprintf("c%d/f%03d", i%3, i)
		content := make([]byte, size(i))
		for j := range content {
			content[j] = byte(i + j*7)
		}
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
		contents[name] = content
	}
	return dir, contents
}

// eventually waits for something that another goroutine brings about.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
