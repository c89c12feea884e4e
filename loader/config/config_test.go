package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func testEnvironment(variables map[string]string) Environment {
	return Environment{
		Lookup:      func(name string) (string, bool) { value, ok := variables[name]; return value, ok },
		UserID:      1000,
		CPUs:        8,
		MemoryBytes: 64 << 30,
		Writable:    func(string) bool { return false },
	}
}

func writeFile(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadOverlaysTheDefaults(t *testing.T) {
	path := writeFile(t, `
session:
  readers: 3
  ring_bytes_max: 64mb
  batch_bytes_max: "1.5 GiB"
  ring_bytes_total: 1073741824
shutdown_timeout: 1m30s
flash:
  devices:
    - {path: /nvme0/stoker, limit: 800GiB}
    - path: /nvme1/stoker
  scrub_rate: 1MiB
gpu:
  cufile_library: /opt/cuda/lib64/libcufile.so.0
pyroscope:
  tags: {rack: r7}
`, 0o644)
	got, err := Load(path, testEnvironment(map[string]string{"HOME": "/home/ada"}))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.RuntimeDir = "/tmp/stoker-1000"
	want.DataDir = "/home/ada/.local/share/stoker"
	want.Session.Readers = 3
	want.Session.RingBytesMax = 64 << 20
	want.Session.RingBytesTotal = 1 << 30
	want.Session.BatchBytesMax = 3 << 29
	want.ShutdownTimeout = 90 * time.Second
	want.Flash.Devices = []FlashDevice{{Path: "/nvme0/stoker", Limit: 800 << 30}, {Path: "/nvme1/stoker"}}
	want.Flash.ScrubRate = 1 << 20
	want.GPU.CuFileLibrary = "/opt/cuda/lib64/libcufile.so.0"
	want.Pyroscope.Tags = map[string]string{"rack": "r7"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v, want\n%+v", got, want)
	}
}

func TestSectionsWithoutAValueKeepTheirDefaults(t *testing.T) {
	for _, text := range []string{
		"", "\n# nothing\n", "---\n", "{}", "session:\n", "session:\n  # readers: 3\nlog:\n", "session:\n  readers:\nio: ~\n",
		"session: {sessions_max: null}",
	} {
		cfg := Default()
		if err := decode([]byte(text), &cfg); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if !reflect.DeepEqual(cfg, Default()) {
			t.Errorf("%q changed the defaults: %+v", text, cfg)
		}
	}
}

func TestLoadRefusesAndSaysWhere(t *testing.T) {
	for text, want := range map[string]string{
		"log:\n  levle: info\n":                   "line 2, column 3: unknown field \"levle\"",
		"nonsense: 1\n":                           "line 1, column 1: unknown field \"nonsense\"",
		"nonsense:\n":                             "unknown field \"nonsense\"",
		"readers:\n":                              "unknown field \"readers\"",
		"log: {level: info, level: debug}\n":      "line 1, column 20: mapping key \"level\" already defined",
		"session:\n  readers: many\n":             "line 2, column 12",
		"session:\n  ring_bytes_max: 64 apples\n": "line 2, column 19: \"64 apples\" is no size",
		"session:\n  ring_bytes_max: [1]\n":       "line 2, column 19: a size is a number",
		"shutdown_timeout: soon\n":                "soon",
		"shutdown_timeout: 10\n":                  "line 1",
		"log: info\n":                             "line 1",
		"flash: {devices: [{pth: /nvme}]}\n":      "line 1, column 20: unknown field \"pth\"",
		"flash: {devices: [/nvme]}\n":             "line 1",
		"flash: {devices: /nvme}\n":               "line 1",
		"- 1\n":                                   "line 1",
		"log: {\n":                                "line 1",
		"\tlog: x":                                "line 1",
		"log: {}\n---\nlog: {}\n":                 "more than one YAML document",
	} {
		path := writeFile(t, text, 0o644)
		_, err := Load(path, testEnvironment(nil))
		if err == nil {
			t.Errorf("%q was accepted", text)
			continue
		}
		if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v; want %q and the path", text, err, want)
		}
	}
}

func TestLoadNamesAFileThatItCannotRead(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(t.TempDir(), "absent"), t.TempDir(), pipe} {
		if _, err := Load(path, testEnvironment(nil)); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("Load(%q) = %v, want an error that names it", path, err)
		}
	}
	if _, err := Load(writeFile(t, strings.Repeat("#", fileBytesMax+1), 0o600), testEnvironment(nil)); err == nil {
		t.Error("a file above the limit was accepted")
	}
}

