package cufile

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func writeFile(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConfigurationKeepsWhatIsNotOurs(t *testing.T) {
	path := writeFile(t, "cufile.json", `{
		// the machine's own
		"logging": {"level": "ERROR", "dir": "/elsewhere"}, /* a "quoted" comment */
		"properties": {"allow_compat_mode": true, "per_buffer_cache_size_kb": 12345678901234567890, "url": "http://x//y"},
		"fs": {"nfs": {"mount_table": {}}}
	}`)
	on := true
	text, err := configuration(path, Parameters{MaxDirectBytes: 8 << 20, MaxPinnedBytes: 1 << 30, PCIP2PDMA: &on, LogDir: "/var/log"})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"fs":{"block":{"nvme":{"use_pci_p2pdma":true}},"nfs":{"mount_table":{}}},` +
		`"logging":{"dir":"/var/log","level":"ERROR"},` +
		`"properties":{"allow_compat_mode":false,"force_compat_mode":false,"max_device_pinned_mem_size_kb":1048576,` +
		`"max_direct_io_size_kb":8192,"per_buffer_cache_size_kb":12345678901234567890,"url":"http://x//y","use_pci_p2pdma":true}}`
	if string(text) != want {
		t.Errorf("configuration %s,\nwant %s", text, want)
	}
}

func TestConfigurationSetsCompatModeExplicitly(t *testing.T) {
	for _, allow := range []bool{false, true} {
		text, err := configuration(writeFile(t, "cufile.json", `null`), Parameters{AllowCompat: allow})
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Properties struct {
				Allow *bool `json:"allow_compat_mode"`
				Force *bool `json:"force_compat_mode"`
			}
		}
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if p := got.Properties; p.Allow == nil || *p.Allow != allow || p.Force == nil || *p.Force {
			t.Errorf("AllowCompat %v gives %s", allow, text)
		}
	}
}

// pipe makes a named one, whose open would wait for ever.
func pipe(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConfigurationThatCannotBeReadIsAnError(t *testing.T) {
	long := writeFile(t, "long.json", "{}"+strings.Repeat(" ", maxConfigurationBytes))
	for _, test := range []struct{ path, want string }{
		{writeFile(t, "cufile.json", `{"properties": `), "repair the file"},
		{writeFile(t, "cufile.json", `[]`), "repair the file"},
		{filepath.Join(t.TempDir(), "missing.json"), "unset it"},
		{long, "longer than"},
		{t.TempDir(), "no regular file"},
		{pipe(t), "no regular file"},
	} {
		if _, err := configuration(test.path, Parameters{}); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want an error with %q", test.path, err, test.want)
		}
	}
}

func TestConfigurationIsTheOneThatTheEnvironmentNames(t *testing.T) {
	t.Setenv(configurationVariable, "")
	if got := configurationPath(); got != defaultConfiguration {
		t.Errorf("configuration %q", got)
	}
	t.Setenv(configurationVariable, "/some/where.json")
	if got := configurationPath(); got != "/some/where.json" {
		t.Errorf("configuration %q", got)
	}
}

// While one Open has the environment its variables name its own file, which is gone
// when it is done.
func TestTheConfigurationOfAnotherOpenIsNotRead(t *testing.T) {
	environment.Lock()
	t.Setenv(configurationVariable, filepath.Join(t.TempDir(), "of-another-open"))
	done := make(chan error, 1)
	go func() {
		restore, err := (&Driver{}).configure()
		if err == nil {
			restore()
		}
		done <- err
	}()
	select {
	case err := <-done:
		t.Errorf("it did not wait: %v", err)
		done <- nil
	case <-time.After(50 * time.Millisecond):
	}
	t.Setenv(configurationVariable, "")
	environment.Unlock()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestLibrariesAreLookedForInOrder(t *testing.T) {
	for which, soname := range map[library]string{deviceLibrary: "libcuda.so.1", storageLibrary: "libcufile.so.0"} {
		t.Setenv(nvidia.libraries[which].variable, "")
		if got := nvidia.places(which, ""); len(got) < 2 || got[0] != soname {
			t.Errorf("%s: %q", soname, got)
		}
		t.Setenv(nvidia.libraries[which].variable, "/by/environment")
		if got := nvidia.places(which, ""); len(got) != 1 || got[0] != "/by/environment" {
			t.Errorf("%s by environment: %q", soname, got)
		}
		if got := nvidia.places(which, "/by/option"); len(got) != 1 || got[0] != "/by/option" {
			t.Errorf("%s by option: %q", soname, got)
		}
	}
}

func TestCommentsAreBlanked(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{`{}`, `{}`},
		{"// a\n{}", "    \n{}"},
		{`{"a": "// no \" /* comment"} // b`, `{"a": "// no \" /* comment"}     `},
		{"/* a\n*/{}", "    \n  {}"},
		{"{} /* never ends\n", "{}              \n"},
		{`"never ends`, `"never ends`},
		{`"ends in \`, `"ends in \`},
	} {
		if got := string(withoutComments([]byte(test.text))); got != test.want {
			t.Errorf("%q gives %q, want %q", test.text, got, test.want)
		}
	}
}

func FuzzCommentsLeaveJSONAlone(f *testing.F) {
	f.Add([]byte(`{"a": "//", "b": [1, "\\", "/* \" */"]}`))
	f.Add([]byte("{} // x"))
	f.Add([]byte(`"\`))
	f.Fuzz(func(t *testing.T, text []byte) {
		got := withoutComments(text)
		if len(got) != len(text) {
			t.Errorf("%d bytes, want %d", len(got), len(text))
		}
		if json.Valid(text) && !bytes.Equal(got, text) {
			t.Errorf("%q became %q", text, got)
		}
	})
}

func TestEnvironmentIsAsBeforeAfterwards(t *testing.T) {
	t.Setenv("STOKER_TEST_SET", "before")
	undo := setEnvironment(map[string]string{"STOKER_TEST_SET": "while", "STOKER_TEST_UNSET": "while"})
	if os.Getenv("STOKER_TEST_SET") != "while" || os.Getenv("STOKER_TEST_UNSET") != "while" {
		t.Error("the variables are not set")
	}
	undo()
	if got := os.Getenv("STOKER_TEST_SET"); got != "before" {
		t.Errorf("the variable that was set is %q afterwards", got)
	}
	if got, set := os.LookupEnv("STOKER_TEST_UNSET"); set {
		t.Errorf("the variable that was not set is %q afterwards", got)
	}
}
