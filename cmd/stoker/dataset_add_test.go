package main

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/loader"
	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/shm"
)

func addedPets() shm.DatasetInfo {
	return shm.DatasetInfo{
		Name: "pets", Format: "raw", Path: "/data/pets", State: "ready", AddedAt: "2026-11-22T17:00:00Z", IndexID: "ab12cd",
		Samples: 3, Files: 3, Bytes: 3 << 20, Classes: []string{"cat", "dog"}, Skipped: map[string]int{"empty": 1}, Saw: "3 files in 2 directories",
	}
}

// scan answers one dataset_add like a daemon that finds addedPets; seen is told
// of the request and of what the descriptor opens.
func scan(seen func(request shm.DatasetAdd, directory string)) script {
	return greeted(func(t *testing.T, conn *shm.Conn) {
		var request shm.DatasetAdd
		descriptors := take(t, conn, &request)
		if len(descriptors) != 1 {
			t.Errorf("%d descriptors", len(descriptors))
			return
		}
		target, err := os.Readlink("/proc/self/fd/" + itoa(descriptors[0]))
		if err != nil {
			t.Error(err)
		}
		shm.CloseAll(descriptors)
		seen(request, target)
		send(t, conn, shm.ProgressNote{Type: shm.TypeProgress, FilesDone: 1, BytesDone: 1 << 20})
		send(t, conn, shm.ProgressNote{Type: shm.TypeProgress, FilesDone: 2, FilesTotal: 3, BytesDone: 2 << 20})
		send(t, conn, shm.DatasetAnswer{Type: shm.TypeDataset, Dataset: addedPets()})
	})
}

func itoa(number int) string { return grouped(int64(number)) } // descriptors of a test stay below 1,000

func TestAddPassesTheOpenDirectoryAndTheOptions(t *testing.T) {
	p, source := newPlace(t), t.TempDir()
	p.serveAPI(t, newFakeNode())
	var request shm.DatasetAdd
	var directory string
	p.serveSessions(t, scan(func(r shm.DatasetAdd, d string) { request, directory = r, d }))
	var got outcome
	t.Run("relative path", func(t *testing.T) {
		t.Chdir(filepath.Dir(source))
		got = p.run(t, "dataset", "add", "pets", filepath.Base(source), "--format", "raw", "--include", "**/*.{jpg,png}", "--include", "a,b",
			"--dtype", "int32", "--replace", "--bad", "skip")
	})
	golden(t, "dataset-add", got)
	want := shm.DatasetAdd{Type: shm.TypeDatasetAdd, Name: "pets", Format: "raw", Path: source, Include: []string{"**/*.{jpg,png}", "a,b"}, DType: "int32", Bad: "skip", Replace: true}
	if request.Name != want.Name || request.Format != want.Format || request.Path != want.Path || request.DType != want.DType || request.Bad != want.Bad ||
		!request.Replace || !slices.Equal(request.Include, want.Include) || directory != source {
		t.Errorf("asked %+v with %s, want %+v with %s", request, directory, want, source)
	}
}

func TestAddSaysWhatWasLeftOut(t *testing.T) {
	p, source := newPlace(t), petsOnDisk(t)
	p.serveNode(t)
	elsewhere := petsOnDisk(t)
	for link, target := range map[string]string{"bird": "cat", "dog/3.jpg": "dog/1.jpg", ".cache": "dog"} {
		if err := os.Symlink(filepath.Join(elsewhere, target), filepath.Join(source, link)); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "dataset-add-links", p.run(t, "dataset", "add", "pets", source, "--format", "raw", "--include", "**/*.jpg"))

	onlyLinks := t.TempDir()
	if err := os.Symlink(filepath.Join(elsewhere, "cat"), filepath.Join(onlyLinks, "cat")); err != nil {
		t.Fatal(err)
	}
	got := p.run(t, "dataset", "add", "links", onlyLinks)
	if got.code != exitError || !strings.Contains(got.err, "lead out of the directory or nowhere: 1") || !strings.Contains(got.err, "copy the files into the directory") {
		t.Errorf("%+v", got)
	}
}

func TestAddWritesJSONLines(t *testing.T) {
	p := newPlace(t)
	p.serveAPI(t, newFakeNode())
	p.serveSessions(t, scan(func(shm.DatasetAdd, string) {}))
	golden(t, "dataset-add-json", p.run(t, "dataset", "add", "pets", t.TempDir(), "--json"))
}

