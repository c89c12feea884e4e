package loader

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stokerio/stoker/shm"
)

func TestRawBatchesHoldTheFilesBytesAndLabels(t *testing.T) {
	n := startNode(t, testOptions(t))
	dir, contents := writeFiles(t, 23, func(i int) int { return i * 100 })
	info := n.add("pictures", dir)
	if info.Format != "raw" || info.Samples != 23 || !slices.Equal(info.Classes, []string{"c0", "c1", "c2"}) {
		t.Fatalf("added %+v", info)
	}
	names := slices.Sorted(maps.Keys(contents))
	request := openRequest("pictures")
	request.Order, request.Seed = "global", 5
	c := n.openSession(request)
	seen := map[int64]int{}
	for epoch := range uint64(2) {
		for {
			b := c.next()
			if b.Epoch != epoch {
				t.Fatalf("entry of epoch %d, expected %d", b.Epoch, epoch)
			}
			if b.Kind == shm.KindEndOfEpoch {
				break
			}
			for row, sample := range b.index {
				seen[sample]++
				name := names[sample]
				got := b.columns[0][b.offsets[0][row]:b.offsets[0][row+1]]
				if !bytes.Equal(got, contents[name]) {
					t.Fatalf("sample %d is not the content of %s", sample, name)
				}
				if label := binary.LittleEndian.Uint64(b.columns[1][8*row:]); label != uint64(name[1]-'0') {
					t.Errorf("sample %d has label %d, lies in %s", sample, label, name)
				}
			}
		}
	}
	if len(seen) != 23 {
		t.Errorf("saw %d different samples, expected 23", len(seen))
	}
	for sample, count := range seen {
		if count != 2 {
			t.Errorf("sample %d came %d times in 2 epochs", sample, count)
		}
	}
}

func TestTokenRowsOverlapByOneToken(t *testing.T) {
	n := startNode(t, testOptions(t))
	dir := t.TempDir()
	tokens := make([]byte, 2*1001)
	for i := range 1001 {
		binary.LittleEndian.PutUint16(tokens[2*i:], uint16(i))
	}
	if err := os.WriteFile(filepath.Join(dir, "train.bin"), tokens, 0o644); err != nil {
		t.Fatal(err)
	}
	n.add("text", dir)
	request := openRequest("text")
	request.BlockSize = 100
	c := n.openSession(request)
	if c.opened.Samples != 10 || c.opened.Columns[0].Shape[0] != 101 {
		t.Fatalf("opened %+v", c.opened)
	}
	b := c.next()
	for row, sample := range b.index {
		want := tokens[2*100*sample:][:202]
		if got := b.columns[0][202*row:][:202]; !bytes.Equal(got, want) {
			t.Errorf("row of sample %d begins % x, expected % x", sample, got[:4], want[:4])
		}
	}
}

func TestABatchLargerThanASlotArrivesInItsOwnMemory(t *testing.T) {
	options := testOptions(t)
	options.Session.RingBytesMax = 64 << 10
	n := startNode(t, options)
	dir, contents := writeFiles(t, 12, func(i int) int { return 10_000 + i })
	n.add("large", dir)
	names := slices.Sorted(maps.Keys(contents))
	for _, transport := range []string{shm.TransportRing, shm.TransportSocket} {
		request := openRequest("large")
		request.Transport = transport
		c := n.openSession(request)
		for range 30 {
			var b batch
			if transport == shm.TransportRing {
				b = c.next()
			} else {
				b = c.nextOverSocket()
			}
			if b.Kind == shm.KindEndOfEpoch {
				continue
			}
			if b.Flags&shm.FlagOversized == 0 {
				t.Fatalf("batch of %d bytes in a slot of %d", b.Bytes, c.opened.Ring.SlotBytes)
			}
			for row, sample := range b.index {
				if got := b.columns[0][b.offsets[0][row]:b.offsets[0][row+1]]; !bytes.Equal(got, contents[names[sample]]) {
					t.Fatalf("sample %d is not the content of %s", sample, names[sample])
				}
			}
		}
	}
}

// nextOverSocket asks for a batch as a trainer that cannot map memory does.
func (c *client) nextOverSocket() batch {
	c.t.Helper()
	return c.nextTelling(nil)
}

// nextTelling is nextOverSocket with word of how the trainer waited.
func (c *client) nextTelling(waited *shm.TransformWait) batch {
	c.t.Helper()
	var answer shm.BatchAnswer
	c.ask(shm.Next{Type: shm.TypeNext, Waited: waited}, &answer)
	var stream []byte
	for int64(len(stream)) < int64(answer.EntryBytes)+answer.Bytes {
		packet, _, err := c.Receive()
		if err != nil {
			c.t.Fatal(err)
		}
		stream = append(stream, packet...)
	}
	e := shm.DecodeEntry(stream[:answer.EntryBytes])
	b := batch{Entry: e}
	if e.Kind == shm.KindBatch {
		b.parse(c.t, stream[answer.EntryBytes:])
	}
	return b
}

