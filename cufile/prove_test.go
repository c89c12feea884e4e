//go:build cgo && linux

package cufile

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stokerio/stoker/cufile/stub"
)

func TestProveTellsTheRoutesApart(t *testing.T) {
	for _, test := range []struct {
		name    string
		version stub.Version
		route   string
		fault   stub.Fault
		level   int
		want    Route
		reason  string
	}{
		{"p2pdma", stub.V1_15, "p2p", stub.Fault{}, 3, PCIP2PDMA, "by PCI P2PDMA"},
		{"p2pdma with vectors in the statistics", stub.V1_19, "p2p", stub.Fault{}, 3, PCIP2PDMA, "by PCI P2PDMA"},
		{"nvidia-fs", stub.V1_16, "nvfs", stub.Fault{}, 3, NvidiaFS, "by nvidia-fs"},
		{"silent compat mode", stub.V1_15, "p2p", stub.Fault{Kind: stub.Compat}, 3, NotDirect, "through host memory"},
		{"no counters", stub.V1_13, "p2p", stub.Fault{}, 3, Unknown, "cuFile 1.13 has none"},
		{"no counters, no version", stub.V1_0, "nvfs", stub.Fault{}, 3, Unknown, "came with 1.15"},
		{"counting too little", stub.V1_15, "p2p", stub.Fault{}, 1, Unknown, "Options.Statistics 3, not 1"},
		{"not counting", stub.V1_15, "p2p", stub.Fault{}, 0, Unknown, "Options.Statistics 0"},
		{"the file refused", stub.V1_15, "p2p", stub.Fault{Op: "cuFileHandleRegister", Value: 5008}, 3, NotDirect, "5008"},
		{"the slab refused", stub.V1_15, "p2p", stub.Fault{Op: "cuFileBufRegister", Value: 5036}, 3, NotDirect, "5036"},
		{"a read refused", stub.V1_15, "p2p", stub.Fault{Op: "cuFileRead", Value: 5030, After: 7}, 3, NotDirect, "/run/udev"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("STOKER_STUB_ROUTE", test.route)
			r := newRig(t, test.version)
			faulty := test.fault != (stub.Fault{})
			if faulty {
				r.faults(test.fault)
			}
			options := r.options()
			options.Statistics = test.level
			p := r.prove(options)
			if p.Route != test.want || !strings.Contains(p.Reason, test.reason) || !p.Stub {
				t.Errorf("%s: %s, want %s with %q", p.Route, p.Reason, test.want, test.reason)
			}
			if faulty && test.fault.Kind != stub.Compat {
				r.fired(1)
			}
			if (p.Refusal != nil) != (test.fault.Op != "") {
				t.Errorf("refusal %v", p.Refusal)
			}
			if p.Refusal == nil && (p.Reads != proofReads || p.Bytes != proofBytes) {
				t.Errorf("%d reads of %d bytes", p.Reads, p.Bytes)
			}
		})
	}
}

