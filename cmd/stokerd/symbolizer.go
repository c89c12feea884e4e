//go:build cgo

package main

// C frames in Go's tracebacks and profiles get function, file and line. It
// registers itself when linked, and is of use only where there is C.
import _ "github.com/ianlancetaylor/cgosymbolizer"
