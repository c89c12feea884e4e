package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend/flash"
	"github.com/stokerio/stoker/backend/object"
	"github.com/stokerio/stoker/loader"
	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/loader/config"
	"github.com/stokerio/stoker/shm"
)

// sessionSocket is the name of the session socket in the runtime directory.
const sessionSocket = "session.sock"

// daemon is everything that start has started and wait stops.
type daemon struct {
	cfg       config.Config
	log       *slog.Logger
	locks     []*os.File // held for life: one daemon a directory
	node      *loader.Node
	api       *api.Server
	sessions  *net.UnixListener
	profiling func() error
}

// start brings up a daemon; on an error nothing of it is left.
func start(cfg config.Config) (_ *daemon, err error) {
	d := &daemon{cfg: cfg, log: newLogger(cfg.Log)}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.stop())
		}
	}()
	for _, directory := range []string{cfg.RuntimeDir, cfg.DataDir} {
		if err := d.claim(directory); err != nil {
			return nil, err
		}
	}
	if d.profiling, err = startPyroscope(cfg.Pyroscope, d.log); err != nil {
		return nil, err
	}
	if d.node, err = loader.Open(nodeOptions(cfg, d.log)); err != nil {
		return nil, err
	}
	if d.sessions, err = listenSessions(filepath.Join(cfg.RuntimeDir, sessionSocket)); err != nil {
		return nil, err
	}
	token, err := apiToken(cfg.API)
	if err != nil {
		return nil, err
	}
	d.api, err = api.Start(api.Options{
		Node: d.node, Logger: d.log, RuntimeDir: cfg.RuntimeDir, UserID: uint32(os.Getuid()),
		Admin: cfg.Admin.Enabled, Listen: cfg.API.Listen, Token: token,
		RequestsPerSecond: cfg.API.RequestsPerSecond,
	})
	return d, err
}

// wait serves until ctx ends or something fails, then stops everything.
func (d *daemon) wait(ctx context.Context) error {
	places := []any{"version", version, "sessions", d.sessions.Addr().String(),
		"api", filepath.Join(d.cfg.RuntimeDir, api.SocketName), "data", d.cfg.DataDir, "pid", os.Getpid()}
	if address := d.api.Address(); address != nil {
		places = append(places, "tcp", address.String()) // tells the port that was found for port 0
	}
	d.log.Info("ready", places...)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.node.Serve(d.sessions) })
	group.Go(func() error {
		<-ctx.Done()
		d.log.Info("stopping", "sessions", len(d.node.Sessions()))
		return d.stop()
	})
	err := group.Wait()
	if err == nil {
		d.log.Info("stopped")
	}
	return err
}

// stop ends what was started, newest first, within the shutdown timeout.
func (d *daemon) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), d.cfg.ShutdownTimeout)
	defer cancel()
	var errs []error
	if d.node != nil {
		errs = append(errs, within(ctx, "end the sessions", d.node.Close))
	}
	if d.api != nil {
		errs = append(errs, d.api.Close(ctx))
	}
	if d.sessions != nil {
		_ = d.sessions.Close() // also removes the socket; the node may have closed it before
	}
	if d.profiling != nil {
		errs = append(errs, within(ctx, "push the last profiles", d.profiling))
	}
	for _, lock := range d.locks {
		errs = append(errs, lock.Close())
	}
	return errors.Join(errs...)
}

// within runs do until ctx ends; what then still runs ends with the process.
func within(ctx context.Context, what string, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%s: not done within shutdown_timeout; a device or server may hang", what)
	}
}

// claim makes a directory if need be and holds a lock on it, so that there is one
// daemon for it.
func (d *daemon) claim(directory string) error {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(directory, "stokerd.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lock directory: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("another stokerd uses %s: stop it, or give this one other directories (--runtime-dir, --data-dir)", directory)
		}
		return fmt.Errorf("lock directory %s: %w", directory, err)
	}
	d.locks = append(d.locks, lock)
	return nil
}

// listenSessions makes the session socket. The lock on its directory says that
// whatever lies at path is of a daemon that is gone.
func listenSessions(path string) (*net.UnixListener, error) {
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove the socket of an earlier daemon: %w", err)
		}
	}
	listener, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("listen for sessions: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for sessions: %w", err), listener.Close())
	}
	return listener, nil
}

func apiToken(cfg config.API) (config.Secret, error) {
	if cfg.TokenFile == "" {
		return config.Secret{}, nil
	}
	return config.ReadSecret(cfg.TokenFile)
}

func nodeOptions(cfg config.Config, log *slog.Logger) loader.Options {
	return loader.Options{
		DataDir: cfg.DataDir,
		Version: api.Version{Version: version, Revision: revision, Go: runtime.Version(), Protocol: shm.ProtocolMax, PID: os.Getpid()},
		Logger:  log, UID: os.Getuid(), MessagesPerSecond: cfg.Session.MessageRateMax,
		Session: loader.SessionOptions{
			Readers: cfg.Session.Readers, Slots: cfg.Session.Slots,
			RingBytesMax: int64(cfg.Session.RingBytesMax), RingBytesTotal: int64(cfg.Session.RingBytesTotal),
			OrderTableBytes: int64(cfg.Session.OrderTableBytes), BatchBytesMax: int64(cfg.Session.BatchBytesMax),
			SessionsMax: cfg.Session.SessionsMax, SessionsPerPeer: cfg.Session.SessionsPerClientMax,
		},
		Prefetch: loader.PrefetchOptions{
			Off: !cfg.Prefetch.Enabled, WindowBytes: int64(cfg.Prefetch.WindowBytes), Workers: cfg.Prefetch.Workers,
			Epsilon: cfg.Prefetch.Epsilon, HedgeShare: cfg.Prefetch.HedgeShare,
		},
		Hints:  loader.HintOptions{Max: cfg.Prefetch.HintsMax, BytesMax: int64(cfg.Prefetch.HintsBytesMax), IndicesMax: int64(cfg.Prefetch.IndicesMax)},
		Object: object.Options{OpenFiles: cfg.IO.OpenFiles, ColdReads: cfg.IO.ColdReads},
		Flash:  flashOptions(cfg.Flash),
	}
}

func flashOptions(cfg config.Flash) flash.Options {
	options := flash.Options{SyncInterval: cfg.SyncInterval, Direct: cfg.Direct, ScrubBytesPerSecond: int64(cfg.ScrubRate)}
	if !cfg.Scrub {
		options.ScrubBytesPerSecond = -1
	}
	for _, d := range cfg.Devices {
		options.Devices = append(options.Devices, flash.Device{Path: filepath.Clean(d.Path), LimitBytes: int64(d.Limit)})
	}
	return options
}

// newLogger writes structured lines to standard error.
func newLogger(cfg config.Log) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.Level)); err != nil {
		level = slog.LevelInfo // Validate has refused every other word
	}
	options := &slog.HandlerOptions{Level: level}
	if cfg.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}
