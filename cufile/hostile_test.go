//go:build cgo && linux

package cufile

import (
	"encoding/binary"
	"errors"
	"strings"
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

// The memory is a slab's, and it lies on another GPU than the receiver's.
func TestASlabIsImportedOnItsOwnGPUAlone(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	all, err := d.Devices()
	if err != nil {
		t.Fatal(err)
	}
	g, err := d.Device(all[0].UUID)
	if err != nil {
		t.Fatal(err)
	}
	other, err := d.Device(all[1].UUID)
	if err != nil {
		t.Fatal(err)
	}
	s := r.slab(g, 2<<20)
	e, err := s.Export()
	if err != nil {
		t.Fatal(err)
	}
	if wrong, err := other.Import(e, false); wrong != nil || err == nil || !strings.Contains(err.Error(), "it lies on GPU "+g.UUID().String()) {
		t.Errorf("%v, want an error that names %s", err, g.UUID())
	}
	r.close(e, s, other, g, d)
}

// Of a descriptor the driver knows the size.
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

// Whoever looks at who is there (SO_PASSCRED) gets credentials beside the descriptor,
// and both need room.
func TestASlabComesBesideCredentials(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	s := r.slab(g, 2<<20)
	a, b := socketPair(t, unix.SOCK_STREAM)
	raw, err := b.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if controlErr := raw.Control(func(descriptor uintptr) {
		err = unix.SetsockoptInt(int(descriptor), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	}); controlErr != nil || err != nil {
		t.Fatal(controlErr, err)
	}
	if err := SendSlab(a, s); err != nil {
		t.Fatal(err)
	}
	other, err := ReceiveSlab(b, g, false)
	if err != nil {
		t.Fatal(err)
	}
	r.close(other, s, a, b, g, d)
}

// The open of a pipe without a writer would not return, and Driver.Close would wait
// for it.
func TestOpenFileRefusesWhatIsNoFile(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	for _, path := range []string{pipe(t), t.TempDir(), "/dev/null"} {
		for _, buffered := range []bool{false, true} {
			f, err := d.OpenFile(path, FileOptions{Buffered: buffered})
			if e := errorOf(err); f != nil || e == nil || e.Op != "open" || e.Object != path || !strings.Contains(e.Detail, "regular file") {
				t.Errorf("%s, buffered %v: %v", path, buffered, err)
			}
		}
	}
	r.close(d)
}

// Memory of Go's own begins anywhere, and the driver would hold it in place after Go
// has given it to somebody else.
func TestRegisterHostRefusesWhatIsNoMapping(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	memory, err := unix.Mmap(-1, 0, 1<<16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range [][]byte{memory[1:], memory[4095:]} {
		if h, err := g.RegisterHost(wrong); !errors.Is(err, ErrRange) || h != nil {
			t.Errorf("memory that begins within a page: %v, want ErrRange", err)
		}
	}
	if err := unix.Munmap(memory); err != nil {
		t.Error(err)
	}
	r.close(g, d)
}
