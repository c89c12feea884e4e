package main

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/stokerio/stoker/loader/config"
	"github.com/stokerio/stoker/shm"
)

func TestMain(m *testing.M) {
	if os.Getenv(asDaemon) != "" {
		main()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func testConfig(t *testing.T) config.Config {
	t.Helper()
	f := newFlags()
	if err := f.set.Parse([]string{"--runtime-dir", t.TempDir(), "--data-dir", t.TempDir(), "--log-level", "error"}); err != nil {
		t.Fatal(err)
	}
	cfg, err := f.configuration(config.System(func(string) (string, bool) { return "", false }))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestTheDaemonServesUntilToldToStopAndLeavesNoSocket(t *testing.T) {
	cfg := testConfig(t)
	d, err := start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.wait(ctx) }()
	conn, err := shm.Dial(filepath.Join(cfg.RuntimeDir, sessionSocket))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, name := range []string{sessionSocket, "api.sock", "admin.sock"} {
		if _, err := os.Lstat(filepath.Join(cfg.RuntimeDir, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s after the end: %v", name, err)
		}
	}
}

func TestASecondDaemonIsRefusedAndSaysWhatToDo(t *testing.T) {
	cfg := testConfig(t)
	d, err := start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.stop(); err != nil {
			t.Error(err)
		}
	}()
	other := testConfig(t)
	for what, change := range map[string]func(*config.Config){
		"runtime directory": func(c *config.Config) { c.RuntimeDir = cfg.RuntimeDir },
		"data directory":    func(c *config.Config) { c.DataDir = cfg.DataDir },
	} {
		second := other
		change(&second)
		if _, err := start(second); err == nil || !strings.Contains(err.Error(), "another stokerd") {
			t.Errorf("second daemon on the same %s: %v", what, err)
		}
	}
}

func TestASocketLeftByADeadDaemonIsReplaced(t *testing.T) {
	cfg := testConfig(t)
	path := filepath.Join(cfg.RuntimeDir, sessionSocket)
	left, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	_ = left.Close()
	d, err := start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.stop(); err != nil {
		t.Error(err)
	}
}

func TestFlagsOverrideTheFileAndMistakesAreSaid(t *testing.T) {
	file := filepath.Join(t.TempDir(), "stokerd.yaml")
	if err := os.WriteFile(file, []byte("runtime_dir: /from/file\ndata_dir: /from/file\nsession: {readers: 3}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newFlags()
	if err := f.set.Parse([]string{"--config", file, "--data-dir", "/from/flag"}); err != nil {
		t.Fatal(err)
	}
	cfg, err := f.configuration(config.System(func(string) (string, bool) { return "", false }))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.RuntimeDir != "/from/file" || cfg.DataDir != "/from/flag" || cfg.Session.Readers != 3 {
		t.Errorf("configuration %+v", cfg)
	}
	here := t.TempDir()
	t.Chdir(here)
	if err := f.set.Parse([]string{"--runtime-dir", "run"}); err != nil {
		t.Fatal(err)
	}
	if cfg, err = f.configuration(config.System(os.LookupEnv)); err != nil || cfg.RuntimeDir != filepath.Join(here, "run") {
		t.Errorf("a relative path on the command line: %q, %v", cfg.RuntimeDir, err)
	}
	for _, args := range [][]string{{"--help"}, {"--version"}} {
		if err := run(t.Context(), args); err != nil {
			t.Errorf("%q: %v", args, err)
		}
	}
	for _, args := range [][]string{{"surplus"}, {"--no-such-flag"}, {"--config", "/does/not/exist"}, {"--log-level", "loud"}} {
		if err := run(t.Context(), args); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}

func TestTheAPIIsServedOverTCPAtTheConfiguredRate(t *testing.T) {
	cfg := testConfig(t)
	cfg.API = config.API{Listen: "127.0.0.1:0", RequestsPerSecond: 1}
	d, err := start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.stop(); err != nil {
			t.Error(err)
		}
	}()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answers := map[int]int{}
	for range 10 {
		response, err := client.Get("http://" + d.api.Address().String() + "/v1/version")
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		answers[response.StatusCode]++
	}
	if answers[http.StatusOK] < 2 || answers[http.StatusTooManyRequests] == 0 {
		t.Errorf("10 requests at 1 a second are answered %v", answers)
	}
}
