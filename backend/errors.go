package backend

import (
	"errors"
	"fmt"
	"strings"
)

// Kind classifies what went wrong. Callers decide by kind, never by text.
type Kind string

// The kinds. Only Unavailable is worth retrying, and only one decorator does so.
const (
	NotFound    Kind = "not_found"    // no such chunk or object
	Corrupt     Kind = "corrupt"      // bytes are not what they were when stored
	Changed     Kind = "changed"      // the origin's object is no longer the version that the index was built from
	Unavailable Kind = "unavailable"  // transient: device, network or descriptors
	Permission  Kind = "permission"   // not allowed, or the store is read-only
	NoSpace     Kind = "no_space"     // no room
	OutOfRange  Kind = "out_of_range" // the range is not within the chunk: the caller's mistake
	Invalid     Kind = "invalid"      // what was asked for makes no dataset: no Store returns it, what is built on one may
)

// Error is what every Store returns. It wraps its cause.
type Error struct {
	Kind   Kind
	Op     string // what was being done: "open", "read", "stat", "put"
	Object string // which object or chunk, as a person would name it
	Detail string // expected and found, where that says more than Err
	Remedy string // what the user can do next, may be empty
	Err    error  // cause, may be nil
}

// Error says what, where, why and what to do next in one line.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %q: %s", e.Op, e.Object, strings.ReplaceAll(string(e.Kind), "_", " "))
	if e.Detail != "" {
		b.WriteString(": " + e.Detail)
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	if e.Remedy != "" {
		b.WriteString(" (" + e.Remedy + ")")
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of the first *Error in err's chain, or "" if there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return ""
}

// RemedyOf returns the remedy of the first *Error in err's chain that has one,
// or "".
func RemedyOf(err error) string {
	var e *Error
	for errors.As(err, &e) {
		if e.Remedy != "" {
			return e.Remedy
		}
		err = e.Err
	}
	return ""
}
