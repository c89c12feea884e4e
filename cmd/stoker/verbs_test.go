package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/loader/api"
)

func TestOutputOfEveryVerbIsGolden(t *testing.T) {
	for name, args := range map[string][]string{
		"dataset-ls":            {"dataset", "ls"},
		"dataset-ls-json":       {"dataset", "ls", "--json"},
		"dataset-info-raw":      {"dataset", "info", "pets"},
		"dataset-info-tokens":   {"dataset", "info", "text"},
		"dataset-info-json":     {"dataset", "info", "pets", "--json"},
		"dataset-info-unknown":  {"dataset", "info", "cats"},
		"dataset-rm":            {"dataset", "rm", "pets"},
		"dataset-rm-json":       {"dataset", "rm", "pets", "--json"},
		"dataset-rm-in-use":     {"dataset", "rm", "text"},
		"error-json":            {"dataset", "rm", "text", "--json"},
		"status":                {"status"},
		"status-json":           {"status", "--json"},
		"help":                  {"--help"},
		"help-dataset-add":      {"dataset", "add", "--help"},
		"help-bench-compare":    {"bench", "compare", "--help"},
		"complete-dataset":      {"__complete", "dataset", "rm", ""},
		"complete-format":       {"__complete", "dataset", "add", "n", "d", "--format", ""},
		"usage-unknown-command": {"dataste"},
		"usage-unknown-verb":    {"dataset", "adopt"},
		"usage-unknown-flag":    {"dataset", "ls", "--colour"},
		"usage-no-argument":     {"dataset", "add", "pets"},
		"usage-more-arguments":  {"dataset", "info", "pets", "text"},
		"usage-json":            {"dataset", "info", "--json"},
		"dataset-info-tar":      {"dataset", "info", "coco"},
		"help-dataset-lint":     {"dataset", "lint", "--help"},
		"help-dataset-preview":  {"dataset", "preview", "--help"},
		"help-top":              {"top", "--help"},
		"complete-part":         {"__complete", "dataset", "preview", "coco", "--part", ""},
		"complete-progress":     {"__complete", "index", "build", "coco", "--progress", ""},
		"complete-index":        {"__complete", "index", "info", ""},
		"complete-lint-dir":     {"__complete", "dataset", "lint", "./"},
		"complete-bad":          {"__complete", "dataset", "add", "n", "d", "--bad", ""},
		"usage-progress":        {"dataset", "add", "n", "/", "--progress", "dance"},
		"usage-format":          {"dataset", "add", "n", "/", "--format", "xml"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			p.serveAPI(t, newFakeNode())
			golden(t, name, p.run(t, args...))
		})
	}
}

func TestRemovingAsksNothingAndRemovesOnce(t *testing.T) {
	p, node := newPlace(t), newFakeNode()
	p.serveAPI(t, node)
	if got := p.run(t, "dataset", "rm", "pets"); got.code != exitOK || !slices.Equal(node.removedNames(), []string{"pets"}) {
		t.Errorf("%+v, removed %q", got, node.removedNames())
	}
}

func TestAnEmptyListSaysWhatToDo(t *testing.T) {
	p := newPlace(t)
	p.serveAPI(t, &fakeNode{})
	if got := p.run(t, "dataset", "ls"); got.code != exitOK || !strings.Contains(got.out, "stoker dataset add NAME DIR") {
		t.Errorf("%+v", got)
	}
	if got := p.run(t, "dataset", "ls", "--json"); strings.Join(strings.Fields(got.out), "") != `{"datasets":[]}` {
		t.Errorf("%+v", got)
	}
}