func TestSeekContinuesAtTheAskedPlaceAndTellsStaleEntriesApart(t *testing.T) {
	n := startNode(t, testOptions(t))
	dir, _ := writeFiles(t, 40, func(int) int { return 10 })
	n.add("d", dir)
	c := n.openSession(openRequest("d"))
	c.next()
	for _, to := range []shm.Seek{{Epoch: 3, SamplesConsumed: 8}, {Epoch: 0, SamplesConsumed: 40}, {Epoch: 1}} {
		to.Type = shm.TypeSeek
		var seeked shm.Seeked
		c.ask(to, &seeked)
		b := c.next()
		for b.Sequence < seeked.FromSequence {
			b = c.next()
		}
		if b.Sequence != seeked.FromSequence || int64(b.Epoch) != to.Epoch {
			t.Fatalf("after %+v and %+v came %+v", to, seeked, b.Entry)
		}
		if to.SamplesConsumed == 40 {
			if b.Kind != shm.KindEndOfEpoch {
				t.Errorf("a consumed epoch yields kind %d, expected its end", b.Kind)
			}
			continue
		}
		if want := to.SamplesConsumed; b.index[0] != want || int64(b.SamplesConsumed) != want+4 {
			t.Errorf("after %+v came samples %v, consumed %d", to, b.index, b.SamplesConsumed)
		}
	}
}

func TestAFileThatChangedIsAnErrorThatNamesIt(t *testing.T) {
	n := startNode(t, testOptions(t))
	for what, change := range map[string]func(path string) error{
		"replaced":  func(path string) error { return replaceFile(path, []byte("other content of other length")) },
		"truncated": func(path string) error { return os.Truncate(path, 3) },
		"removed":   os.Remove,
		"appended":  func(path string) error { return appendFile(path, []byte("x")) },
	} {
		t.Run(what, func(t *testing.T) {
			dir, _ := writeFiles(t, 8, func(int) int { return 100 })
			n.add(what, dir)
			if err := change(filepath.Join(dir, "c1/f004")); err != nil {
				t.Fatal(err)
			}
			c := n.openSession(openRequest(what))
			for {
				b := c.next()
				if b.Kind == shm.KindBatch {
					for _, sample := range b.index {
						if sample == 4 { // c0: 0,3,6; c1: 1,4,7 -> sorted number of c1/f004 is 4
							t.Fatal("the changed file was served")
						}
					}
					continue
				}
				if b.Kind != shm.KindError || b.failure.Code != "changed" || !strings.Contains(b.failure.What, "c1/f004") || b.failure.Remedy == "" {
					t.Fatalf("entry %+v, failure %+v; expected an error that names c1/f004", b.Entry, b.failure)
				}
				break
			}
			if e, ok := c.consumer.Take(0); ok {
				t.Errorf("after the error came %+v", e)
			}
		})
	}
}

func replaceFile(path string, content []byte) error {
	if err := os.WriteFile(path+".new", content, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func appendFile(path string, content []byte) error {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := file.Write(content); err != nil {
		return err
	}
	return file.Close()
}

func TestAnswersLongerThanAPacketArriveWhole(t *testing.T) {
	n := startNode(t, testOptions(t))
	dir := t.TempDir()
	for i := range 1500 {
		class := filepath.Join(dir, fmt.Sprintf("%04d-%s", i, strings.Repeat("long class name ", 4)))
		if err := errors.Join(os.Mkdir(class, 0o755), os.WriteFile(filepath.Join(class, "f"), []byte{1}, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if info := n.add("many", dir); len(info.Classes) != 1500 {
		t.Errorf("added with %d classes", len(info.Classes))
	}
	c := n.openSession(openRequest("many"))
	if len(c.opened.Classes) != 1500 {
		t.Errorf("opened with %d classes", len(c.opened.Classes))
	}
	c.next()
}

// Serve may begin while Close is under way: whichever is first, it ends, and its listener
// is closed.
func TestServeEndsThoughTheNodeClosesMeanwhile(t *testing.T) {
	for range 50 {
		node, err := Open(testOptions(t))
		if err != nil {
			t.Fatal(err)
		}
		listener, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unixpacket"})
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- node.Serve(listener) }()
		if err := errors.Join(node.Close(), <-served); err != nil {
			t.Fatal(err)
		}
		if err := listener.Close(); !errors.Is(err, net.ErrClosed) {
			t.Fatalf("the listener was open: %v", err)
		}
	}
}
