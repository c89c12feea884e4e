package bench

import (
	"bufio"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

//go:embed consumers/*.py
var consumerFiles embed.FS

// interpreter is how consumers are started.
type interpreter struct {
	python  string
	scripts string   // folder of the unpacked consumer scripts
	env     []string // complete environment
	log     *slog.Logger
}

// newInterpreter unpacks the scripts into dir.
func newInterpreter(o CompareOptions, dir, runtimeDir string) (interpreter, error) {
	if err := writeConsumers(dir); err != nil {
		return interpreter{}, fmt.Errorf("write consumer scripts to %q: %w", dir, err)
	}
	path := o.PythonPath
	if more := os.Getenv("PYTHONPATH"); more != "" {
		path += ":" + more
	}
	env := append(os.Environ(), "PYTHONPATH="+path, "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1",
		"STOKER_RUNTIME_DIR="+runtimeDir,
		// Peers copy with one thread a process: more only fight over the cores.
		"OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1", "MKL_NUM_THREADS=1")
	return interpreter{python: o.Python, scripts: dir, env: env, log: o.Logger}, nil
}

func writeConsumers(dir string) error {
	entries, err := consumerFiles.ReadDir("consumers")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		content, err := consumerFiles.ReadFile("consumers/" + entry.Name())
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, entry.Name()), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// command returns a Python process that runs one of the scripts.
func (i interpreter) command(script string, arguments ...string) *exec.Cmd {
	cmd := exec.Command(i.python, append([]string{filepath.Join(i.scripts, script)}, arguments...)...)
	cmd.Env = i.env
	return cmd
}

// consumer is a Python process that keeps one source and runs it when told to.
type consumer struct {
	*child
	in    io.WriteCloser
	out   *os.File
	lines *bufio.Reader
	hello helloAnswer
}

// helloAnswer is a consumer's first line.
type helloAnswer struct {
	Event, Error                     string
	Pid                              int
	Python, Numpy, Torch, WebDataset string
}

// runAnswer is what one timed section measured.
type runAnswer struct {
	Event, Error string
	Rows         int64
	Batches      int64
	WallNs       int64                       `json:"wall_ns"`
	WaitNs       int64                       `json:"wait_ns"`
	CPUNs        int64                       `json:"cpu_ns"`
	FirstBatchNs int64                       `json:"first_batch_ns"`
	Pss          map[string]map[string]int64 `json:"pss"` // by pid, then kind; bytes
	Details      json.RawMessage
}

// verifyAnswer says how many rows held wrong bytes.
type verifyAnswer struct {
	Event, Error          string
	Rows, Wrong, Distinct int64
}

// startConsumer starts a process for a source and waits until its imports are done.
func startConsumer(ctx context.Context, i interpreter, name string, config map[string]any) (*consumer, error) {
	argument, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	cmd := i.command("main.py", string(argument))
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	// An own pipe: exec's closes with Wait, while answers may still be in it.
	out, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout = write
	c := &consumer{in: in, out: out, lines: bufio.NewReaderSize(out, 1<<16)}
	c.child, err = startChild(name, cmd, i.log)
	_ = write.Close()
	if err != nil {
		_ = out.Close()
		return nil, err
	}
	if err := c.answer(ctx, 120*time.Second, &c.hello); err != nil {
		return nil, errors.Join(err, c.close())
	}
	if c.hello.Event != "ready" {
		return nil, errors.Join(fmt.Errorf("consumer %s:\n%s", name, indent(c.hello.Error)), c.close())
	}
	return c, nil
}

// ask sends a request and waits for its answer, at most for bound.
func (c *consumer) ask(ctx context.Context, bound time.Duration, request, answer any) error {
	line, err := json.Marshal(request)
	if err != nil {
		return err
	}
	if _, err := c.in.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("tell %s what to do: %w", c.name, errors.Join(err, c.died()))
	}
	return c.answer(ctx, bound, answer)
}

func (c *consumer) answer(ctx context.Context, bound time.Duration, answer any) error {
	if err := c.out.SetReadDeadline(time.Now().Add(bound)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.out.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	line, err := c.lines.ReadBytes('\n')
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%s gave no answer within %s; it last said:\n%s", c.name, bound, c.tail)
	case err != nil:
		return c.died()
	}
	if err := json.Unmarshal(line, answer); err != nil {
		return fmt.Errorf("answer of %s: %w: %.200s", c.name, err, line)
	}
	return nil
}

// run measures one section of a row.
func (c *consumer) run(ctx context.Context, section time.Duration, batches int, daemonPid int) (runAnswer, error) {
	request := map[string]any{"cmd": "run", "seconds": section.Seconds(), "daemon_pid": daemonPid}
	if batches > 0 {
		request["batches"] = batches
	}
	var a runAnswer
	if err := c.ask(ctx, 5*section+60*time.Second, request, &a); err != nil {
		return a, err
	}
	if a.Event != "result" {
		return a, fmt.Errorf("row %s:\n%s", c.name, indent(a.Error))
	}
	return a, nil
}

// verify checks the bytes of some batches.
func (c *consumer) verify(ctx context.Context, batches int) (verifyAnswer, error) {
	var a verifyAnswer
	request := map[string]any{"cmd": "verify", "batches": batches}
	if err := c.ask(ctx, 60*time.Second, request, &a); err != nil {
		return a, err
	}
	if a.Event != "result" {
		return a, fmt.Errorf("verify row %s:\n%s", c.name, indent(a.Error))
	}
	if a.Wrong != 0 || a.Rows == 0 {
		return a, fmt.Errorf("row %s delivered wrong bytes in %d of %d samples", c.name, a.Wrong, a.Rows)
	}
	return a, nil
}

// close ends the process: at the end of its input it ends by itself.
func (c *consumer) close() error {
	_ = c.in.Close()
	err := c.end(0)
	return errors.Join(err, c.out.Close())
}

func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ")
}
