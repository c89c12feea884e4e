package stub_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stokerio/stoker/cufile/stub"
	"pgregory.net/rapid"
)

func newState(t *testing.T) *stub.State {
	t.Helper()
	s, err := stub.NewState(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestDeviceMemoryOutlivesEitherProcess(t *testing.T) {
	sharing := program(t, "sharing")
	l := libraries(t, stub.Options{Version: stub.V1_15})
	for _, name := range []string{"kill-exporter-first", "kill-importer-first", "legacy-close-first", "legacy-free-first"} {
		t.Run(name, func(t *testing.T) {
			s := newState(t)
			for range 3 { // on one state: what the dead held is swept
				wantFine(t, run(t, s.Environment(), sharing, l.CUDA, l.CUFile, name))
				if n := s.DeviceBytes(0); n != 0 {
					t.Errorf("%d bytes of device memory are held by nobody", n)
				}
				if n := s.Live(""); n != 0 {
					t.Errorf("%d things of dead processes are alive", n)
				}
			}
		})
	}
}

func TestLibrariesMakeTheStateFileThemselves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	check, file := program(t, "check"), patternFile(t)
	l := libraries(t, stub.Options{Version: stub.V1_15})
	wantFine(t, run(t, []string{"STOKER_STUB_STATE=" + path}, check, l.CUDA, l.CUFile, file))
	s, err := stub.NewState(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if n := s.Reads(stub.NvidiaFS); n != 4 {
		t.Errorf("%d reads through nvidia-fs, want 4", n)
	}
}

func TestNewStateRefusesOtherFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	for name, data := range map[string][]byte{"short": []byte("hello"), "other": append([]byte("NOT MINE\x01"), make([]byte, 204791)...)} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := stub.NewState(path); err == nil || !strings.Contains(err.Error(), "remove it") {
			t.Errorf("%s: %v, error %v", name, s, err)
		}
	}
}

func TestSetFaultsRefusesMoreThanFit(t *testing.T) {
	s := newState(t)
	if err := s.SetFaults(make([]stub.Fault, 65)...); err == nil {
		t.Error("65 faults were taken")
	}
	if err := s.SetFaults(stub.Fault{Op: strings.Repeat("x", 4000), Value: 1}); err == nil {
		t.Error("a fault of 4000 bytes was taken")
	}
}

