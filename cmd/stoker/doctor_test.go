package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stokerio/stoker/cufile"
	"github.com/stokerio/stoker/cufile/doctor"
	"github.com/stokerio/stoker/cufile/inventory"
	"github.com/stokerio/stoker/loader/api"
)

// gpuMachine has a GPU that was read into directly; see the tests of cufile/doctor for
// every state of every line.
func gpuMachine() *doctor.Machine {
	uuid := cufile.UUID{0x53, 0x54, 0x55, 0x42, 15: 1}
	files := fstest.MapFS{}
	for name, text := range map[string]string{
		"proc/sys/kernel/osrelease":                 "6.8.0-45-generic\n",
		"proc/kallsyms":                             "0000000000000000 d p2pdma_pgmap_ops\n",
		"proc/driver/nvidia/version":                "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n",
		"proc/driver/nvidia/params":                 "RegistryDwords: \"RMForceStaticBar1=1;RmForceDisableIomapWC=1;\"\n",
		"proc/self/mountinfo":                       "25 24 0:23 / /dev/shm rw - tmpfs tmpfs rw\n40 27 259:1 / /nvme0 rw,noatime - xfs /dev/nvme0n1 rw\n",
		"proc/meminfo":                              "MemTotal: 263913472 kB\n",
		"run/udev/data/b259:1":                      "",
		"proc/self/cgroup":                          "0::/\n",
		"sys/fs/cgroup/cgroup.controllers":          "memory\n",
		"sys/class/block/loop0/size":                "0\n",
		"etc/cufile.json":                           "// comment\n{\"properties\":{\"use_pci_p2pdma\":true},\"block\":{\"nvme\":{\"use_pci_p2pdma\":true}}}",
		"sys/module/nvme_core/parameters/multipath": "N\n",
	} {
		files[name] = &fstest.MapFile{Data: []byte(text)}
	}
	for name, target := range map[string]string{
		"proc/self/ns/ipc":                 "ipc:[4026531839]",
		"proc/self/ns/pid":                 "pid:[4026531836]",
		"sys/bus/pci/devices/0000:3c:00.0": "../../../devices/pci0000:3a/0000:3c:00.0",
	} {
		files[name] = &fstest.MapFile{Data: []byte(target), Mode: fs.ModeSymlink | 0o777}
	}
	return &doctor.Machine{
		Files: files, Lookup: func(string) (string, bool) { return "", false }, Architecture: "amd64",
		Wanted:      doctor.Wanted{GDS: "auto", SlabBytes: 2 << 30},
		Directories: []doctor.Directory{{Path: "/nvme0/stoker", OffsetAlignment: 512, MemoryAlignment: 4, FreeBytes: 3 << 40, Files: 10, Bytes: 600 << 30, CachedBytes: 60 << 30, Counted: true}},
		GPU: doctor.GPU{
			Versions: cufile.Versions{CUDA: 13000, CuFile: 1150, DevicePath: "/usr/lib/x86_64-linux-gnu/libcuda.so.1", StoragePath: "/usr/local/cuda/lib64/libcufile.so.0"},
			Devices: []cufile.DeviceInfo{{
				UUID: uuid, Name: "NVIDIA H100 80GB HBM3", PCI: "0000:3c:00.0", Bytes: 80 << 30, Major: 9, VirtualMemory: true, DescriptorExport: true, DirectVirtualMemory: true,
			}},
		},
		NVML: inventory.Inventory{GPUs: []inventory.GPU{{
			UUID: uuid.String(), Memory: &inventory.Memory{Total: 80 << 30, Free: 79 << 30}, BAR1: &inventory.Memory{Total: 128 << 30, Free: 127 << 30},
		}}},
		Probes: &doctor.Probes{
			Sharing: []doctor.SharingProbe{{Device: uuid.String(), Way: "descriptor"}},
			Routes:  []doctor.RouteProbe{{Directory: "/nvme0/stoker", Proof: cufile.Proof{Route: cufile.PCIP2PDMA, Reason: "all reads went by P2PDMA", Counted: true, P2PReads: 16}}},
			Speed:   &doctor.SpeedProbe{Upload: 55e9, Disk: 6.5e9, Direct: 6.4e9},
			Python:  doctor.PythonProbe{Interpreter: "python3", Python: "3.11.2", Torch: "2.13.0", Tensor: true},
		},
	}
}

// bareMachine has no GPU.
func bareMachine() *doctor.Machine {
	m := gpuMachine()
	m.GPU, m.NVML, m.Probes = doctor.GPU{Err: cufile.ErrNoDriver}, inventory.Inventory{Absent: "there is none"}, nil
	delete(m.Files.(fstest.MapFS), "proc/driver/nvidia/version")
	return m
}

// stubMachine is one that the tests of the GPU path have.
func stubMachine() *doctor.Machine {
	m := gpuMachine()
	m.GPU.Versions.Stub, m.Probes.Routes[0].Proof.Stub = true, true
	return m
}

// brokenMachine has a settings file that is no JSON, and reads through POSIX unnoticed.
func brokenMachine() *doctor.Machine {
	m := gpuMachine()
	m.Files.(fstest.MapFS)["etc/cufile.json"].Data = []byte("{ \x1b[2J")
	m.Probes.Routes[0].Proof = cufile.Proof{Route: cufile.NotDirect, Reason: "the library answered through POSIX", Counted: true, PosixReads: 16}
	return m
}

