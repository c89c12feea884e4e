package stub_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stokerio/stoker/cufile/stub"
)

// TestReadsGoTheRouteOfMachineVersionAndSettings reads 3 times and asks the state which
// way. none means that the driver does not open, with the code given.
func TestReadsGoTheRouteOfMachineVersionAndSettings(t *testing.T) {
	const none = stub.Unaligned
	tests := []struct {
		name    string
		version stub.Version
		route   string // STOKER_STUB_ROUTE
		json    string
		faults  string
		want    stub.Route
		code    string
	}{
		{name: "P2PDMA", version: stub.V1_15, route: "p2p", want: stub.PCIP2PDMA},
		{name: "P2PDMA came with 1.13", version: stub.V1_7, route: "p2p", want: none, code: "5001"},
		{name: "nvidia-fs in an old library", version: stub.V1_7, route: "nvfs", want: stub.NvidiaFS},
		{name: "no way", version: stub.V1_15, route: "none", want: none, code: "5001"},
		{name: "silent compat", version: stub.V1_15, route: "p2p", faults: "compat", want: stub.POSIX},
		{
			name: "compat allowed by a file", version: stub.V1_13, route: "none",
			json: "{ // as NVIDIA ships it\n \"properties\": { \"allow_compat_mode\" : true } }", want: stub.POSIX,
		},
		{
			name: "compat in a comment only", version: stub.V1_13, route: "none",
			json: "{ \"properties\": { // \"allow_compat_mode\": true,\n \"allow_compat_mode\": false } }", want: none, code: "5001",
		},
		{
			name: "one of two keys off", version: stub.V1_13, route: "p2p",
			json: `{"properties": {"allow_compat_mode": true, "use_pci_p2pdma": true}, "fs": {"nvme": {"use_pci_p2pdma": false}}}`, want: stub.POSIX,
		},
		{name: "not JSON", version: stub.V1_13, route: "p2p", json: `{"properties": {`, want: none, code: "5002"},
	}
	faulty, file := program(t, "faults"), patternFile(t)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := libraries(t, stub.Options{Version: test.version})
			s := newState(t)
			extra := append(s.Environment(), "STOKER_STUB_ROUTE="+test.route, "STOKER_STUB_FAULTS="+test.faults)
			if test.json != "" {
				path := filepath.Join(t.TempDir(), "cufile.json")
				if err := os.WriteFile(path, []byte(test.json), 0o600); err != nil {
					t.Fatal(err)
				}
				extra = append(extra, "CUFILE_ENV_PATH_JSON="+path)
			}
			r := run(t, extra, faulty, l.CUDA, l.CUFile, file, "3")
			if test.want == none {
				if r.err == nil || !strings.Contains(r.stderr, test.code) {
					t.Errorf("ended with %v, want %s\n%s", r.err, test.code, r.stderr)
				}
				return
			}
			if r.err != nil {
				t.Fatalf("%v\n%s", r.err, r.stderr)
			}
			for route := stub.PCIP2PDMA; route <= stub.POSIX; route++ {
				want := 0
				if route == test.want {
					want = 3
				}
				if got := s.Reads(route); got != want {
					t.Errorf("route %d: %d reads, want %d", route, got, want)
				}
			}
		})
	}
}