func TestFaultsPrintInTheSyntaxOfTheVariable(t *testing.T) {
	tests := map[string]stub.Fault{
		"compat":                       {Kind: stub.Compat},
		"cuMemCreate:2:0:1":            {Op: "cuMemCreate", Value: 2},
		"cuFileRead:eio:3:2":           {Op: "cuFileRead", Kind: stub.EIO, After: 3, Times: 2},
		"*:latency=50:0:*":             {Op: "*", Kind: stub.Latency, Value: 50, Times: stub.Always},
		"cuFileBufRegister:5011/2:0:1": {Op: "cuFileBufRegister", Value: 5011, CUDA: 2},
		"cuFileRead:errno=28:0:1":      {Op: "cuFileRead", Kind: stub.Errno, Value: 28},
		"cuMemcpyDtoH:corrupt=7:0:1":   {Op: "cuMemcpyDtoH", Kind: stub.Corrupt, Value: 7},
	}
	for want, f := range tests {
		if got := f.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// model says what testdata/faults.c prints under faults, and how often each fired.
func model(faults []stub.Fault, calls int) (lines []string, fired []int) {
	fired = make([]int, len(faults))
	seen := make([]int, len(faults))
	due := func(i int, op string) bool {
		f := faults[i]
		if f.Kind == stub.Compat || f.Op != "*" && f.Op != op {
			return false
		}
		n := seen[i]
		seen[i]++
		times := max(f.Times, 1)
		if n < f.After || f.Times != stub.Always && n >= f.After+times {
			return false
		}
		fired[i]++
		return true
	}
	for range calls {
		lines = append(lines, modelRead(faults, due))
	}
	for range calls {
		lines = append(lines, modelCreate(faults, due))
	}
	return lines, fired
}

func modelRead(faults []stub.Fault, due func(int, string) bool) string {
	bytes, damaged := 2*4096, -1
	for i, f := range faults {
		if !due(i, "cuFileRead") {
			continue
		}
		switch f.Kind {
		case stub.Code:
			return fmt.Sprintf("%d 0 -1", -f.Value)
		case stub.EIO:
			return fmt.Sprintf("-1 %d -1", syscall.EIO)
		case stub.EINTR:
			return fmt.Sprintf("-1 %d -1", syscall.EINTR)
		case stub.Short:
			bytes = 4096
		case stub.Corrupt:
			damaged = f.Value
		}
	}
	if damaged >= bytes {
		damaged = -1
	}
	return fmt.Sprintf("%d 0 %d", bytes, damaged)
}

func modelCreate(faults []stub.Fault, due func(int, string) bool) string {
	for i, f := range faults {
		if due(i, "cuMemCreate") {
			return fmt.Sprint(f.Value)
		}
	}
	return "0"
}

// The first cuMemCreate is of the program's own slab: it must not fail, so faults of
// cuMemCreate begin after it.
func drawFault(t *rapid.T) stub.Fault {
	f := stub.Fault{
		After: rapid.IntRange(0, 4).Draw(t, "after"),
		Times: rapid.SampledFrom([]int{stub.Always, 0, 1, 3}).Draw(t, "times"),
	}
	if rapid.Bool().Draw(t, "create") {
		f.Op, f.Value = "cuMemCreate", rapid.SampledFrom([]int{1, 2, 801}).Draw(t, "code")
		f.After++
		return f
	}
	f.Op = "cuFileRead"
	f.Kind = rapid.SampledFrom([]stub.Kind{stub.Code, stub.EIO, stub.EINTR, stub.Short, stub.Corrupt}).Draw(t, "kind")
	switch f.Kind {
	case stub.Code:
		f.Value = rapid.IntRange(5001, 5049).Draw(t, "code")
	case stub.Corrupt:
		f.Value = rapid.IntRange(0, 9000).Draw(t, "offset")
	}
	return f
}

func TestFaultsFireAsTheModelSays(t *testing.T) {
	faulty, file := program(t, "faults"), patternFile(t)
	l := libraries(t, stub.Options{Version: stub.V1_15})
	s := newState(t)
	const calls = 8
	rapid.Check(t, func(rt *rapid.T) {
		faults := rapid.SliceOfN(rapid.Custom(drawFault), 0, 4).Draw(rt, "faults")
		lines, fired := model(shifted(faults), calls)
		byState := rapid.Bool().Draw(rt, "by state")
		extra := []string{"STOKER_STUB_FAULTS=" + stub.Faults(faults...)}
		if byState {
			if err := s.SetFaults(faults...); err != nil {
				rt.Fatal(err)
			}
			extra = s.Environment()
		}
		r := run(t, extra, faulty, l.CUDA, l.CUFile, file, fmt.Sprint(calls))
		if want := strings.Join(lines, "\n") + "\n"; r.err != nil || r.stdout != want {
			rt.Fatalf("faults %v: %v\n%s%s\nwant\n%s", faults, r.err, r.stdout, r.stderr, want)
		}
		for i := range faults {
			if byState && s.Fired(i) != fired[i] {
				rt.Fatalf("fault %v fired %d times, want %d", faults[i], s.Fired(i), fired[i])
			}
		}
	})
}

// shifted takes the program's own cuMemCreate out of the count.
func shifted(faults []stub.Fault) []stub.Fault {
	out := append([]stub.Fault(nil), faults...)
	for i := range out {
		if out[i].Op == "cuMemCreate" {
			out[i].After--
		}
	}
	return out
}
