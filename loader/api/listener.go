package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// unmappedUID is what the kernel reports for a peer whose user has no number in
// this user namespace. It may be anybody, so it is nobody.
const unmappedUID = 65534

// listenUnix makes a socket at path with mode 0600 from its first moment: it is
// made under another name and renamed once its mode is right. A socket left by a
// daemon that is gone is replaced; one that answers is an error.
func listenUnix(path string) (net.Listener, error) {
	if err := checkFree(path); err != nil {
		return nil, err
	}
	temporary := path + ".new"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	inner, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w", path, err)
	}
	inner.SetUnlinkOnClose(false)
	if err = os.Chmod(temporary, 0o600); err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		inner.Close()
		os.Remove(temporary)
		return nil, fmt.Errorf("listen on %q: %w", path, err)
	}
	identity, err := os.Lstat(path)
	if err != nil {
		inner.Close()
		return nil, fmt.Errorf("listen on %q: %w", path, err)
	}
	return &unixListener{Listener: inner, path: path, identity: identity}, nil
}

// checkFree refuses a path where something else is, or a daemon that answers.
func checkFree(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("listen on %q: there is something that is no socket: remove it, or choose another runtime directory", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
		return fmt.Errorf("listen on %q: a daemon answers there: stop it, or choose another runtime directory", path)
	}
	return nil
}

// unixListener removes its socket on Close, unless another has taken its place.
type unixListener struct {
	net.Listener
	path     string
	identity fs.FileInfo
}

func (l *unixListener) Close() error {
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.identity) {
		os.Remove(l.path)
	}
	return l.Listener.Close()
}

// gate wraps a listener for fasthttp: it notes who connects, survives the lack of
// descriptors (fasthttp would stop serving for good), and can cut off whoever is
// still connected.
type gate struct {
	net.Listener
	ctx context.Context // ends the wait for descriptors

	closing sync.Once
	closed  error

	mu struct {
		sync.Mutex
		conns map[*peerConn]struct{}
	}
}

func newGate(ctx context.Context, inner net.Listener) *gate {
	g := &gate{Listener: inner, ctx: ctx}
	g.mu.conns = map[*peerConn]struct{}{}
	return g
}

// Close may be called again: fasthttp does.
func (g *gate) Close() error {
	g.closing.Do(func() { g.closed = g.Listener.Close() })
	return g.closed
}

// Accept returns *peerConn connections.
func (g *gate) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		pause := 50 * time.Millisecond
		switch {
		case err == nil:
			if peer := g.admit(conn); peer != nil {
				return peer, nil
			}
			turnAway(conn)
			pause = 10 * time.Millisecond // for others to end, and no busy loop
		case !passing(err):
			return nil, err
		}
		select {
		case <-g.ctx.Done():
			return nil, net.ErrClosed
		case <-time.After(pause):
		}
	}
}

// passing tells errors of accept(2) that end by themselves.
func passing(err error) bool {
	for _, errno := range []syscall.Errno{
		unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ECONNABORTED, unix.EINTR, unix.EAGAIN,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// admit returns nil if connsMax are connected already.
func (g *gate) admit(conn net.Conn) *peerConn {
	peer := &peerConn{Conn: conn, gate: g, uid: unmappedUID, pid: -1}
	if local, ok := conn.(*net.UnixConn); ok {
		peer.uid, peer.pid = credentials(local)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.mu.conns) >= connsMax {
		return nil
	}
	g.mu.conns[peer] = struct{}{}
	return peer
}

// turnAway answers a connection that there is no place for, before its request was
// read. The answer fits the connection's buffer, so that this does not wait.
func turnAway(conn net.Conn) {
	defer conn.Close()
	problem := newProblem(CodeLimit, fmt.Sprintf("%d connections are open already", connsMax), "", "close some, or try again in a second")
	body := problem.encode()
	conn.SetWriteDeadline(time.Now().Add(time.Second))
	fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\nServer: stokerd\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"+
		"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nRetry-After: %s\r\nContent-Length: %d\r\n\r\n%s",
		problem.Status, http.StatusText(problem.Status), retryAfter(time.Second), len(body), body)
}

// cutOff closes what is still connected.
func (g *gate) cutOff() {
	g.mu.Lock()
	conns := make([]*peerConn, 0, len(g.mu.conns))
	for conn := range g.mu.conns {
		conns = append(conns, conn)
	}
	g.mu.Unlock()
	for _, conn := range conns {
		conn.Close()
	}
}

// peerConn knows who is at its other end.
type peerConn struct {
	net.Conn
	gate *gate
	uid  uint32 // unmappedUID if not known
	pid  int32  // -1 if not known
}

// Close also forgets the connection.
func (c *peerConn) Close() error {
	c.gate.mu.Lock()
	delete(c.gate.mu.conns, c)
	c.gate.mu.Unlock()
	return c.Conn.Close()
}

// credentials asks the kernel who connected (SO_PEERCRED, unix(7)).
func credentials(conn *net.UnixConn) (uid uint32, pid int32) {
	uid, pid = unmappedUID, -1
	raw, err := conn.SyscallConn()
	if err != nil {
		return uid, pid
	}
	raw.Control(func(fd uintptr) {
		if who, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			uid, pid = who.Uid, who.Pid
		}
	})
	return uid, pid
}

// checkRuntimeDir refuses a directory in which another user could swap a socket.
func checkRuntimeDir(directory string, uid uint32) error {
	info, err := os.Stat(directory)
	if err != nil {
		return fmt.Errorf("runtime directory: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("runtime directory %q is no directory", filepath.Clean(directory))
	}
	if info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("runtime directory %q has mode %04o: others may replace the sockets in it; run chmod go-w on it",
			directory, info.Mode().Perm())
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != uid && owner != 0 {
		return fmt.Errorf("runtime directory %q belongs to uid %d, who may replace the sockets in it: remove it, or choose another", directory, owner)
	}
	return nil
}
