package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/url"
	"runtime/debug"
	runtimepprof "runtime/pprof"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttpadaptor"
	"github.com/valyala/fasthttp/pprofhandler"

	"github.com/stokerio/stoker/loader/config"
)

// access is what a door asks for and gives.
type access struct {
	peers        func(uid uint32) bool // Unix sockets: who is served; nil: everybody who connects
	token        config.Secret         // that requests must bear; empty: none
	loopbackHost bool                  // refuse a Host that is no loopback name
	change       bool                  // serve methods that change something
	profiles     bool                  // serve /debug/pprof
}

// route is one path with one method. A segment in braces takes any value.
type route struct {
	method, pattern string
	serve           func(h *handler, ctx *fasthttp.RequestCtx, argument string) error
	watch           bool     // asked by those who watch the daemon: has bounds of its own
	body            bool     // takes a body
	query           []string // parameters that it takes
}

// routes is the whole API, except /debug/pprof.
func routes() []route {
	return []route{
		{method: http.MethodGet, pattern: "/healthz", serve: (*handler).health, watch: true},
		{method: http.MethodGet, pattern: "/readyz", serve: (*handler).ready, watch: true},
		{method: http.MethodGet, pattern: "/metrics", serve: (*handler).metrics, watch: true},
		{method: http.MethodGet, pattern: "/v1/version", serve: (*handler).version},
		{method: http.MethodGet, pattern: "/v1/openapi.json", serve: (*handler).description},
		{method: http.MethodGet, pattern: "/v1/datasets", serve: (*handler).datasets},
		{method: http.MethodGet, pattern: "/v1/datasets/{name}", serve: (*handler).dataset},
		{method: http.MethodDelete, pattern: "/v1/datasets/{name}", serve: (*handler).removeDataset},
		{method: http.MethodGet, pattern: "/v1/sessions", serve: (*handler).sessions},
		{method: http.MethodGet, pattern: "/v1/sessions/{id}", serve: (*handler).session},
		{method: http.MethodGet, pattern: "/v1/stalls", serve: (*handler).stalls},
		{method: http.MethodGet, pattern: tracePath, serve: (*handler).trace, query: traceQuery()},
		{method: http.MethodGet, pattern: "/v1/cache", serve: (*handler).cache},
		{method: http.MethodGet, pattern: "/v1/cache/chunks", serve: (*handler).cacheChunks, query: cachePageQuery()},
		{method: http.MethodPost, pattern: "/v1/cache/evict", serve: (*handler).evictCache, body: true},
		{method: http.MethodPost, pattern: "/v1/cache/limit", serve: (*handler).limitCache, body: true},
		{method: http.MethodGet, pattern: "/v1/hints", serve: (*handler).hints},
		{method: http.MethodPost, pattern: "/v1/hints", serve: (*handler).addHint, body: true},
		{method: http.MethodGet, pattern: "/v1/hints/{hint}", serve: (*handler).hint},
		{method: http.MethodPut, pattern: "/v1/hints/{hint}", serve: (*handler).renewHint, body: true},
		{method: http.MethodDelete, pattern: "/v1/hints/{hint}", serve: (*handler).endHint},
	}
}

// handler answers requests of all doors.
type handler struct {
	ctx      context.Context // ends when the server closes
	node     Node
	logger   *slog.Logger
	routes   []route
	requests *requestCounter
	scrape   fasthttp.RequestHandler
	profiles fasthttp.RequestHandler // the list of profiles, with counts
}

func newHandler(ctx context.Context, node Node, logger *slog.Logger) *handler {
	h := &handler{ctx: ctx, node: node, logger: logger, routes: routes(), requests: newRequestCounter()}
	h.profiles = fasthttpadaptor.NewFastHTTPHandlerFunc(pprof.Index)
	h.scrape = scrapeHandler(newRegistry(node, h.requests), logger)
	return h
}

// serve is a door's way through the handler: rights, bounds, then the route.
func (h *handler) serve(d *door) fasthttp.RequestHandler {
	places := map[bool]chan struct{}{false: make(chan struct{}, requestsMax), true: make(chan struct{}, watchesMax)}
	return func(ctx *fasthttp.RequestCtx) {
		defer h.finish(d, ctx)
		setCommonHeaders(ctx)
		if refusal := d.access.refuse(ctx, d.wanted); refusal != nil {
			answerProblem(ctx, *refusal)
			ctx.SetConnectionClose()
			return
		}
		asked := h.find(ctx)
		if wait := d.limiter.take(peerOf(ctx.Conn(), asked.watch)); wait > 0 {
			answerLimit(ctx, "more requests per second than one peer is served", "ask less often, or raise api.requests_per_second", wait)
			return
		}
		select {
		case places[asked.watch] <- struct{}{}:
			defer func() { <-places[asked.watch] }()
		default:
			answerLimit(ctx, fmt.Sprintf("%d requests are being worked on already", cap(places[asked.watch])), "try again in a second", time.Second)
			return
		}
		h.dispatch(d, ctx, asked)
	}
}

