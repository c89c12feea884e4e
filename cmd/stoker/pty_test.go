package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/loader/config"
)

// contextOf is a context with its end.
func contextOf(t *testing.T) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return ctx, cancel
}

// openTerminal makes a pseudo-terminal of a size: what a person sits at, and what
// the program has.
func openTerminal(t *testing.T, columns, rows uint16) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { person.Close() })
	number := 0
	control(t, person, func(fd int) error {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return err
	})
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	resize(t, person, columns, rows)
	return person, program
}

// control runs an ioctl. File.Fd would make the file blocking, and reads of it
// without a deadline.
func control(t *testing.T, file *os.File, ioctl func(fd int) error) {
	t.Helper()
	raw, err := file.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = ioctl(int(fd)) }); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
}

func resize(t *testing.T, terminal *os.File, columns, rows uint16) {
	t.Helper()
	control(t, terminal, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows})
	})
}

var escapes = regexp.MustCompile(`\x1b(\[[0-9;?$>=]*[a-zA-Z]|\][^\a\x1b]*(\a|\x1b\\)|[=>])`)

// screenReader gathers what a program draws.
type screenReader struct {
	terminal *os.File
	seen     bytes.Buffer
}

// until reads until what was drawn, without escapes, holds text.
func (s *screenReader) until(t *testing.T, text string) {
	t.Helper()
	if err := s.terminal.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	for !strings.Contains(escapes.ReplaceAllString(s.seen.String(), ""), text) {
		n, err := s.terminal.Read(b)
		if err != nil {
			t.Fatalf("%q was not drawn, but %q: %v", text, s.seen.String(), err)
		}
		s.seen.Write(b[:n])
	}
}

func TestTopOnARealTerminal(t *testing.T) {
	p := newPlace(t)
	p.serveAPI(t, newFakeNode())
	person, program := openTerminal(t, 110, 24)
	if !isTerminal(program) {
		t.Fatal("no terminal")
	}
	done := make(chan int, 1)
	a := &app{
		clock: systemClock(), in: program, out: program, err: program, terminal: true, screen: true,
		environment: config.Environment{UserID: os.Getuid(), Lookup: func(name string) (string, bool) {
			value, ok := map[string]string{runtimeDirVariable: p.directory, "TERM": "xterm-256color"}[name]
			return value, ok
		}},
	}
	go func() { done <- a.run(t.Context(), []string{"top", "--interval", "100ms"}) }()
	screen := &screenReader{terminal: person}
	screen.until(t, "trainers wait")
	screen.until(t, "s-2")
	if _, err := person.WriteString("p"); err != nil {
		t.Fatal(err)
	}
	screen.until(t, "paused")
	screen.seen.Reset()
	resize(t, person, 100, 30) // draws everything anew; the kernel tells only who has the terminal as its own
	if err := unix.Kill(os.Getpid(), unix.SIGWINCH); err != nil {
		t.Fatal(err)
	}
	screen.until(t, "paused")
	screen.until(t, "q quit")
	if _, err := person.WriteString("q"); err != nil {
		t.Fatal(err)
	}
	drained := make(chan struct{})
	go func() { // a program that waits for room to write would never end
		defer close(drained)
		for {
			if _, err := person.Read(make([]byte, 4096)); err != nil {
				return
			}
		}
	}()
	select {
	case code := <-done:
		if code != exitOK {
			t.Errorf("exit code %d", code)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("q does not end it")
	}
	program.Close() // the last: the person reads the end
	<-drained
}
