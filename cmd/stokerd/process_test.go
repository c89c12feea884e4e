package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/shm"
)

// asDaemon in the environment makes this test binary behave as stokerd.
const asDaemon = "STOKERD_TEST_AS_DAEMON"

// process is a stokerd of its own, killed when the test ends.
type process struct {
	t          testing.TB
	command    *exec.Cmd
	runtimeDir string
}

// startProcess runs stokerd and waits until it is ready.
// It may have that many descriptors.
func startProcess(t testing.TB, descriptors int) *process {
	t.Helper()
	p := &process{t: t, runtimeDir: t.TempDir()}
	p.command = exec.Command("/bin/sh", "-c", `ulimit -n "$0" && exec "$@"`, strconv.Itoa(descriptors),
		os.Args[0], "--runtime-dir", p.runtimeDir, "--data-dir", t.TempDir())
	p.command.Env = append(os.Environ(), asDaemon+"=1")
	log, err := p.command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	ready, drained := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(drained)
		var tail []string
		for lines := bufio.NewScanner(log); lines.Scan(); {
			if tail = append(tail, lines.Text()); strings.Contains(lines.Text(), "msg=ready") {
				close(ready)
			}
		}
		if t.Failed() {
			t.Logf("log of stokerd:\n%s", strings.Join(tail[max(0, len(tail)-20):], "\n"))
		}
	}()
	t.Cleanup(func() {
		_ = p.command.Process.Kill()
		<-drained
		_ = p.command.Wait()
	})
	select {
	case <-ready:
	case <-drained:
		t.Fatal("stokerd ended before it was ready")
	}
	return p
}

// dial connects and says hello; the daemon must answer within bound.
func (p *process) dial(bound time.Duration) (*shm.Conn, error) {
	conn, err := shm.Dial(filepath.Join(p.runtimeDir, sessionSocket))
	if err != nil {
		return nil, err
	}
	if _, err := ask(conn, shm.Hello{Type: shm.TypeHello, Min: 1, Max: 1}, bound, nil); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// ask sends a message and decodes the answer, following progress notes.
func ask(conn *shm.Conn, request any, bound time.Duration, into any, descriptors ...int) ([]int, error) {
	if err := conn.SetReadDeadline(time.Now().Add(bound)); err != nil {
		return nil, err
	}
	if err := conn.Send(request, bound, descriptors...); err != nil {
		return nil, err
	}
	for {
		packet, received, err := conn.Receive()
		if err != nil {
			return nil, err
		}
		var answer shm.ErrorAnswer
		if err := json.Unmarshal(packet, &answer); err != nil {
			return nil, err
		}
		switch answer.Type {
		case shm.TypeProgress:
			continue
		case shm.TypeError:
			return nil, &answer.Error
		}
		if into == nil {
			return received, nil
		}
		return received, json.Unmarshal(packet, into)
	}
}

// session adds a small dataset and opens a session on it.
func (p *process) session() (*shm.Conn, *shm.Consumer) {
	p.t.Helper()
	dir := p.t.TempDir()
	for i := range 50 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), make([]byte, 1000), 0o644); err != nil {
			p.t.Fatal(err)
		}
	}
	conn, err := p.dial(5 * time.Second)
	if err != nil {
		p.t.Fatal(err)
	}
	directory, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	add := shm.DatasetAdd{Type: shm.TypeDatasetAdd, Name: "d", Format: "raw", Path: dir}
	_, err = ask(conn, add, 5*time.Second, nil, directory)
	_ = unix.Close(directory)
	if err != nil {
		p.t.Fatal(err)
	}
	open := shm.Open{Type: shm.TypeOpen, Dataset: "d", BatchSize: 8, Order: "global", WorldSize: 1, Transport: shm.TransportRing}
	descriptors, err := ask(conn, open, 5*time.Second, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	consumer, err := shm.MapConsumer(descriptors[0])
	shm.CloseAll(descriptors)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		_ = conn.Close()
		_ = consumer.Close()
	})
	return conn, consumer
}