// setCommonHeaders sets what every answer bears.
func setCommonHeaders(ctx *fasthttp.RequestCtx) {
	ctx.Response.Header.Set("Cache-Control", "no-store")
	ctx.Response.Header.Set("X-Content-Type-Options", "nosniff")
}

// finish counts and logs a request, and turns a panic into an answer: a defect in
// the API must not end the training jobs that the daemon feeds.
func (h *handler) finish(d *door, ctx *fasthttp.RequestCtx) {
	if cause := recover(); cause != nil {
		h.logger.Error("the API panicked", "door", d.name, "path", clipped(ctx.Path()), "panic", fmt.Sprint(cause), "stack", string(debug.Stack()))
		answerProblem(ctx, newProblem(CodeInternal, "the daemon met a defect of its own", "", "please report it with the daemon's log"))
	}
	h.requests.count(d.name, ctx.Response.StatusCode())
	if h.logger.Enabled(h.ctx, slog.LevelDebug) {
		h.logger.Debug("request", "door", d.name, "method", clipped(ctx.Method()), "path", clipped(ctx.Path()), "status", ctx.Response.StatusCode())
	}
}

// clipped copies text of a request for a log line.
func clipped(text []byte) string { return string(text[:min(len(text), 256)]) }

// refuse says why a request is not served, or nil.
func (a access) refuse(ctx *fasthttp.RequestCtx, wanted [sha256.Size]byte) *Error {
	if a.peers != nil {
		peer, ok := ctx.Conn().(*peerConn)
		if !ok || peer.uid == unmappedUID || !a.peers(peer.uid) {
			problem := newProblem(CodePermission, "this socket serves only the user who runs stokerd", "", "run your own stokerd, or become that user")
			return &problem
		}
	}
	if !a.token.IsEmpty() && !bearsToken(&ctx.Request.Header, wanted) {
		ctx.Response.Header.Set("WWW-Authenticate", `Bearer realm="stoker"`)
		problem := newProblem(CodeUnauthorized, "the request bears no valid token", "", "send Authorization: Bearer TOKEN, with the token in the daemon's api.token_file")
		return &problem
	}
	if a.loopbackHost && !isLoopbackHost(string(ctx.Host())) {
		problem := newProblem(CodePermission, "the Host header is no loopback name", clipped(ctx.Host()), "ask for 127.0.0.1 or localhost, or set api.token_file")
		return &problem
	}
	return nil
}

// bearsToken compares in a time that tells nothing of the token.
func bearsToken(header *fasthttp.RequestHeader, wanted [sha256.Size]byte) bool {
	scheme, token, _ := strings.Cut(string(header.Peek("Authorization")), " ")
	given := sha256.Sum256([]byte(strings.TrimSpace(token)))
	return subtle.ConstantTimeCompare(given[:], wanted[:]) == 1 && strings.EqualFold(scheme, "Bearer")
}

func isLoopbackHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	address := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || (address != nil && address.IsLoopback())
}

// target is what a request asks for.
type target struct {
	path     string   // as it was sent
	argument string   // decoded
	route             // its serve is nil if there is none
	allowed  []string // methods that the path takes, if it takes others than this one
}

// find looks for the route of the path as it was sent: fasthttp's own Path has
// "..", "//" and %2F resolved, by which one route could pose as another.
func (h *handler) find(ctx *fasthttp.RequestCtx) target {
	found := target{path: string(ctx.URI().PathOriginal())}
	method := string(ctx.Method())
	if method == http.MethodHead {
		method = http.MethodGet // fasthttp leaves the body out
	}
	for _, candidate := range h.routes {
		argument, ok := match(candidate.pattern, found.path)
		switch {
		case !ok:
		case candidate.method == method:
			found.route, found.argument = candidate, argument
			return found
		default:
			found.allowed = append(found.allowed, candidate.method)
			if candidate.method == http.MethodGet {
				found.allowed = append(found.allowed, http.MethodHead)
			}
		}
	}
	return found
}