func TestAddDrawsABarOnATerminalAndClearsIt(t *testing.T) {
	p := newPlace(t)
	p.terminal = true
	p.serveAPI(t, newFakeNode())
	p.serveSessions(t, scan(func(shm.DatasetAdd, string) {}))
	got := p.run(t, "dataset", "add", "pets", t.TempDir())
	if got.code != exitOK || !strings.Contains(got.err, "scanning") || !strings.HasPrefix(got.out, "added pets") {
		t.Errorf("%+v", got)
	}
	if lines := strings.Split(got.err, "\r"); strings.TrimSpace(lines[len(lines)-1]) != "" {
		t.Errorf("the bar stays: %q", got.err)
	}
}

func TestAddWithoutATerminalWritesALineNowAndThen(t *testing.T) {
	var errs bytes.Buffer
	clock := time.Unix(0, 0)
	show := (&app{err: &errs}).lineProgress("scanning", func() time.Time { return clock })
	for i := range 10 {
		clock = clock.Add(time.Second)
		note := shm.ProgressNote{FilesDone: int64(i) * 1000, FilesTotal: 9000 * int64(i/5), BytesDone: int64(i) << 20}
		if i >= 7 {
			note.BytesTotal, note.SamplesDone = 9<<20, int64(i)*500
		}
		show.update(note)
	}
	show.finish(true)
	want := "scanning: 1,000 files, 1.00 MiB at 1.00 MiB/s\n" +
		"scanning: 3,000 files, 3.00 MiB at 1.00 MiB/s\n" +
		"scanning: 5,000 of 9,000 files, 5.00 MiB at 1.00 MiB/s\n" +
		"scanning: 78 %, 7,000 of 9,000 files, 7.00 MiB of 9.00 MiB at 1.00 MiB/s, 3,500 samples at 1,166/s, 2s left\n" +
		"scanning: 100 %, 9,000 of 9,000 files, 9.00 MiB of 9.00 MiB at 1.00 MiB/s, 4,500 samples at 1,500/s\n"
	if errs.String() != want {
		t.Errorf("got\n%s", errs.String())
	}
}

func TestAddSaysWhatIsWrongWithTheDirectory(t *testing.T) {
	p := newPlace(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{file: "not a directory", filepath.Join(file, "x"): "not a directory", "/nowhere": "no such file or directory"} {
		got := p.run(t, "dataset", "add", "x", path)
		if got.code != exitError || !strings.Contains(got.err, want) || !strings.Contains(got.err, path) || !strings.Contains(got.err, "next:") {
			t.Errorf("%s: %+v", path, got)
		}
	}
}

func TestAddReportsWhatTheDaemonSays(t *testing.T) {
	taken := func(then script) script {
		return greeted(func(t *testing.T, conn *shm.Conn) {
			shm.CloseAll(take(t, conn, &shm.DatasetAdd{}))
			then(t, conn)
		})
	}
	for name, test := range map[string]struct {
		play script
		want string
	}{
		"error": {taken(func(t *testing.T, conn *shm.Conn) {
			send(t, conn, shm.ErrorAnswer{Type: shm.TypeError, Error: shm.Failure{Code: "invalid", What: "the directory is empty", Where: "/x", Remedy: "add files"}})
		}), "the directory is empty"},
		"end":     {taken(func(*testing.T, *shm.Conn) {}), "ended the connection"},
		"bye":     {taken(func(t *testing.T, conn *shm.Conn) { send(t, conn, shm.Bye{Type: shm.TypeBye, Reason: "shutdown"}) }), "ended the connection"},
		"strange": {taken(func(t *testing.T, conn *shm.Conn) { send(t, conn, shm.Envelope{Type: "poem"}) }), `"poem"`},
		"no JSON": {taken(func(t *testing.T, conn *shm.Conn) { _ = conn.SendRaw([]byte("{"), time.Second) }), "read the daemon's message"},
		"no hello": {func(t *testing.T, conn *shm.Conn) {
			take(t, conn, &shm.Hello{})
			send(t, conn, shm.Envelope{Type: shm.TypeDataset})
		}, "does not expect"},
		"refused": {func(t *testing.T, conn *shm.Conn) {
			send(t, conn, shm.ErrorAnswer{Type: shm.TypeError, Error: shm.Failure{Code: "limit", What: "1024 connections are open"}})
		}, "1024 connections are open"},
		"version": {func(t *testing.T, conn *shm.Conn) {
			take(t, conn, &shm.Hello{})
			send(t, conn, shm.ErrorAnswer{Type: shm.TypeError, Error: shm.Failure{Code: "version", What: "no common protocol version"}})
		}, "no common protocol version"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			p.serveAPI(t, newFakeNode())
			p.serveSessions(t, test.play)
			if got := p.run(t, "dataset", "add", "x", t.TempDir()); got.code != exitError || !strings.Contains(got.err, test.want) || got.out != "" {
				t.Errorf("%+v, want %q", got, test.want)
			}
		})
	}
}

