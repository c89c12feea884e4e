package api

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/stokerio/stoker/loader/config"
)

// Limits of every door. Nothing that the API takes is large, but a hint's indices.
const (
	headerBytesMax = 16 << 10         // request line and headers together
	uriBytesMax    = 8 << 10          // path and query
	bodyBytesMax   = 64 << 10         // request body
	connsMax       = 256              // connections of one door
	requestsMax    = 32               // requests of one door being worked on
	watchesMax     = 8                // and of those for health and metrics, besides
	readTimeout    = 10 * time.Second // for a whole request
	writeTimeout   = 30 * time.Second // for a whole answer, from its first byte
	idleTimeout    = 2 * time.Minute  // between requests of one connection
	requestTimeout = 30 * time.Second // for a Node's work

	// sweepInterval is how often fasthttp looks for worker goroutines to end, and
	// how long that one goroutine may outlive Close: fasthttp has no way to wait
	// for it (workerPool.Start, by default 10 s).
	sweepInterval = 250 * time.Millisecond
)

// Names of the sockets in the runtime directory.
const (
	SocketName      = "api.sock"
	AdminSocketName = "admin.sock"
)

// Options says what to serve and where. Node, Logger and RuntimeDir are required.
type Options struct {
	Node       Node
	Logger     *slog.Logger
	RuntimeDir string        // exists, and belongs to the daemon alone
	UserID     uint32        // besides root, whose connections to the sockets are served
	Admin      bool          // serve admin.sock
	Listen     string        // host:port for TCP; empty: none
	Token      config.Secret // that TCP requests must bear; empty: TCP only reads

	// RequestsPerSecond bounds one peer at one door, with twice as many in a burst,
	// and as many again for health and metrics. 0: RequestsPerSecond.
	RequestsPerSecond int
}

// Server is a running API.
type Server struct {
	handler *handler
	rate    int // requests per second of one peer at one door
	cancel  context.CancelFunc
	doors   []*door
	serving sync.WaitGroup // one for each door's accept loop
	address net.Addr       // of TCP, nil if none

	closing sync.Once
	closed  error
}

// door is one listener with its rules.
type door struct {
	name    string // "api", "admin", "tcp": in logs and metrics
	access  access
	wanted  [sha256.Size]byte // of the token
	limiter *limiter
	gate    *gate
	server  *fasthttp.Server
}

// Start opens the doors and serves them until Close. When it returns nil every
// socket answers; on an error nothing is left open.
func Start(options Options) (*Server, error) {
	if options.Node == nil || options.Logger == nil {
		panic("api.Start without Node or Logger")
	}
	if err := checkRuntimeDir(options.RuntimeDir, options.UserID); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{handler: newHandler(ctx, options.Node, options.Logger), rate: cmp.Or(options.RequestsPerSecond, RequestsPerSecond), cancel: cancel}
	if err := s.open(ctx, options); err != nil {
		cancel()
		for _, d := range s.doors {
			d.gate.Close()
		}
		return nil, err
	}
	for _, d := range s.doors {
		s.serve(d)
	}
	return s, nil
}

// open makes the listeners; no request is served yet.
func (s *Server) open(ctx context.Context, options Options) error {
	local := access{change: true, peers: func(uid uint32) bool { return uid == options.UserID || uid == 0 }}
	inner, err := listenUnix(filepath.Join(options.RuntimeDir, SocketName))
	if err != nil {
		return err
	}
	s.add(ctx, "api", local, inner)
	if options.Admin {
		if inner, err = listenUnix(filepath.Join(options.RuntimeDir, AdminSocketName)); err != nil {
			return err
		}
		admin := local
		admin.profiles = true
		s.add(ctx, "admin", admin, inner)
	}
	if options.Listen == "" {
		return nil
	}
	if inner, err = net.Listen("tcp", options.Listen); err != nil {
		return fmt.Errorf("listen on %q: %w", options.Listen, err)
	}
	remote := access{change: !options.Token.IsEmpty(), token: options.Token, loopbackHost: options.Token.IsEmpty()}
	s.add(ctx, "tcp", remote, inner)
	s.address = inner.Addr()
	bound, ok := inner.Addr().(*net.TCPAddr)
	if options.Token.IsEmpty() && (!ok || !bound.IP.IsLoopback()) {
		return fmt.Errorf("listen on %q: other machines could reach it without a token: set one, or listen on 127.0.0.1", options.Listen)
	}
	return nil
}