func TestDirectoriesFollowTheRule(t *testing.T) {
	for _, test := range []struct {
		variables     map[string]string
		writable      bool
		runtime, data string
	}{
		{map[string]string{"XDG_RUNTIME_DIR": "/run/user/7", "HOME": "/home/ada"}, true, "/run/user/7/stoker", "/home/ada/.local/share/stoker"},
		{map[string]string{"XDG_DATA_HOME": "/data/", "HOME": "/home/ada"}, false, "/tmp/stoker-1000", "/data/stoker"},
		{map[string]string{"XDG_RUNTIME_DIR": "relative", "XDG_DATA_HOME": "also", "HOME": "x"}, true, "/run/stoker", "/var/lib/stoker"},
		{map[string]string{"HOME": "/"}, false, "/tmp/stoker-1000", "/var/lib/stoker"},
		{map[string]string{"HOME": ""}, true, "/run/stoker", "/var/lib/stoker"},
		{nil, false, "/tmp/stoker-1000", "/var/lib/stoker"},
	} {
		env := testEnvironment(test.variables)
		env.Writable = func(directory string) bool { return test.writable && directory == "/run/stoker" }
		if got := RuntimeDir(env); got != test.runtime {
			t.Errorf("%v: runtime directory %s, want %s", test.variables, got, test.runtime)
		}
		if got := DataDir(env); got != test.data {
			t.Errorf("%v: data directory %s, want %s", test.variables, got, test.data)
		}
	}
	withSession := testEnvironment(map[string]string{"XDG_RUNTIME_DIR": "/run/user/7"})
	if got := fmt.Sprint(RuntimeDirs(withSession)); got != "[/run/user/7/stoker /run/stoker /tmp/stoker-1000]" {
		t.Errorf("clients look in %s", got)
	}
	if got := fmt.Sprint(RuntimeDirs(testEnvironment(nil))); got != "[/run/stoker /tmp/stoker-1000]" {
		t.Errorf("clients look in %s", got)
	}
	if got := RuntimeDir(Environment{}); got != "/tmp/stoker-0" {
		t.Errorf("empty environment: %s", got)
	}
}

func TestCompleteChoosesByTheMachine(t *testing.T) {
	for _, test := range []struct {
		cpus    int
		memory  int64
		readers int
		total   Bytes
	}{
		{1, 1 << 30, 1, 256 << 20}, {2, 8 << 30, 1, 2 << 30}, {4, 0, 3, 8 << 30}, {64, 1 << 40, 4, 8 << 30}, {0, 1 << 20, 1, 256 << 20},
	} {
		cfg := Default()
		cfg.Complete(Environment{CPUs: test.cpus, MemoryBytes: test.memory})
		if cfg.Session.Readers != test.readers || cfg.Session.RingBytesTotal != test.total {
			t.Errorf("%d cores, %d bytes: %d readers, %s of rings; want %d, %s",
				test.cpus, test.memory, cfg.Session.Readers, cfg.Session.RingBytesTotal, test.readers, test.total)
		}
		if err := cfg.Validate(); err != nil {
			t.Errorf("%d cores, %d bytes: %v", test.cpus, test.memory, err)
		}
	}
}

func TestSystemDescribesThisProcess(t *testing.T) {
	env := System(func(string) (string, bool) { return "", false })
	if env.CPUs < 1 || env.MemoryBytes < 1<<20 || env.UserID != os.Getuid() {
		t.Errorf("%+v", env)
	}
	dir := t.TempDir()
	if !env.Writable(dir) || !env.Writable(filepath.Join(dir, "new")) || env.Writable(filepath.Join(dir, "a", "b")) {
		t.Error("Writable does not tell what can be made")
	}
	if got := memoryBytes(writeFile(t, "1048576\n", 0o600)); got != 1<<20 {
		t.Errorf("memory under a limit of 1 MiB: %d", got)
	}
	for _, text := range []string{"max\n", "", "-3"} {
		if got := memoryBytes(writeFile(t, text, 0o600)); got != memoryBytes("/nowhere") {
			t.Errorf("memory under limit %q: %d", text, got)
		}
	}
}