// prove opens, proves a folder of its own, which must be empty afterwards, and closes.
func (r *rig) prove(options Options) Proof {
	r.t.Helper()
	d, err := Open(options)
	if err != nil {
		r.t.Fatal(err)
	}
	g := r.gpu(d)
	dir := r.t.TempDir()
	p, err := d.Prove(r.t.Context(), dir, g)
	if err != nil {
		r.t.Errorf("Prove: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		r.t.Errorf("%d files are left, %v", len(left), err)
	}
	r.close(g, d)
	return p
}

func TestProveFindsAWrongByte(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	r.faults(stub.Fault{Op: "cuFileRead", Kind: stub.Corrupt, Value: 4711, After: 3})
	p, err := d.Prove(t.Context(), t.TempDir(), g)
	if !errors.Is(err, ErrWrongBytes) || p.Route != Unknown || !strings.Contains(err.Error(), "byte 3150439 of") {
		t.Errorf("%s, %v, want a wrong byte at 3 MiB + 4711", p.Route, err)
	}
	r.fired(1)
	r.faults()
	r.close(g, d)
}

func TestProveSaysWhyItCouldNotAsk(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	if _, err := d.Prove(t.Context(), filepath.Join(t.TempDir(), "missing"), g); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Prove(cancelled, t.TempDir(), g); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	r.faults(stub.Fault{Op: "cuMemCreate", Kind: stub.OOM})
	if p, err := d.Prove(t.Context(), t.TempDir(), g); errorOf(err) == nil || errorOf(err).CUDA != 2 || p.Route != Unknown {
		t.Errorf("no memory: %s, %v", p.Route, err)
	}
	r.fired(1)
	r.faults()
	r.close(g, d)
	plain, err := Open(Options{Device: r.device, NoStorage: true})
	if err != nil {
		t.Fatal(err)
	}
	g = r.gpu(plain)
	if _, err := plain.Prove(t.Context(), t.TempDir(), g); !errors.Is(err, ErrNoStorage) {
		t.Errorf("no storage library: %v", err)
	}
	r.close(g, plain)
}

func TestProveMentionsCompatModeWhereNothingIsCounted(t *testing.T) {
	r := newRig(t, stub.V1_13)
	options := r.options()
	if p := r.prove(options); strings.Contains(p.Reason, "compatibility mode is on") {
		t.Errorf("compat mode off: %s", p.Reason)
	}
	options.Parameters.AllowCompat = true
	if p := r.prove(options); p.Route != Unknown || !strings.Contains(p.Reason, "compatibility mode is on") {
		t.Errorf("compat mode on: %s: %s", p.Route, p.Reason)
	}
}

// With no route and compatibility mode off the library refuses, in whichever call.
func TestNoRouteIsNoSilence(t *testing.T) {
	t.Setenv("STOKER_STUB_ROUTE", "none")
	for _, version := range stub.Versions() {
		r := newRig(t, version)
		d, err := Open(r.options())
		if err != nil {
			if errorOf(err) == nil || errorOf(err).Code == 0 {
				t.Errorf("%s: %v", version, err)
			}
			continue
		}
		r.close(d)
		if p := r.prove(r.options()); p.Route != NotDirect || p.Refusal == nil {
			t.Errorf("%s: %s: %s", version, p.Route, p.Reason)
		}
	}
}

// A slab that cannot be closed must not turn wrong bytes into a refusal.
func TestProveSaysThatBytesAreWrongWhateverElseFails(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	r.faults(stub.Fault{Op: "cuFileRead", Kind: stub.Corrupt, Value: 4711}, stub.Fault{Op: "cuFileBufDeregister", Value: 5030})
	p, err := d.Prove(t.Context(), t.TempDir(), g)
	if !errors.Is(err, ErrWrongBytes) || p.Route != Unknown || p.Refusal != nil || !strings.Contains(err.Error(), "cuFileBufDeregister") {
		t.Errorf("%s: %s, %v, want wrong bytes and the failed close", p.Route, p.Reason, err)
	}
	r.fired(2)
	r.faults()
	r.close(g, d)
}

// A failed close is no refusal: the reads have shown the route by then.
func TestProveAnswersBesideAFailedClose(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	g := r.gpu(d)
	r.faults(stub.Fault{Op: "cuFileBufDeregister", Value: 5030})
	p, err := d.Prove(t.Context(), t.TempDir(), g)
	if p.Route != PCIP2PDMA || p.Refusal != nil || errorOf(err) == nil || errorOf(err).Op != "cuFileBufDeregister" {
		t.Errorf("%s: %s, %v, want p2pdma and the failed close", p.Route, p.Reason, err)
	}
	r.fired(1)
	r.faults()
	r.close(g, d)
}

func TestCountersThatGoBackProveNothing(t *testing.T) {
	for _, after := range []DeviceStatistics{{}, {P2PReads: 116}, {P2PReads: 116, UnalignedReads: 100}, {P2PReads: 116, PosixReads: 100}} {
		p := Proof{Reads: proofReads}
		p.judge(DeviceStatistics{P2PReads: 100, PosixReads: 100, UnalignedReads: 100}, after)
		if p.Route != Unknown || p.Counted || !strings.Contains(p.Reason, "set back") {
			t.Errorf("%+v: %s: %s", after, p.Route, p.Reason)
		}
	}
}

func TestEachProofHasBytesOfItsOwn(t *testing.T) {
	dir := t.TempDir()
	first, _, err1 := proofFile(dir)
	second, _, err2 := proofFile(dir)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if firstDifference(first[:64], second[:64]) < 0 {
		t.Error("two proofs have the same bytes: one could read what the other left")
	}
}

// tmpfs before Linux 6.6 is such a file system. No kernel here has one.
func TestAFileSystemWithoutDirectIOIsNotDirect(t *testing.T) {
	var p Proof
	err := p.refused(&Error{Op: "open", Object: "/tmp/file", Errno: syscall.EINVAL})
	if err != nil || p.Route != NotDirect || p.Refusal == nil || !strings.Contains(p.Reason, "direct I/O") {
		t.Errorf("%s: %s, %v", p.Route, p.Reason, err)
	}
	p = Proof{}
	if err := p.refused(&Error{Op: "open", Object: "/tmp/file", Errno: syscall.EMFILE}); err == nil || p.Route != Unknown {
		t.Errorf("%s, %v: too many open files say nothing of the route", p.Route, err)
	}
}
