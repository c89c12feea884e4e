package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// daemon is a stokerd with directories of its own, started for one comparison.
type daemon struct {
	*child
	runtimeDir string
	dataDir    string
	stoker     string // the CLI
	http       *http.Client
	admin      *http.Client
	log        *slog.Logger
}

// startDaemon starts stokerd on fresh directories below dir and waits until it is ready.
func startDaemon(ctx context.Context, o CompareOptions, dir string) (*daemon, error) {
	d := &daemon{
		runtimeDir: filepath.Join(dir, "run"), dataDir: filepath.Join(dir, "data"),
		stoker: o.Stoker, log: o.Logger,
	}
	for _, sub := range []string{d.runtimeDir, d.dataDir} {
		if err := os.MkdirAll(sub, 0o700); err != nil {
			return nil, err
		}
	}
	d.http = socketClient(filepath.Join(d.runtimeDir, "api.sock"))
	d.admin = socketClient(filepath.Join(d.runtimeDir, "admin.sock"))
	cmd := exec.Command(o.Stokerd, "--runtime-dir", d.runtimeDir, "--data-dir", d.dataDir)
	if o.Readers > 0 {
		config := filepath.Join(dir, "stokerd.yaml")
		if err := os.WriteFile(config, fmt.Appendf(nil, "session:\n  readers: %d\n", o.Readers), 0o600); err != nil {
			return nil, err
		}
		cmd.Args = append(cmd.Args, "--config", config)
	}
	var err error
	if d.child, err = startChild("stokerd", cmd, o.Logger); err != nil {
		return nil, err
	}
	if err := d.waitReady(ctx); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func socketClient(socket string) *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
}

func (d *daemon) waitReady(ctx context.Context) error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		_, err := d.get(ctx, "/readyz")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-d.done:
			return d.died()
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("stokerd is not ready after 20 s: %w; it last said:\n%s", err, d.tail)
		}
	}
}

// close stops the daemon as an administrator would.
func (d *daemon) close() error {
	d.http.CloseIdleConnections()
	d.admin.CloseIdleConnections()
	return d.end(syscall.SIGTERM)
}

// get fetches a path of the HTTP API.
func (d *daemon) get(ctx context.Context, path string) ([]byte, error) {
	return fetch(ctx, d.http, path)
}

// profile takes a CPU profile of the daemon.
func (d *daemon) profile(ctx context.Context, seconds int) ([]byte, error) {
	return fetch(ctx, d.admin, fmt.Sprintf("/debug/pprof/profile?seconds=%d", seconds))
}

func fetch(ctx context.Context, client *http.Client, path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://stokerd"+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s: %.200s", path, response.Status, body)
	}
	return body, nil
}

// metric returns the value of a metric without labels.
func (d *daemon) metric(ctx context.Context, name string) (float64, error) {
	body, err := d.get(ctx, "/metrics")
	if err != nil {
		return 0, err
	}
	for scan := bufio.NewScanner(strings.NewReader(string(body))); scan.Scan(); {
		if value, found := strings.CutPrefix(scan.Text(), name+" "); found {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, fmt.Errorf("the daemon has no metric %s", name)
}

// addDataset runs `stoker dataset add`.
func (d *daemon) addDataset(ctx context.Context, name, dir, format string) error {
	cmd := exec.Command(d.stoker, "dataset", "add", name, dir, "--format", format, "--json")
	cmd.Env = append(os.Environ(), "STOKER_RUNTIME_DIR="+d.runtimeDir)
	if _, err := output(ctx, "stoker dataset add "+name, cmd, d.log); err != nil {
		return err
	}
	return nil
}

// pssBytes reads the proportional set size of a process, 0 if it is gone.
func pssBytes(pid int) int64 {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(content)) {
		if rest, found := strings.CutPrefix(line, "Pss:"); found {
			fields := strings.Fields(rest)
			if len(fields) == 0 {
				return 0
			}
			kib, _ := strconv.ParseInt(fields[0], 10, 64)
			return kib << 10
		}
	}
	return 0
}

// collectGarbage lets the daemon's heap shrink to what is in use; the heap
// profile of the admin socket does so on request.
func (d *daemon) collectGarbage(ctx context.Context) error {
	socket := filepath.Join(d.runtimeDir, "admin.sock")
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://stokerd/debug/pprof/heap?gc=1", nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("collect the daemon's garbage: %w", err)
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}