func TestValidateReportsEveryConflictAtOnce(t *testing.T) {
	cfg := Default()
	cfg.RuntimeDir = "/" + strings.Repeat("r", 100)
	cfg.DataDir = "relative"
	cfg.Log = Log{Level: "loud", Format: "xml"}
	cfg.Session = Session{Readers: 999, Slots: 2, RingBytesMax: 4 << 20, RingBytesTotal: 2 << 20, SessionsMax: 1, SessionsPerClientMax: 2}
	cfg.IO = IO{ColdReads: 0, OpenFiles: -1}
	cfg.Prefetch.WindowBytes, cfg.Prefetch.Workers, cfg.Prefetch.Epsilon, cfg.Prefetch.HedgeShare = 1, 0, math.NaN(), math.Inf(1)
	cfg.Flash = Flash{ScrubRate: 1, Devices: []FlashDevice{{Path: "nvme", Limit: 1}}}
	cfg.GPU = GPU{CUDALibrary: "libcuda.so.1", CuFileLibrary: "/lib\x00cufile.so.0"}
	cfg.API = API{Listen: "0.0.0.0:80"}
	cfg.Pyroscope = Pyroscope{ServerAddress: "http://ada:hunter2@host", BasicAuthUser: "u"}
	cfg.ShutdownTimeout = time.Hour
	var invalid *Invalid
	if err := cfg.Validate(); !errors.As(err, &invalid) {
		t.Fatalf("Validate() = %v", err)
	}
	text := invalid.Error()
	for _, field := range []string{
		"runtime_dir", "data_dir", "log.level", "log.format", "session.readers", "session.slots", "session.ring_bytes_total",
		"session.batch_bytes_max", "session.sessions_per_client_max", "session.message_rate_max", "io.cold_reads", "io.open_files",
		"prefetch.window_bytes", "prefetch.workers", "prefetch.epsilon", "prefetch.hedge_share",
		"flash.sync_interval", "flash.scrub_rate", "flash.devices[0].path", "flash.devices[0].limit",
		"gpu.cuda_library", "gpu.cufile_library",
		"api.listen", "api.requests_per_second", "pyroscope.server_address", "pyroscope.basic_auth_user", "pyroscope.application_name", "shutdown_timeout",
	} {
		if !strings.Contains(text, "\n  "+field+": ") {
			t.Errorf("no word about %s in:\n%s", field, text)
		}
	}
	if strings.Contains(text, "hunter2") {
		t.Error("a password of the file appears in the error")
	}
}

func TestListeningBeyondLoopbackNeedsAToken(t *testing.T) {
	for listen, ok := range map[string]bool{
		"": true, "127.0.0.1:9595": true, "[::1]:0": true, "localhost:80": true, "127.9.9.9:1": true,
		":9595": false, "0.0.0.0:9595": false, "[::]:1": false, "node7:9595": false, "10.0.0.1:1": false, "localhost": false, "127.0.0.1:": false,
	} {
		cfg := Default()
		cfg.Complete(testEnvironment(nil))
		cfg.API.Listen = listen
		if err := cfg.Validate(); (err == nil) != ok {
			t.Errorf("listen %q without a token: %v", listen, err)
		}
	}
	cfg := Default()
	cfg.Complete(testEnvironment(nil))
	cfg.API = API{Listen: "0.0.0.0:9595", TokenFile: "/etc/stoker/token", RequestsPerSecond: 200}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
	cfg.API.Listen = ""
	if err := cfg.Validate(); err == nil {
		t.Error("a token that is never asked for was accepted")
	}
}