// dispatch serves a request that is within its rights and bounds.
func (h *handler) dispatch(d *door, ctx *fasthttp.RequestCtx, t target) {
	where := clipped([]byte(t.path))
	if len(ctx.RequestURI()) > uriBytesMax {
		problem := newProblem(CodeTooLarge, fmt.Sprintf("the request's path and query exceed %d bytes", uriBytesMax), "", "no path of this API is that long")
		problem.Status = http.StatusRequestURITooLong
		answerProblem(ctx, problem)
		return
	}
	if d.access.profiles && (t.path == "/debug/pprof" || strings.HasPrefix(t.path, "/debug/pprof/")) {
		h.serveProfile(ctx, t.path)
		return
	}
	if t.serve == nil {
		answerUnrouted(ctx, where, t.allowed)
		return
	}
	err := d.access.refuseRequest(ctx, t)
	if err == nil {
		err = t.serve(h, ctx, t.argument)
	}
	if err != nil {
		h.answerError(ctx, err, where)
	}
}

// refuseRequest says why a routed request is not served, or nil. What the API does
// not know is refused, not ignored: whoever sent it meant something by it.
func (a access) refuseRequest(ctx *fasthttp.RequestCtx, t target) error {
	where := clipped([]byte(t.path))
	var problem Error
	switch query := ctx.URI().QueryString(); {
	case t.method != http.MethodGet && !a.change:
		problem = newProblem(CodePermission, "without a token, TCP only reads", where, "use api.sock, or set api.token_file and send its token")
	case len(query) > 0 && len(t.query) == 0:
		problem = newProblem(CodeInvalid, "this path takes no query parameters", "?"+clipped(query), "leave the query out")
	case len(ctx.PostBody()) > 0 && !t.body:
		problem = newProblem(CodeInvalid, "this request takes no body", where, "leave the body out")
	default:
		return nil
	}
	return &problem
}

// serveProfile serves a profile, or the list of all at /debug/pprof/, which is not
// fasthttp's: it answers that path with nothing.
func (h *handler) serveProfile(ctx *fasthttp.RequestCtx, path string) {
	switch {
	case path == "/debug/pprof": // the list's links are relative
		ctx.Redirect("/debug/pprof/", http.StatusMovedPermanently)
	case path == "/debug/pprof/":
		h.profiles(ctx)
	case !isProfile(strings.TrimPrefix(path, "/debug/pprof/")):
		answerUnrouted(ctx, clipped([]byte(path)), nil)
	default:
		pprofhandler.PprofHandler(ctx)
	}
}

// isProfile keeps fasthttp from answering for what is none with text of its own.
func isProfile(name string) bool {
	switch name {
	case "cmdline", "profile", "symbol", "trace":
		return true
	}
	return runtimepprof.Lookup(name) != nil
}

func (h *handler) answerError(ctx *fasthttp.RequestCtx, err error, path string) {
	problem := problemOf(err, path)
	if problem.Status >= http.StatusInternalServerError && problem.Code == CodeInternal {
		h.logger.Error("request", "path", path, "error", err)
	}
	answerProblem(ctx, problem)
	if problem.Code == CodeLimit {
		ctx.Response.Header.Set("Retry-After", retryAfter(time.Second))
	}
}

func answerUnrouted(ctx *fasthttp.RequestCtx, path string, allowed []string) {
	if len(allowed) == 0 {
		answerProblem(ctx, newProblem(CodeNotFound, "there is nothing at this path", path, "see /v1/openapi.json for what there is"))
		return
	}
	methods := strings.Join(allowed, ", ")
	answerProblem(ctx, newProblem(CodeMethodNotAllowed, "this path does not take this method here", path, "use "+methods))
	ctx.Response.Header.Set("Allow", methods)
}

// match compares a path with a pattern, segment by segment, and returns the
// decoded value of the pattern's segment in braces.
func match(pattern, path string) (argument string, ok bool) {
	for pattern != "" {
		var want, got string
		want, pattern, _ = nextSegment(pattern)
		if got, path, ok = nextSegment(path); !ok {
			return "", false
		}
		if !strings.HasPrefix(want, "{") {
			if want != got {
				return "", false
			}
			continue
		}
		value, err := url.PathUnescape(got)
		if err != nil || value == "" {
			return "", false
		}
		argument = value
	}
	return argument, path == ""
}

// nextSegment splits "/a/b" into "a" and "/b"; a path without its leading slash,
// or at its end, has none.
func nextSegment(path string) (segment, rest string, ok bool) {
	path, ok = strings.CutPrefix(path, "/")
	if end := strings.IndexByte(path, '/'); end >= 0 {
		return path[:end], path[end:], ok
	}
	return path, "", ok
}

// answer sends value as JSON.
func answer(ctx *fasthttp.RequestCtx, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	ctx.Response.Header.SetContentType("application/json")
	ctx.Response.SetBodyRaw(append(body, '\n'))
	return nil
}
