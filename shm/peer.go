package shm

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// NobodyUID is what the kernel reports for a uid that has no mapping into our
// user namespace. It identifies no one and is always refused.
const NobodyUID = 65534

// Peer is the process at the other end of a Unix socket, as the kernel knew it
// when the connection was made.
type Peer struct {
	UID, GID uint32
	PID      int32 // 0 if the process is not visible from our pid namespace
}

// PeerOf asks the kernel who is at the other end.
func PeerOf(conn *net.UnixConn) (Peer, error) {
	var cred *unix.Ucred
	err := control(conn, func(fd int) (err error) {
		cred, err = unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		return err
	})
	if err != nil {
		return Peer{}, fmt.Errorf("ask who is at the other end of the socket: %w", err)
	}
	return Peer{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid}, nil
}

func control(conn *net.UnixConn, do func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = do(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// Process watches one process by a pidfd, so that a recycled pid is never
// mistaken for it.
type Process struct{ file *os.File }

// soPeerPidfd is SO_PEERPIDFD (Linux 6.5): the pidfd of who connected, without
// the race of looking its pid up afterwards.
const soPeerPidfd = 77

// WatchPeer opens a pidfd of the process at the other end. It returns nil and no
// error where the kernel or the pid namespaces do not allow one; the lease then
// ends with the connection alone.
func WatchPeer(conn *net.UnixConn) (*Process, error) {
	fd := -1
	err := control(conn, func(socket int) (err error) {
		fd, err = unix.GetsockoptInt(socket, unix.SOL_SOCKET, soPeerPidfd)
		return err
	})
	if errors.Is(err, unix.ENOPROTOOPT) {
		fd, err = pidfdOf(conn)
	}
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODATA) {
		return nil, nil //nolint:nilnil // documented: no watch is possible
	}
	if err != nil {
		return nil, fmt.Errorf("watch the process at the other end of the socket: %w", err)
	}
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("watch the process at the other end of the socket: %w", err)
	}
	return &Process{file: os.NewFile(uintptr(fd), "pidfd")}, nil
}

func pidfdOf(conn *net.UnixConn) (int, error) {
	peer, err := PeerOf(conn)
	if err != nil {
		return -1, err
	}
	if peer.PID == 0 {
		return -1, unix.ESRCH
	}
	return unix.PidfdOpen(int(peer.PID), 0)
}

// Wait returns nil when the process has exited, or an error once Close was called.
func (p *Process) Wait() error {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		return err == nil && n == 1
	})
}

// Close ends the watch and every Wait.
func (p *Process) Close() error { return p.file.Close() }