func (s *Server) add(ctx context.Context, name string, rules access, inner net.Listener) {
	s.doors = append(s.doors, newDoor(ctx, s.handler, name, rules, s.rate, inner))
}

func newDoor(ctx context.Context, h *handler, name string, rules access, perSecond int, inner net.Listener) *door {
	d := &door{name: name, access: rules, wanted: sha256.Sum256([]byte(rules.token.Reveal())), limiter: newLimiter(perSecond, time.Now), gate: newGate(ctx, inner)}
	d.server = &fasthttp.Server{
		Handler:                      h.serve(d),
		ErrorHandler:                 answerUnreadable,
		Name:                         "stokerd",
		Concurrency:                  2 * connsMax, // the gate keeps to connsMax, and says so in a problem
		ReadBufferSize:               headerBytesMax,
		MaxRequestBodySize:           bodyBytesMax,
		HeaderReceived:               d.requestConfig,
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		MaxIdleWorkerDuration:        sweepInterval,
		DisablePreParseMultipartForm: true,
		NoDefaultDate:                true,
		CloseOnShutdown:              true,
		SecureErrorLogMessage:        true,
		Logger:                       quietLogger{h.logger.With("door", name)},
	}
	return d
}

// requestConfig bounds one request.
func (d *door) requestConfig(header *fasthttp.RequestHeader) fasthttp.RequestConfig {
	bounds := fasthttp.RequestConfig{MaxRequestBodySize: d.bodyLimit(header)}
	if asksForTrace(header) {
		bounds.WriteTimeout = traceLasts
	}
	return bounds
}

// serve starts the door's accept loop.
func (s *Server) serve(d *door) {
	s.serving.Go(func() {
		if err := d.server.Serve(d.gate); err != nil {
			s.handler.logger.Error("the API stopped serving", "door", d.name, "address", d.gate.Addr().String(), "error", err)
		}
	})
}

// Address is the TCP address served, nil if none: it tells the port that the
// kernel chose for port 0.
func (s *Server) Address() net.Addr { return s.address }

// Close stops accepting, lets requests in progress finish until ctx ends, cuts
// off what is left, removes the sockets and waits for the goroutines it started
// (one of fasthttp's for each door ends by itself within sweepInterval). Calling it again waits for the first call and returns the same.
func (s *Server) Close(ctx context.Context) error {
	s.closing.Do(func() { s.closed = s.close(ctx) })
	return s.closed
}

func (s *Server) close(ctx context.Context) error {
	s.cancel() // ends the Node's work for requests, and waits in Accept
	results := make([]error, len(s.doors))
	var doors sync.WaitGroup
	for i, d := range s.doors {
		doors.Go(func() { results[i] = d.close(ctx) })
	}
	doors.Wait()
	s.serving.Wait()
	return errors.Join(results...)
}

func (d *door) close(ctx context.Context) error {
	d.gate.Close() // before Shutdown, which does nothing if Serve has not begun
	err := d.server.ShutdownWithContext(ctx)
	if ctx.Err() == nil {
		return err
	}
	d.gate.cutOff()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	d.server.ShutdownWithContext(grace)
	return fmt.Errorf("close door %s: requests in progress were cut off: %w", d.name, context.Cause(ctx))
}

// quietLogger takes what fasthttp wants to say: mostly that clients went away.
type quietLogger struct{ logger *slog.Logger }

// Printf logs at level debug.
func (l quietLogger) Printf(format string, arguments ...any) {
	l.logger.Debug(fmt.Sprintf(format, arguments...))
}
