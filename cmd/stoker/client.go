package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/loader/config"
)

// answerBytesMax bounds what is read of an answer; a list of ten thousand
// datasets with a thousand classes each is below it.
const answerBytesMax = 256 << 20

// requestTimeout bounds one request to the daemon.
const requestTimeout = time.Minute

// client speaks to one daemon's API socket.
type client struct {
	directory string // runtime directory of the daemon that answered
	http      *http.Client
}

// directories are the places where the daemon may be, likeliest first.
func (a *app) directories() []string {
	if a.runtimeDir != "" {
		return []string{a.runtimeDir}
	}
	if named, ok := a.environment.Lookup(runtimeDirVariable); ok && named != "" {
		return []string{named}
	}
	return config.RuntimeDirs(a.environment)
}

// connect finds the daemon: the first place where one answers. The caller closes
// the client.
func (a *app) connect(ctx context.Context) (*client, error) {
	var tried []string
	for _, directory := range a.directories() {
		socket := filepath.Join(directory, api.SocketName)
		tried = append(tried, socket)
		if err := a.checkOwner(directory); err != nil {
			return nil, err
		}
		conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", socket)
		if err == nil {
			conn.Close()
			return newClient(directory), nil
		}
		if !absent(err) {
			return nil, connectFailure(socket, err)
		}
	}
	return nil, notRunning(tried)
}

// absent tells errors that mean that no daemon is there.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOTDIR)
}

// checkOwner refuses a directory that somebody else may have put where the daemon
// is looked for: whoever owns the socket gets the directories that are added.
func (a *app) checkOwner(directory string) error {
	info, err := os.Stat(directory)
	if err != nil {
		return nil // nothing is there: dialling says so
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	if owner == 0 || int(owner) == a.environment.UserID || a.environment.UserID == 0 {
		return nil
	}
	return &failure{
		Code: string(api.CodePermission), What: fmt.Sprintf("the runtime directory belongs to uid %d, not to you", owner), Where: directory,
		Why:    "stokerd serves only the user who runs it, and nobody else's socket is trusted",
		Remedy: "run your own stokerd, and name its directory with --runtime-dir or " + runtimeDirVariable, exit: exitError,
	}
}

func connectFailure(socket string, err error) *failure {
	f := &failure{Code: string(api.CodeUnavailable), What: "cannot connect to stokerd", Where: socket, Why: err.Error(), exit: exitError}
	if errors.Is(err, fs.ErrPermission) {
		f.Code = string(api.CodePermission)
		f.Remedy = "stokerd serves only the user who runs it: run your own"
	}
	return f
}

func notRunning(tried []string) *failure {
	return &failure{
		Code: "not_running", What: "stokerd is not running", Where: strings.Join(tried, ", "), Why: "no daemon answers there",
		Remedy: "start it with: stokerd & (or systemctl --user start stokerd); if it runs elsewhere, name its --runtime-dir or set " + runtimeDirVariable,
		exit:   exitNotRunning,
	}
}

func newClient(directory string) *client {
	socket := filepath.Join(directory, api.SocketName)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	return &client{directory: directory, http: &http.Client{Transport: &http.Transport{DialContext: dial}, Timeout: requestTimeout}}
}

// close ends the connections.
func (c *client) close() { c.http.CloseIdleConnections() }

// get reads the JSON at path into answer. Errors of the daemon are *api.Error.
func (c *client) get(ctx context.Context, answer any, path ...string) error {
	body, err := c.do(ctx, http.MethodGet, path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, answer); err != nil {
		return fmt.Errorf("read the daemon's answer for %s: %w", strings.Join(path, "/"), err)
	}
	return nil
}

// send sends JSON to path and reads the answer's into answer.
func (c *client) send(ctx context.Context, method string, request, answer any, path ...string) error {
	text, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("write the request for %s: %w", strings.Join(path, "/"), err)
	}
	body, err := c.exchange(ctx, method, path, text)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, answer); err != nil {
		return fmt.Errorf("read the daemon's answer for %s: %w", strings.Join(path, "/"), err)
	}
	return nil
}

// do sends a request for the path made of these segments.
func (c *client) do(ctx context.Context, method string, path []string) ([]byte, error) {
	return c.exchange(ctx, method, path, nil)
}

// exchange sends a request with a body, nil for none, and returns the answer's.
func (c *client) exchange(ctx context.Context, method string, path []string, text []byte) ([]byte, error) {
	escaped := make([]string, len(path))
	for i, segment := range path {
		escaped[i] = url.PathEscape(segment)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://stokerd/"+strings.Join(escaped, "/"), bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("request %s: %w", strings.Join(path, "/"), err)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.failed(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, answerBytesMax))
	if err != nil {
		return nil, fmt.Errorf("read the daemon's answer for %s: %w", strings.Join(path, "/"), err)
	}
	if response.StatusCode >= http.StatusBadRequest {
		return nil, problemIn(response, body)
	}
	return body, nil
}

// stream asks for an answer that lasts until ctx ends. The caller closes it.
func (c *client) stream(ctx context.Context, query url.Values, path ...string) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://stokerd/"+strings.Join(path, "/")+"?"+query.Encode(), http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("request %s: %w", strings.Join(path, "/"), err)
	}
	lasting := http.Client{Transport: c.http.Transport} // without a limit of time
	response, err := lasting.Do(request)
	if err != nil {
		return nil, c.failed(err)
	}
	if response.StatusCode < http.StatusBadRequest {
		return response.Body, nil
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, answerBytesMax))
	if err != nil {
		return nil, fmt.Errorf("read the daemon's answer for %s: %w", strings.Join(path, "/"), err)
	}
	return nil, problemIn(response, body)
}

// failed says why a request did not reach the daemon.
func (c *client) failed(err error) error {
	socket := filepath.Join(c.directory, api.SocketName)
	if absent(err) {
		return notRunning([]string{socket})
	}
	return connectFailure(socket, err)
}

// problemIn reads the daemon's error, or says that what answered is no stokerd.
func problemIn(response *http.Response, body []byte) error {
	var problem api.Error
	if err := json.Unmarshal(body, &problem); err != nil || problem.What == "" {
		return fmt.Errorf("the daemon answered %s without saying why", response.Status)
	}
	return &problem
}