func TestDevicesHaveDirectoriesOfTheirOwn(t *testing.T) {
	for _, test := range []struct {
		paths []string
		want  string // in the error; "": none
	}{
		{nil, ""},
		{[]string{"/nvme0/stoker", "/nvme1/stoker", "/nvme1/stoker2", "/nvme1/..stoker"}, ""},
		{[]string{"/home/ada/.local/share/stoker-flash", "/home/ada/.local/share/flash"}, ""},
		{[]string{"/nvme0", "/nvme0/"}, "flash.devices[1].path: \"/nvme0/\" and \"/nvme0\""},
		{[]string{"/nvme0", "/nvme1", "/nvme0/a/b"}, "flash.devices[2].path"},
		{[]string{"/nvme0/a", "/nvme0/b/.."}, "flash.devices[1].path"},
		{[]string{"/home/ada/.local/share/stoker"}, "data_dir"},
		{[]string{"/home/ada/.local/share/stoker/flash"}, "data_dir"},
		{[]string{"/home"}, "data_dir"},
		{[]string{"/tmp/stoker-1000/flash"}, "runtime_dir"},
		{[]string{"nvme0"}, "no absolute path"},
		{[]string{""}, "no absolute path"},
		{[]string{"/nvme\xff"}, "no absolute path"},
		{[]string{"/nvme\x00"}, "no absolute path"},
	} {
		cfg := Default()
		cfg.Complete(testEnvironment(map[string]string{"HOME": "/home/ada"}))
		for _, path := range test.paths {
			cfg.Flash.Devices = append(cfg.Flash.Devices, FlashDevice{Path: path})
		}
		err := cfg.Validate()
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v, want %q", test.paths, err, test.want)
		}
	}
	cfg := Default()
	cfg.Complete(testEnvironment(nil))
	for i := range flashDevicesMax + 1 {
		cfg.Flash.Devices = append(cfg.Flash.Devices, FlashDevice{Path: fmt.Sprintf("/nvme%d", i)})
	}
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "at most 63") {
		t.Errorf("64 devices: %v", err)
	}
	cfg.Flash.Devices = cfg.Flash.Devices[1:]
	if err := cfg.Validate(); err != nil {
		t.Errorf("63 devices: %v", err)
	}
	cfg.Flash.Scrub, cfg.Flash.ScrubRate = false, mebibyte
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "flash.scrub_rate: is set, but flash.scrub is false") {
		t.Errorf("a rate for what is off: %v", err)
	}
}

func TestParseBytes(t *testing.T) {
	for text, want := range map[string]Bytes{
		"0": 0, "17": 17, "64mb": 64 << 20, "1GiB": 1 << 30, " 2 k ": 2048, "1.5KB": 1536, "3tib": 3 << 40, "8B": 8, "0.5m": 1 << 19,
	} {
		if got, err := ParseBytes(text); err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "mb", "-1", "1e3", "64 m b", "1.2.3k", "9999999t", "99999999999999999999", "٣k", "0x10", "1,5k"} {
		if got, err := ParseBytes(text); err == nil {
			t.Errorf("ParseBytes(%q) = %d, want an error", text, got)
		}
	}
}

func TestBytesReadBackWhatTheyWrite(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Bytes(rapid.Int64Min(0).Draw(t, "bytes") << rapid.SampledFrom([]int{0, 10, 20}).Draw(t, "shift") & (1<<63 - 1))
		if got, err := ParseBytes(want.String()); err != nil || got != want {
			t.Fatalf("%d writes %q, which reads as %d, %v", int64(want), want, got, err)
		}
	})
}

func TestSecretsAreReadAndNeverShown(t *testing.T) {
	secret, err := ReadSecret(writeFile(t, "hunter2  \nsecond line\n", 0o640))
	if err != nil || secret.Reveal() != "hunter2" {
		t.Fatalf("ReadSecret = %q, %v", secret.Reveal(), err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "secret", secret)
	slog.New(slog.NewTextHandler(&log, nil)).Info("m", "secret", secret, "in", struct{ S Secret }{secret})
	encoded, err := json.Marshal(map[string]any{"s": secret})
	if err != nil {
		t.Fatal(err)
	}
	shown := fmt.Sprintf("%s %v %+v %#v %s %s", secret, secret, struct{ S Secret }{secret}, secret, log.String(), encoded)
	if strings.Contains(shown, "hunter2") {
		t.Errorf("the secret shows in %s", shown)
	}
	if none, err := ReadSecret(""); err != nil || !none.IsEmpty() || none.String() != "" {
		t.Errorf("no path: %v, %v", none, err)
	}
	for _, path := range []string{
		writeFile(t, "hunter2\n", 0o644), writeFile(t, "\nhunter2", 0o600), writeFile(t, strings.Repeat("x", 5000), 0o600),
		filepath.Join(t.TempDir(), "absent"), t.TempDir(),
	} {
		if _, err := ReadSecret(path); err == nil || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("ReadSecret(%q) = %v, want an error that names the file and not the secret", path, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("session: {readers: 3, ring_bytes_max: 64mb}"))
	f.Add([]byte("a: &x [*x]\n"))
	f.Add([]byte("shutdown_timeout: !!int 3"))
	f.Add([]byte("session:\n  ? [a]\n  : ~"))
	f.Fuzz(func(t *testing.T, text []byte) {
		cfg := Default()
		if decode(text, &cfg) == nil {
			cfg.Complete(testEnvironment(nil))
			_ = cfg.Validate()
		}
	})
}