func takeBatches(t testing.TB, consumer *shm.Consumer, count int) {
	t.Helper()
	for range count {
		e, ok := consumer.Take(5 * time.Second)
		if !ok || e.Kind == shm.KindError {
			t.Fatalf("entry %+v, %v: %s", e, ok, consumer.Slot(e))
		}
		consumer.Release(e)
	}
}

func TestShortOfDescriptorsTheDaemonRefusesNewClientsAndServesTheOthers(t *testing.T) {
	p := startProcess(t, 128)
	_, consumer := p.session()
	var others []*shm.Conn
	var failure *shm.Failure
	for range 128 {
		conn, err := p.dial(5 * time.Second)
		if err != nil {
			if !errors.As(err, &failure) || failure.Code != "limit" || failure.Remedy == "" {
				t.Errorf("refused with %v, expected the limit and a remedy", err)
			}
			break
		}
		others = append(others, conn)
	}
	if failure == nil {
		t.Error("128 connections fit 128 descriptors")
	}
	takeBatches(t, consumer, 1000)
	for _, conn := range others {
		_ = conn.Close()
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		conn, err := p.dial(time.Second)
		if err == nil {
			_ = conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the others are gone, yet: %v", err)
		}
	}
	takeBatches(t, consumer, 1000)
}

func TestDescriptorsKeptForReuseMakeWayForClients(t *testing.T) {
	p := startProcess(t, 1024)
	conn, consumer := p.session() // leaves 50 files open
	takeBatches(t, consumer, 20)
	var closed shm.Envelope
	if _, err := ask(conn, shm.Envelope{Type: shm.TypeClose}, 5*time.Second, &closed); err != nil {
		t.Fatal(err)
	}
	few := &unix.Rlimit{Cur: 40, Max: 40}
	if err := unix.Prlimit(p.command.Process.Pid, unix.RLIMIT_NOFILE, few, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := p.dial(5 * time.Second); err != nil {
		t.Error(err)
	}
}

func TestSIGTERMTellsSessionsAndEndsWithCodeZero(t *testing.T) {
	p := startProcess(t, 1024)
	conn, consumer := p.session()
	takeBatches(t, consumer, 5)
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	packet, _, err := conn.Receive()
	if err != nil || !strings.Contains(string(packet), `"bye"`) {
		t.Errorf("received %s, %v", packet, err)
	}
	if err := p.command.Wait(); err != nil {
		t.Errorf("stokerd ended with %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(p.runtimeDir, "*.sock")); err != nil || len(left) != 0 {
		t.Errorf("sockets left: %v, %v", left, err)
	}
}

// connectSource connects and prints what comes back.
const connectSource = `
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(sys.argv[1])
print(s.recv(65536).decode())
`

// TestAProcessOfAnotherUserIsRefused connects as another user where this test may
// become one; elsewhere package loader's test of the same name, with the node's
// uid changed, is all there can be.
func TestAProcessOfAnotherUserIsRefused(t *testing.T) {
	p := startProcess(t, 1024)
	socket := filepath.Join(p.runtimeDir, sessionSocket)
	open := func(path string, mode os.FileMode) {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	open(socket, 0o666) // so that it is the daemon that refuses, not the file system
	for dir := p.runtimeDir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		open(dir, 0o755)
	}
	other := exec.Command("python3", "-c", connectSource, socket)
	other.Dir = "/"
	if os.Getuid() != 0 {
		t.Log("not root: connecting as this user, who is served")
		return
	}
	other.Path = "/usr/bin/python3" // one that another user may execute
	other.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12345, Gid: 12345}}
	answer, err := other.CombinedOutput()
	if err != nil || !strings.Contains(string(answer), `"permission"`) || !strings.Contains(string(answer), "12345") {
		t.Errorf("uid 12345 is answered %s, %v", answer, err)
	}
}
