//go:build cgo && linux

package cufile

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/cufile/stub"
)

// A stream may bring descriptors with every byte, and the sender may then say nothing
// more. The second descriptor is one too many, whatever would follow.
func TestDescriptorsThatDripInAreRefusedAtTheSecond(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	a, b := socketPair(t, unix.SOCK_STREAM)
	sendRights(t, a, []byte("S"), 1)
	sendRights(t, a, []byte("L"), 1)
	if err := b.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := ReceiveSlab(b, g, false); !errors.Is(err, ErrMessage) {
		t.Errorf("%v, want ErrMessage", err)
	}
	r.close(a, b, g, d)
}

// The 64 bytes of a handle are mapped whatever the message says of their size. A copy
// from behind the end would take the context with it.
func TestALegacySlabThatClaimsMoreThanItHasIsRefused(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	maker, c := child(t, "legacy exporter", r.device)
	message, _, err := receiveMessage(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, claimed := range []uint64{sharedBytes + 2<<20, 1 << 40} {
		binary.LittleEndian.PutUint64(message[8:], claimed)
		binary.LittleEndian.PutUint64(message[16:], claimed)
		a, b := socketPair(t, unix.SOCK_STREAM)
		if _, err := a.Write(message); err != nil {
			t.Fatal(err)
		}
		if s, err := ReceiveSlab(b, g, false); !errors.Is(err, ErrMessage) || s != nil {
			t.Errorf("%d bytes of %d: %v, want ErrMessage", claimed, sharedBytes, err)
		}
		r.close(a, b)
	}
	r.close(c)
	if err := maker.Wait(); err != nil {
		t.Error(err)
	}
	r.close(g, d)
}

// The same of a descriptor, whose size the driver knows.
func TestAVMMSlabThatClaimsMoreThanItHasIsRefused(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	s := r.slab(g, 2<<20)
	e, err := s.Export()
	if err != nil {
		t.Fatal(err)
	}
	e.Bytes, e.MappedBytes = 4<<20, 4<<20
	if _, err := g.Import(e, false); errorOf(err) == nil || errorOf(err).CUDA == 0 {
		t.Errorf("%v, want an error of CUDA", err)
	}
	r.close(e, s, g, d)
}