func TestStatusOfADaemonThatIsNotReady(t *testing.T) {
	p, node := newPlace(t), newFakeNode()
	node.ready = errors.New("reading the list of datasets")
	p.serveAPI(t, node)
	golden(t, "status-not-ready", p.run(t, "status"))
	var status nodeStatus
	got := p.run(t, "status", "--json")
	if err := json.Unmarshal([]byte(got.out), &status); err != nil || got.code != exitError || status.Ready || status.Reason == "" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestEveryVerbSaysThatTheDaemonIsNotRunning(t *testing.T) {
	for _, args := range [][]string{
		{"dataset", "ls"}, {"dataset", "info", "x"}, {"dataset", "rm", "x"}, {"status"}, {"dataset", "add", "x", "/"},
		{"dataset", "preview", "x"}, {"dataset", "lint", "x"}, {"index", "build", "x"}, {"index", "info", "x"}, {"top"}, {"top", "--once", "--json"}, {"stalls"},
	} {
		p := newPlace(t)
		got := p.run(t, args...)
		if got.code != exitNotRunning || !strings.Contains(got.err, "stokerd is not running") ||
			!strings.Contains(got.err, "RUNTIME/api.sock") || !strings.Contains(got.err, "start it with") || got.out != "" {
			t.Errorf("%q: %+v", args, got)
		}
	}
	golden(t, "not-running-json", newPlace(t).run(t, "dataset", "ls", "--json"))
}

func TestASocketThatNobodyServesIsNoDaemon(t *testing.T) {
	p := newPlace(t)
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(p.directory, api.SocketName), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	if got := p.run(t, "dataset", "ls"); got.code != exitNotRunning {
		t.Errorf("%+v", got)
	}
}

func TestVersionsWithAndWithoutADaemon(t *testing.T) {
	p := newPlace(t)
	var both versions
	got := p.run(t, "version", "--json")
	if err := json.Unmarshal([]byte(got.out), &both); err != nil || got.code != exitOK || both.Daemon != nil || both.Client.Version != version {
		t.Errorf("%+v, %v", got, err)
	}
	if got := p.run(t, "version"); got.code != exitOK || !strings.Contains(got.out, "stokerd  not running") {
		t.Errorf("%+v", got)
	}
	p.serveAPI(t, newFakeNode())
	got = p.run(t, "version", "--json")
	if err := json.Unmarshal([]byte(got.out), &both); err != nil || both.Daemon == nil || both.Daemon.PID != 42 {
		t.Errorf("%+v, %v", got, err)
	}
	if got := p.run(t, "version"); got.code != exitOK || !strings.Contains(got.out, "stokerd  0.1.0 (abc123)") {
		t.Errorf("%+v", got)
	}
}

func TestTheDaemonIsFoundWhereItIs(t *testing.T) {
	p := newPlace(t)
	p.serveAPI(t, newFakeNode())
	elsewhere := t.TempDir()
	session := t.TempDir()
	if err := os.Symlink(p.directory, filepath.Join(session, "stoker")); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name      string
		variables map[string]string
		args      []string
		code      int
	}{
		{"flag over variable", map[string]string{runtimeDirVariable: elsewhere}, []string{"--runtime-dir", p.directory}, exitOK},
		{"variable alone", map[string]string{runtimeDirVariable: p.directory}, nil, exitOK},
		{"variable over the login's", map[string]string{runtimeDirVariable: elsewhere, "XDG_RUNTIME_DIR": session}, nil, exitNotRunning},
		{"the login's", map[string]string{"XDG_RUNTIME_DIR": session}, nil, exitOK},
	} {
		p.variables = test.variables
		if got := p.run(t, append([]string{"dataset", "ls"}, test.args...)...); got.code != test.code {
			t.Errorf("%s: %+v", test.name, got)
		}
	}
}

func TestADirectoryOfSomebodyElseIsNotTrusted(t *testing.T) {
	a := &app{}
	a.environment.UserID = os.Getuid() + 1000
	directory := t.TempDir()
	if err := os.Chown(directory, os.Getuid(), -1); err != nil {
		t.Fatal(err)
	}
	err := a.checkOwner(directory)
	if os.Getuid() == 0 { // root's directories are trusted
		if err != nil {
			t.Errorf("root's directory: %v", err)
		}
		if err := os.Chown(directory, 4242, -1); err != nil {
			t.Fatal(err)
		}
		err = a.checkOwner(directory)
	}
	if f := failureOf(err); f.Code != string(api.CodePermission) || f.Where != directory || f.exit != exitError {
		t.Errorf("%+v", f)
	}
}

func TestWhatIsNoDaemonIsNotBelieved(t *testing.T) {
	for name, answer := range map[string]string{
		"not HTTP":          "hello\r\n",
		"no JSON":           "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
		"wrong shape":       "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"datasets\":42}",
		"cut short":         "HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{\"data",
		"no problem":        "HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n{}",
		"at once at an end": "",
	} {
		p := newPlace(t)
		listener, err := net.Listen("unix", filepath.Join(p.directory, api.SocketName))
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				if n, _ := conn.Read(make([]byte, 4096)); n > 0 {
					fmt.Fprint(conn, answer)
				}
				conn.Close()
			}
		}()
		if got := p.run(t, "dataset", "ls"); got.code != exitError || got.out != "" || got.err == "" {
			t.Errorf("%s: %+v", name, got)
		}
		listener.Close()
		<-done
	}
}

func TestAResultThatCannotBeWrittenIsAnError(t *testing.T) {
	p := newPlace(t)
	p.serveAPI(t, newFakeNode())
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, args := range [][]string{{"dataset", "ls"}, {"dataset", "ls", "--json"}, {"dataset", "info", "pets"}, {"status"}, {"version"}} {
		var errs strings.Builder
		a := &app{out: full, err: &errs}
		a.environment.Lookup = func(name string) (string, bool) { return p.directory, name == runtimeDirVariable }
		a.environment.UserID = os.Getuid()
		if code := a.run(t.Context(), args); code != exitError || !strings.Contains(errs.String(), unix.ENOSPC.Error()) {
			t.Errorf("%q: exit code %d, %s", args, code, errs.String())
		}
	}
}

func TestCompletionScriptsAreThere(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if got := newPlace(t).run(t, "completion", shell); got.code != exitOK || !strings.Contains(got.out, "stoker") {
			t.Errorf("%s: %+v", shell, got)
		}
	}
}

func TestCompletionWithoutADaemonIsEmpty(t *testing.T) {
	if got := newPlace(t).run(t, "__complete", "dataset", "info", ""); got.code != exitOK || got.out != ":4\n" {
		t.Errorf("%+v", got)
	}
}
