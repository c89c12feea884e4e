package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/loader/config"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestSocketsAreForTheirOwnerAloneAndGoAway(t *testing.T) {
	dir := t.TempDir()
	server, err := Start(Options{Node: newFakeNode(), Logger: quiet(), RuntimeDir: dir, UserID: uint32(os.Getuid()), Admin: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{SocketName, AdminSocketName} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != fs.ModeSocket|0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
	for range 2 {
		if err := server.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestAStaleSocketIsReplacedAndALiveOneIsNot(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, SocketName)
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	options := Options{Node: newFakeNode(), Logger: quiet(), RuntimeDir: dir, UserID: uint32(os.Getuid())}
	first, err := Start(options)
	if err != nil {
		t.Fatalf("over a stale socket: %v", err)
	}
	if _, err := Start(options); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("over a live socket: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := Start(options)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the first server removed the second's socket: %v", err)
	}
	if err := second.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestStartRefusesAndLeavesNothingOpen(t *testing.T) {
	uid := uint32(os.Getuid())
	file := filepath.Join(t.TempDir(), "file")
	occupied, open := t.TempDir(), t.TempDir()
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.WriteFile(filepath.Join(occupied, AdminSocketName), nil, 0o600), os.Chmod(open, 0o777)); err != nil {
		t.Fatal(err)
	}
	for name, options := range map[string]Options{
		"no directory":        {RuntimeDir: filepath.Join(t.TempDir(), "absent"), UserID: uid},
		"a file":              {RuntimeDir: file, UserID: uid},
		"something no socket": {RuntimeDir: occupied, UserID: uid, Admin: true},
		"open to others":      {RuntimeDir: open, UserID: uid},
		"address in use":      {RuntimeDir: t.TempDir(), UserID: uid, Listen: "256.0.0.1:1"},
		"no token":            {RuntimeDir: t.TempDir(), UserID: uid, Listen: "0.0.0.0:0"},
		"path too long":       {RuntimeDir: longDirectory(t), UserID: uid},
	} {
		options.Node, options.Logger = newFakeNode(), quiet()
		server, err := Start(options)
		if err == nil {
			server.Close(t.Context())
			t.Errorf("%s: started", name)
		}
		if _, err := os.Stat(filepath.Join(options.RuntimeDir, SocketName)); err == nil {
			t.Errorf("%s: left %s behind", name, SocketName)
		}
	}
}

func longDirectory(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestOnlyTheOwnUserAndRootAreServed(t *testing.T) {
	for _, test := range []struct {
		uid     uint32
		allowed bool
	}{{0, true}, {1000, true}, {1001, false}, {unmappedUID, false}} {
		rules := access{peers: func(uid uint32) bool { return uid == 1000 || uid == 0 || uid == unmappedUID }}
		if got := peerIsServed(t, rules, test.uid); got != test.allowed {
			t.Errorf("uid %d is served: %v, want %v", test.uid, got, test.allowed)
		}
	}
}

// peerIsServed serves one connection whose peer has another uid. Only root may
// really connect as somebody else, so the listener says who it is.
func peerIsServed(t *testing.T, rules access, uid uint32) bool {
	t.Helper()
	s := serveInMemory(t, access{})
	ctx := t.Context()
	listener, err := listenUnix(filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	d := newDoor(ctx, s.server.handler, "unix", rules, plenty, listener)
	served := make(chan struct{})
	go func() {
		d.server.Serve(&impostor{gate: d.gate, uid: uid})
		close(served)
	}()
	conn, err := net.Dial("unix", listener.(*unixListener).path)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "GET /healthz HTTP/1.0\r\n\r\n")
	answer := make([]byte, 12)
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Read(answer); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := d.close(ctx); err != nil {
		t.Error(err)
	}
	<-served
	return string(answer) == "HTTP/1.1 200"
}

type impostor struct {
	*gate
	uid uint32
}

func (i *impostor) Accept() (net.Conn, error) {
	conn, err := i.gate.Accept()
	if err == nil {
		conn.(*peerConn).uid = i.uid
	}
	return conn, err
}

func TestTheKernelSaysWhoConnects(t *testing.T) {
	s := serveUnix(t, SocketName, nil)
	conn, err := s.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if uid, pid := credentials(conn.(*net.UnixConn)); uid != uint32(os.Getuid()) || pid != int32(os.Getpid()) {
		t.Errorf("peer is uid %d, pid %d", uid, pid)
	}
	if status, _, body := s.do(t, "DELETE", "/v1/datasets/pets"); status != 204 {
		t.Errorf("own uid: %d %s", status, body)
	}
}

func TestProfilesAreOnTheAdminSocketOnly(t *testing.T) {
	admin := serveUnix(t, AdminSocketName, nil)
	if status, _, body := admin.do(t, "GET", "/debug/pprof/goroutine?debug=1"); status != 200 || !strings.Contains(body, "goroutine profile") {
		t.Errorf("pprof: %d %.100s", status, body)
	}
	status, header, body := admin.do(t, "GET", "/debug/pprof/")
	if status != 200 || !strings.HasPrefix(header.Get("Content-Type"), "text/html") {
		t.Errorf("the list of profiles: %d %s", status, header.Get("Content-Type"))
	}
	for _, name := range []string{"goroutine", "heap", "allocs", "mutex", "profile", "trace"} {
		if !strings.Contains(body, "href='"+name+"?") {
			t.Errorf("the list of profiles lacks %s: %.2000s", name, body)
		}
	}
	if status, _, body := admin.do(t, "GET", "/debug/pprof"); status != 200 || !strings.Contains(body, "goroutine") {
		t.Errorf("without the slash: %d %.100s", status, body)
	}
	status, header, body = admin.do(t, "GET", "/debug/pprof/heap/")
	wantProblem(t, status, header, body, 404, CodeNotFound)
	status, header, body = admin.do(t, "GET", "/debug/pprof/nonsense")
	wantProblem(t, status, header, body, 404, CodeNotFound)
	if status, _, _ := admin.do(t, "GET", "/v1/version"); status != 200 {
		t.Errorf("the admin socket serves the API too: %d", status)
	}
	api := serveUnix(t, SocketName, nil)
	for _, path := range []string{"/debug/pprof", "/debug/pprof/", "/debug/pprof/goroutine"} {
		status, header, body = api.do(t, "GET", path)
		wantProblem(t, status, header, body, 404, CodeNotFound)
	}
}

func TestTCPReadsWithoutATokenAndChangesWithOne(t *testing.T) {
	open := serveUnix(t, "tcp", func(o *Options) { o.Listen = "127.0.0.1:0" })
	if status, _, _ := open.do(t, "GET", "/metrics"); status != 200 {
		t.Errorf("metrics over TCP: %d", status)
	}
	status, header, body := open.do(t, "DELETE", "/v1/datasets/pets")
	wantProblem(t, status, header, body, 403, CodePermission)
	guarded := serveUnix(t, "tcp", func(o *Options) { o.Listen, o.Token = "127.0.0.1:0", config.NewSecret("t0ken") })
	status, header, body = guarded.do(t, "GET", "/metrics")
	wantProblem(t, status, header, body, 401, CodeUnauthorized)
	if status, _, _ := guarded.do(t, "DELETE", "/v1/datasets/pets", "Authorization", "Bearer t0ken"); status != 204 {
		t.Errorf("delete with the token: %d", status)
	}
}

func TestCloseEndsRequestsThatTheNodeStillWorksOn(t *testing.T) {
	node := newFakeNode()
	node.hold, node.entered = make(chan struct{}), make(chan struct{}, 1)
	s := serveUnix(t, SocketName, func(o *Options) { o.Node = node })
	answered := make(chan int, 1)
	go func() {
		status, _, _ := s.do(t, "DELETE", "/v1/datasets/pets")
		answered <- status
	}()
	<-node.entered
	if err := s.server.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if status := <-answered; status != 503 {
		t.Errorf("a request during Close: %d", status)
	}
}

func TestCloseCutsOffWhoSendsNothing(t *testing.T) {
	s := serveUnix(t, SocketName, nil)
	conn, err := s.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("GET / HT")); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		g := s.server.doors[0].gate
		g.mu.Lock()
		defer g.mu.Unlock()
		return len(g.mu.conns) == 1
	})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	s.cutOff = true
	if err := s.server.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close with a request that never arrives: %v", err)
	}
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("still connected after Close: %d, %v", n, err)
	}
}

func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited for 10 seconds")
		}
	}
}

// exhausted lacks descriptors at first, as accept(2) says it.
type exhausted struct {
	net.Listener
	failures int
}

func (e *exhausted) Accept() (net.Conn, error) {
	if e.failures > 0 {
		e.failures--
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", unix.EMFILE)}
	}
	return e.Listener.Accept()
}

func TestLackOfDescriptorsPasses(t *testing.T) {
	s := serveInMemory(t, access{})
	listener, err := listenUnix(filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	faulty := &exhausted{Listener: listener, failures: 3}
	s.server.add(t.Context(), "faulty", access{}, faulty)
	s.server.serve(s.server.doors[1])
	conn, err := net.Dial("unix", listener.(*unixListener).path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /healthz HTTP/1.0\r\n\r\n")
	answer := make([]byte, 12)
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Read(answer); err != nil || string(answer) != "HTTP/1.1 200" {
		t.Errorf("%q, %v", answer, err)
	}
	if faulty.failures != 0 {
		t.Errorf("%d faults did not fire", faulty.failures)
	}
}