func TestAnInterruptedAddEndsTheConnection(t *testing.T) {
	p := newPlace(t)
	p.serveAPI(t, newFakeNode())
	ctx, interrupt := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	p.serveSessions(t, greeted(func(t *testing.T, conn *shm.Conn) {
		shm.CloseAll(take(t, conn, &shm.DatasetAdd{}))
		interrupt()
		_, _, err := conn.Receive()
		ended <- err
	}))
	got := p.runContext(ctx, "dataset", "add", "x", t.TempDir())
	if got.code != exitError || !strings.Contains(got.err, "interrupted") || !strings.Contains(got.err, "run the same command again") {
		t.Errorf("%+v", got)
	}
	if err := <-ended; err == nil {
		t.Error("the daemon is not told")
	}
}

// The verbs against the real node, in this process.
func TestVerbsAgainstARealNode(t *testing.T) {
	p, source := newPlace(t), petsOnDisk(t)
	p.serveNode(t)
	for _, step := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"dataset", "add", "pets", source, "--format", "raw"}, exitOK, "added pets: raw, 4 files, 4.00 KiB, 2 classes"},
		{[]string{"dataset", "add", "pets", source, "--format", "raw"}, exitError, "--replace"},
		{[]string{"dataset", "add", "pets", source, "--format", "raw", "--replace", "--json"}, exitOK, `"classes":["cat","dog"]`},
		{[]string{"dataset", "add", "../evil", source}, exitError, "../evil"},
		{[]string{"dataset", "add", "none", t.TempDir()}, exitError, "next:"},
		{[]string{"dataset", "ls"}, exitOK, "4 samples"},
		{[]string{"dataset", "info", "pets"}, exitOK, source},
		{[]string{"status"}, exitOK, "1 ready, 0 detached"},
		{[]string{"dataset", "rm", "pets"}, exitOK, "forgot pets"},
		{[]string{"dataset", "rm", "pets"}, exitError, "no such dataset"},
		{[]string{"dataset", "ls"}, exitOK, "no datasets"},
	} {
		got := p.run(t, step.args...)
		if got.code != step.code || !strings.Contains(got.out+got.err, step.want) {
			t.Errorf("%q: %+v, want %q", step.args, got, step.want)
		}
	}
	if left, err := filepath.Glob(source + "/*/*"); err != nil || len(left) != 4 {
		t.Errorf("after rm there are %q, %v", left, err)
	}
}

func petsOnDisk(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, name := range []string{"cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg"} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, bytes.Repeat([]byte{1}, 1024), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// serveNode puts a real node with both sockets into the place.
func (p *place) serveNode(t *testing.T) *loader.Node {
	t.Helper()
	p.data = t.TempDir()
	node, err := loader.Open(loader.Options{DataDir: p.data, UID: os.Getuid(), Logger: slog.New(slog.DiscardHandler), Version: api.Version{Version: "0.1.0"}})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: filepath.Join(p.directory, sessionSocket), Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- node.Serve(listener) }()
	p.serveAPI(t, node)
	t.Cleanup(func() {
		if err := node.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return node
}

func TestAddWaitsForASlowScanButNotForAMuteDaemon(t *testing.T) {
	p := newPlace(t)
	conns := make(chan *shm.Conn, 1)
	p.serveSessions(t, func(t *testing.T, conn *shm.Conn) {
		conns <- conn
		if _, _, err := conn.Receive(); err != nil { // hello, never answered
			t.Error(err)
		}
		if _, _, err := conn.Receive(); err == nil {
			t.Error("the client goes on without an answer to hello")
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := dialSession(ctx, p.directory); err == nil {
		t.Error("greeted by a daemon that says nothing")
	}
	s := &session{socket: "socket"}
	if f := failureOf(s.lost(os.ErrDeadlineExceeded)); !strings.Contains(f.What, "did not answer within 10s") {
		t.Errorf("%+v", f)
	}
	if f := failureOf(s.lost(unix.EPIPE)); f.Why != unix.EPIPE.Error() {
		t.Errorf("%+v", f)
	}
	<-conns
}
