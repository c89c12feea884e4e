package loader

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/stokerio/stoker/shm"
)

// FuzzSessionProtocol sends whatever packets to a node, one a line, each with a
// descriptor if it begins with '!', and checks that the node still serves others.
func FuzzSessionProtocol(f *testing.F) {
	n := startNode(f, testOptions(f))
	dir, _ := writeFiles(f, 8, func(int) int { return 10 })
	n.add("d", dir)
	open, err := json.Marshal(openRequest("d"))
	if err != nil {
		f.Fatal(err)
	}
	hello := `{"type":"hello","min":1,"max":1}`
	f.Add([]byte(hello + "\n" + string(open) + "\n" + `{"type":"seek","epoch":1,"samples_consumed":4}` + "\n" + `{"type":"stats"}`))
	f.Add([]byte(hello + "\n" + `!{"type":"dataset_add","name":"x","format":"auto"}`))
	f.Add([]byte(hello + "\n" + `{"type":"sample","dataset":"d","index":3}` + "\n" + `{"type":"close"}`))
	f.Add([]byte(hello + "\n" + `{"type":"open","dataset":"d","batch_size":2,"order":"windowed","window":3,"world_size":2,"rank":1,"transport":"socket"}` + "\n" + `{"type":"next"}`))
	f.Add([]byte(hello + "\n" + `{"type":"open","dataset":"d","batch_size":2,"order":"torch","seeding":"once","transport":"socket"}` + "\n" +
		`{"type":"next","waited":{"total_ns":18446744073709551615,"longest_ns":7,"epoch":1,"position":99,"rows":4294967295}}` + "\n" + `{"type":"stats"}`))
	f.Add([]byte("\x00\n{}\n" + hello))
	f.Fuzz(func(t *testing.T, packets []byte) {
		hostile, err := shm.Dial(n.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = hostile.Close() }()
		for packet := range bytes.SplitSeq(packets, []byte("\n")) {
			var descriptors []int
			if bytes.HasPrefix(packet, []byte("!")) {
				packet, descriptors = packet[1:], []int{int(os.Stdin.Fd())}
			}
			if len(packet) == 0 || hostile.SendRaw(packet, time.Second, descriptors...) != nil {
				break
			}
			if hostile.SetReadDeadline(time.Now().Add(20*time.Millisecond)) != nil {
				break
			}
			_, received, err := hostile.Receive()
			shm.CloseAll(received)
			if err != nil {
				break
			}
		}
		other, err := shm.Dial(n.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = other.Close() }()
		if err := other.Send(shm.Hello{Type: shm.TypeHello, Min: 1, Max: 1}, time.Second); err != nil {
			t.Fatal(err)
		}
		if err := other.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if answer, _, err := other.Receive(); err != nil || !bytes.Contains(answer, []byte(`"hello"`)) {
			t.Fatalf("another client is answered %s, %v", answer, err)
		}
	})
}