func TestDoctorIsGolden(t *testing.T) {
	for name, test := range map[string]struct {
		machine *doctor.Machine
		args    []string
		screen  bool
	}{
		"doctor":                 {gpuMachine(), []string{"--prove"}, false},
		"doctor-json":            {gpuMachine(), []string{"--prove", "--json"}, false},
		"doctor-colours":         {gpuMachine(), []string{"--prove"}, true},
		"doctor-no-gpu":          {bareMachine(), nil, false},
		"doctor-stub":            {stubMachine(), []string{"--prove"}, false},
		"doctor-broken":          {brokenMachine(), []string{"--prove"}, false},
		"doctor-require":         {bareMachine(), []string{"--gds", "require"}, false},
		"doctor-bad-gds":         {bareMachine(), []string{"--gds", "maybe"}, false},
		"help-doctor":            {bareMachine(), []string{"--help"}, false},
		"doctor-nothing-to-give": {bareMachine(), []string{"/nvme0"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			p.screen = test.screen
			p.look = func(_ context.Context, o doctor.Options) (*doctor.Machine, error) {
				test.machine.Wanted = o.Wanted
				return test.machine, nil
			}
			golden(t, name, p.run(t, append([]string{"doctor"}, test.args...)...))
		})
	}
}

func TestDoctorCompletesWhatIsAskedOfTheMachine(t *testing.T) {
	golden(t, "complete-gds", newPlace(t).run(t, "__complete", "doctor", "--gds", ""))
}

// asked is what `stoker doctor` looks at, by its arguments.
func (p *place) asked(t *testing.T, args ...string) (o doctor.Options, got outcome) {
	t.Helper()
	p.look = func(_ context.Context, asked doctor.Options) (*doctor.Machine, error) {
		o = asked
		return bareMachine(), nil
	}
	got = p.run(t, append([]string{"doctor"}, args...)...)
	return o, got
}

func TestDoctorLooksAtTheDirectoriesThatMatter(t *testing.T) {
	file := filepath.Join(t.TempDir(), "stokerd.yaml")
	if err := os.WriteFile(file, []byte("flash:\n  devices:\n    - {path: /nvme0/stoker}\n    - {path: /nvme1/stoker}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	running := newPlace(t)
	node := newFakeNode()
	node.cache = api.Cache{Devices: []api.CacheDevice{{Path: "/nvme2/stoker"}}}
	running.serveAPI(t, node)
	for _, test := range []struct {
		place *place
		args  []string
		want  []string
	}{
		{newPlace(t), []string{"--dir", "/a", "--dir", "/b"}, []string{"/a", "/b"}},
		{newPlace(t), []string{"--config", file}, []string{"/nvme0/stoker", "/nvme1/stoker"}},
		{newPlace(t), []string{"--config", file, "--dir", "/a"}, []string{"/a"}},
		{newPlace(t), nil, nil},
		{running, nil, []string{"/nvme2/stoker"}},
	} {
		if o, got := test.place.asked(t, test.args...); !slices.Equal(o.Directories, test.want) || got.code != exitOK {
			t.Errorf("%q: %q, want %q; %+v", test.args, o.Directories, test.want, got)
		}
	}
}

func TestDoctorTriesNothingUnlessAsked(t *testing.T) {
	if o, _ := newPlace(t).asked(t, "--slabs", "4GiB"); o.Prove != nil || o.Wanted.SlabBytes != 4<<30 {
		t.Errorf("%+v", o)
	}
	o, _ := newPlace(t).asked(t, "--prove", "--python", "/opt/python")
	if o.Prove == nil || o.Prove.Python != "/opt/python" || !slices.Equal(o.Prove.Peer[1:], []string{"doctor", mapSlabVerb}) {
		t.Errorf("%+v", o.Prove)
	}
}

func TestDoctorsFailuresAreFailures(t *testing.T) {
	p := newPlace(t)
	p.look = func(context.Context, doctor.Options) (*doctor.Machine, error) {
		return nil, errors.New("it does not close")
	}
	if got := p.run(t, "doctor"); got.code != exitError || !strings.Contains(got.err, "it does not close") {
		t.Errorf("%+v", got)
	}
	if got := newPlace(t).run(t, "doctor", "--config", "/nowhere.yaml"); got.code != exitError || !strings.Contains(got.err, "/nowhere.yaml") {
		t.Errorf("%+v", got)
	}
}

// A driver's call may hang, and no context ends it.
func TestDoctorCanBeInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	hangs := make(chan struct{})
	defer close(hangs)
	began := time.Now()
	_, err := interruptible(ctx, time.Millisecond, func() (*doctor.Machine, error) {
		cancel()
		<-hangs
		return nil, nil
	})
	if !errors.Is(err, context.Canceled) || time.Since(began) > endsWithin {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

// The hidden verb answers in JSON whatever happens, as another program reads it.
func TestMapSlabAnswersWhatWentWrong(t *testing.T) {
	t.Setenv(cufile.DeviceLibraryVariable, filepath.Join(t.TempDir(), "libcuda.so.1"))
	var answer struct{ Error string }
	got := newPlace(t).run(t, "doctor", mapSlabVerb, "no UUID")
	if err := json.Unmarshal([]byte(got.out), &answer); err != nil || answer.Error == "" || got.code != exitOK {
		t.Errorf("%+v: %v", got, err)
	}
}
