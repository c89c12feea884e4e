package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"
)

// Code classifies an error for programs. The codes are those of the session
// socket, and four that only HTTP needs.
type Code string

// The codes. Callers decide by code, never by text.
const (
	CodeNotFound    Code = "not_found"
	CodeInvalid     Code = "invalid" // the request makes no sense
	CodeChanged     Code = "changed"
	CodeCorrupt     Code = "corrupt"
	CodePermission  Code = "permission"
	CodeNoSpace     Code = "no_space"
	CodeUnavailable Code = "unavailable"
	CodeOutOfRange  Code = "out_of_range"
	CodeLimit       Code = "limit" // a configured bound; try again later or raise it
	CodeVersion     Code = "version"
	CodeConflict    Code = "conflict"
	CodeInternal    Code = "internal"

	CodeMethodNotAllowed Code = "method_not_allowed"
	CodeTooLarge         Code = "too_large"
	CodeUnauthorized     Code = "unauthorized"
	CodeTimeout          Code = "timeout"
)

// Codes lists every code.
func Codes() []Code {
	return []Code{
		CodeNotFound, CodeInvalid, CodeChanged, CodeCorrupt, CodePermission, CodeNoSpace, CodeUnavailable, CodeOutOfRange, CodeLimit,
		CodeVersion, CodeConflict, CodeInternal, CodeMethodNotAllowed, CodeTooLarge, CodeUnauthorized, CodeTimeout,
	}
}

// Error is an error as the outside sees it: the body of every answer that is not
// a success, with content type application/problem+json (RFC 9457; code, what,
// where and remedy are its extension members).
type Error struct {
	Status int    `json:"status"`           // HTTP status; chosen by Code if 0
	Code   Code   `json:"code"`             // for programs
	What   string `json:"what"`             // what is wrong
	Where  string `json:"where,omitempty"`  // the object concerned
	Remedy string `json:"remedy,omitempty"` // what to do next
	Err    error  `json:"-"`                // cause, for logs
}

// Error says what, where and what to do in one line.
func (e *Error) Error() string {
	text := e.What
	if e.Where != "" {
		text = e.Where + ": " + text
	}
	if e.Remedy != "" {
		text += "; " + e.Remedy
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// status is the HTTP status of a code.
func (c Code) status() int {
	switch c {
	case CodeNotFound:
		return http.StatusNotFound
	case CodeInvalid, CodeOutOfRange, CodeVersion:
		return http.StatusBadRequest
	case CodeChanged, CodeConflict:
		return http.StatusConflict
	case CodePermission:
		return http.StatusForbidden
	case CodeNoSpace:
		return http.StatusInsufficientStorage
	case CodeUnavailable:
		return http.StatusServiceUnavailable
	case CodeLimit:
		return http.StatusTooManyRequests
	case CodeMethodNotAllowed:
		return http.StatusMethodNotAllowed
	case CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	case CodeUnauthorized:
		return http.StatusUnauthorized
	case CodeTimeout:
		return http.StatusRequestTimeout
	}
	return http.StatusInternalServerError
}

// problemOf turns any error into one for the outside.
func problemOf(err error, where string) Error {
	var known *Error
	switch {
	case errors.As(err, &known):
		problem := *known
		if problem.Status == 0 {
			problem.Status = problem.Code.status()
		}
		return problem
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return newProblem(CodeUnavailable, "the daemon did not finish in time", where, "try again; the log says what it was busy with")
	}
	return newProblem(CodeInternal, err.Error(), where, "this is a defect of stokerd: please report it with the daemon's log")
}

func newProblem(code Code, what, where, remedy string) Error {
	return Error{Status: code.status(), Code: code, What: what, Where: where, Remedy: remedy}
}

// encode is the body of an answer with this error.
func (e *Error) encode() []byte {
	body, err := json.Marshal(e)
	if err != nil {
		panic(fmt.Sprintf("encode problem %+v: %v", e, err))
	}
	return append(body, '\n')
}

// answerProblem replaces whatever the response holds.
func answerProblem(ctx *fasthttp.RequestCtx, problem Error) {
	ctx.Response.ResetBody()
	setCommonHeaders(ctx)
	ctx.Response.SetStatusCode(problem.Status)
	ctx.Response.Header.SetContentType("application/problem+json")
	ctx.Response.SetBodyRaw(problem.encode())
}

// answerLimit refuses a request that may be sent again after wait.
func answerLimit(ctx *fasthttp.RequestCtx, what, remedy string, wait time.Duration) {
	answerProblem(ctx, newProblem(CodeLimit, what, "", remedy))
	ctx.Response.Header.Set("Retry-After", retryAfter(wait))
}

// retryAfter is a wait in whole seconds (RFC 9110 knows no others), at least one.
func retryAfter(wait time.Duration) string {
	return strconv.Itoa(int(max(1, (wait+time.Second-1)/time.Second)))
}

// answerUnreadable is called by fasthttp when a request cannot be parsed.
func answerUnreadable(ctx *fasthttp.RequestCtx, err error) {
	var small *fasthttp.ErrSmallBuffer
	var timeout interface{ Timeout() bool }
	problem := newProblem(CodeInvalid, "the request is no valid HTTP", "", "check what speaks to this socket")
	switch {
	case errors.As(err, &small):
		problem = newProblem(CodeTooLarge, fmt.Sprintf("the request's headers exceed %d bytes", headerBytesMax), "", "send fewer or shorter headers")
		problem.Status = http.StatusRequestHeaderFieldsTooLarge
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		problem = newProblem(CodeTooLarge, fmt.Sprintf("the request's body exceeds %d bytes, or %d of a hint", bodyBytesMax, hintBytesMax), "",
			"send a long list of indices over the session socket, as Python's stoker.hint does; no other request needs more")
	case errors.As(err, &timeout) && timeout.Timeout():
		problem = newProblem(CodeTimeout, fmt.Sprintf("the request did not arrive within %s", readTimeout), "", "send it whole")
	}
	answerProblem(ctx, problem)
	ctx.SetConnectionClose()
}
