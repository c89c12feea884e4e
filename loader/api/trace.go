package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

// traceType is the content type of a trace.
const traceType = "application/vnd.stoker.trace"

// tracePath is where a trace is recorded. It is the one path whose answer lasts as long
// as the client stays.
const tracePath = "/v1/trace"

// traceLasts is longer than any recording: how long its answer may take. Each part of
// it has writeTimeout.
const traceLasts = 10 * 365 * 24 * time.Hour

// Tracer is the part of a Node that records what its sessions read.
type Tracer interface {
	// Trace begins to record. Run must follow, once. Errors: CodeNotFound (a dataset, a
	// session), CodeLimit.
	Trace(request TraceRequest) (Recording, error)
}

// TraceRequest says which sessions are recorded, those that begin later included.
type TraceRequest struct {
	Datasets []string // none: all
	Sessions []string // ids; none: all
}

// Recording is one that has begun.
type Recording interface {
	// Run writes what is recorded, as package prefetch/trace has it, until ctx ends, and
	// then the end of the trace. It returns earlier if out fails, with its error.
	Run(ctx context.Context, out Sink) error
}

// Sink takes a recording. Flush sends what was written.
type Sink interface {
	io.Writer
	Flush() error
}

// TraceStats counts recordings.
type TraceStats struct {
	Recordings  int64 // under way; level
	Accesses    int64 // written
	LostSamples int64 // that were made faster than they could be written
}

// trace records what sessions read until the client goes.
func (h *handler) trace(ctx *fasthttp.RequestCtx, _ string) error {
	request, err := traceRequest(ctx)
	if err != nil {
		return err
	}
	ctx.Response.Header.SetContentType(traceType)
	if ctx.IsHead() {
		return nil
	}
	recording, err := h.node.Trace(request)
	if err != nil {
		return err
	}
	ctx.Response.ImmediateHeaderFlush = true
	conn := ctx.Conn()
	ctx.SetBodyStreamWriter(func(out *bufio.Writer) { h.record(recording, &timedSink{out, conn, writeTimeout}) })
	return nil
}

// traceQuery are the parameters that narrow a recording.
func traceQuery() []string { return []string{"dataset", "session"} }

// traceRequest reads the query.
func traceRequest(ctx *fasthttp.RequestCtx) (TraceRequest, error) {
	wrong := func(what string) (TraceRequest, error) {
		problem := newProblem(CodeInvalid, what, "?"+clipped(ctx.URI().QueryString()), "give dataset=NAME and session=ID, each as often as needed")
		return TraceRequest{}, &problem
	}
	query, err := url.ParseQuery(string(ctx.URI().QueryString()))
	if err != nil {
		return wrong("the query cannot be read")
	}
	for name, values := range query {
		if !slices.Contains(traceQuery(), name) {
			return wrong("this path takes no query parameter of that name")
		}
		if slices.Contains(values, "") {
			return wrong("a query parameter is empty")
		}
	}
	return TraceRequest{Datasets: query["dataset"], Sessions: query["session"]}, nil
}

// record writes a recording. A panic in it must not end the daemon.
func (h *handler) record(recording Recording, out Sink) {
	defer func() {
		if cause := recover(); cause != nil {
			h.logger.Error("the API panicked", "path", tracePath, "panic", fmt.Sprint(cause), "stack", string(debug.Stack()))
		}
	}()
	if err := recording.Run(h.ctx, out); err != nil {
		h.logger.Debug("a recording ended", "error", err) // mostly because its client went
	}
}

// timedSink closes the connection of a client that does not take what is sent.
type timedSink struct {
	*bufio.Writer
	conn     io.Closer
	patience time.Duration // for each call
}

func (s *timedSink) guard() *time.Timer {
	return time.AfterFunc(s.patience, func() { _ = s.conn.Close() })
}

// Write implements Sink.
func (s *timedSink) Write(p []byte) (int, error) {
	defer s.guard().Stop()
	return s.Writer.Write(p)
}

// Flush implements Sink.
func (s *timedSink) Flush() error {
	defer s.guard().Stop()
	return s.Writer.Flush()
}

// asksForTrace says whether a request's answer lasts.
func asksForTrace(header *fasthttp.RequestHeader) bool {
	path, _, _ := strings.Cut(string(header.RequestURI()), "?")
	return string(header.Method()) == http.MethodGet && path == tracePath
}

func traceMetrics() []metric {
	return []metric{
		gauge("stoker_trace_recordings", "Recordings of what sessions read that are under way.",
			func(s *Stats, emit func(float64, ...string)) { emit(float64(s.Traces.Recordings)) }),
		counter("stoker_trace_accesses_total", "Accesses written to recordings.",
			func(s *Stats, emit func(float64, ...string)) { emit(float64(s.Traces.Accesses)) }),
		counter("stoker_trace_lost_samples_total", "Samples that recordings lack, as they were made faster than they could be written.",
			func(s *Stats, emit func(float64, ...string)) { emit(float64(s.Traces.LostSamples)) }),
	}
}
