package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// endGrace is how long a child may take to end by itself before it is killed.
const endGrace = 10 * time.Second

// child is a process that this package started, and therefore ends.
type child struct {
	name string
	cmd  *exec.Cmd
	tail *tailWriter
	done chan struct{} // closed by the goroutine that waits for the process
	err  error         // how it ended; read after done
}

// startChild starts cmd, whose stderr goes to the log. The caller calls end.
func startChild(name string, cmd *exec.Cmd, log *slog.Logger) (*child, error) {
	c := &child{name: name, cmd: cmd, done: make(chan struct{})}
	c.tail = &tailWriter{log: log.With("process", name)}
	cmd.Stderr = c.tail
	// A DataLoader worker that outlives its parent must not hold us up.
	cmd.WaitDelay = 2 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s (%s): %w", name, cmd.Path, err)
	}
	go func() {
		c.err = cmd.Wait()
		close(c.done)
	}()
	return c, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// end asks the process to end, waits a while, aborts it (which makes Go and Python
// say where they were), kills it, and returns once it is gone.
func (c *child) end(signal syscall.Signal) error {
	if signal != 0 {
		_ = c.cmd.Process.Signal(signal)
	}
	if c.endsWithin(endGrace) {
		return nil
	}
	_ = c.cmd.Process.Signal(syscall.SIGABRT)
	if !c.endsWithin(time.Second) {
		_ = c.cmd.Process.Kill()
		<-c.done
	}
	return fmt.Errorf("%s did not end within %s and was killed; it last said:\n%s", c.name, endGrace, c.tail)
}

func (c *child) endsWithin(bound time.Duration) bool {
	select {
	case <-c.done:
		return true
	case <-time.After(bound):
		return false
	}
}

// died explains the end of a process that should still be there.
func (c *child) died() error {
	select {
	case <-c.done:
		return fmt.Errorf("%s ended (%w); it last said:\n%s", c.name, c.err, c.tail)
	case <-time.After(time.Second):
		return fmt.Errorf("%s closed its output; it last said:\n%s", c.name, c.tail)
	}
}

// output runs a command to its end and returns its standard output. When ctx is
// cancelled the process is asked to end, then killed.
func output(ctx context.Context, name string, cmd *exec.Cmd, log *slog.Logger) ([]byte, error) {
	var out bytes.Buffer
	cmd.Stdout = &out
	c, err := startChild(name, cmd, log)
	if err != nil {
		return nil, err
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		return nil, errors.Join(context.Cause(ctx), c.end(syscall.SIGTERM))
	}
	if c.err != nil {
		return nil, fmt.Errorf("%s: %w; it said:\n%s", name, c.err, c.tail)
	}
	return out.Bytes(), nil
}

// tailWriter logs what a process says line by line and remembers the end of it.
type tailWriter struct {
	log *slog.Logger
	mu  struct {
		sync.Mutex
		tail []byte
		line []byte
	}
}

const tailBytes = 4096

// Write never fails.
func (w *tailWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.tail = append(w.mu.tail, p...)
	if extra := len(w.mu.tail) - tailBytes; extra > 0 {
		w.mu.tail = w.mu.tail[extra:]
	}
	w.mu.line = append(w.mu.line, p...)
	for {
		line, rest, found := bytes.Cut(w.mu.line, []byte("\n"))
		if !found {
			return len(p), nil
		}
		w.log.Debug(string(line))
		w.mu.line = append([]byte(nil), rest...)
	}
}

// String returns the last of what was written.
func (w *tailWriter) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.mu.tail)
}
