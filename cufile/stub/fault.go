package stub

import (
	"fmt"
	"strconv"
	"strings"
)

// Kind is what a fault does to a call.
type Kind string

// The kinds of fault. Short, Latency and Corrupt let the call go on.
const (
	Code    Kind = ""        // return Value: a CUresult of cu..., a CUfileOpError of cuFile...
	Errno   Kind = "errno"   // cuFileRead and cuFileWrite: -1, with errno Value
	EIO     Kind = "eio"     // the same with EIO
	EINTR   Kind = "eintr"   // the same with EINTR
	Short   Kind = "short"   // a read or write of half of what was asked, at least 1 byte
	Latency Kind = "latency" // Value microseconds before the call
	Corrupt Kind = "corrupt" // one bit of the byte at Value of what a read or copy brings
	OOM     Kind = "oom"     // CUDA's code for out of memory
	Compat  Kind = "compat"  // no Op: all reads go by POSIX although compat mode is off
)

// Always as Fault.Times hits every call from After on.
const Always = -1

// Fault is something that shall go wrong.
type Fault struct {
	Op    string // an exported name, with or without its _v2; "*": every call
	Kind  Kind
	Value int // by Kind
	CUDA  int // with Code: the CUDA code beside a cuFile code
	After int // calls that pass unharmed first
	Times int // calls that are hit then; 0: one
}

// String is the fault in the syntax of STOKER_STUB_FAULTS.
func (f Fault) String() string {
	if f.Kind == Compat {
		return string(Compat)
	}
	code := string(f.Kind)
	switch {
	case f.Kind == Code && f.CUDA != 0:
		code = fmt.Sprintf("%d/%d", f.Value, f.CUDA)
	case f.Kind == Code:
		code = strconv.Itoa(f.Value)
	case f.Kind == Errno || f.Kind == Latency || f.Kind == Corrupt:
		code += "=" + strconv.Itoa(f.Value)
	}
	times := "1"
	if f.Times == Always {
		times = "*"
	} else if f.Times > 0 {
		times = strconv.Itoa(f.Times)
	}
	return fmt.Sprintf("%s:%s:%d:%s", f.Op, code, f.After, times)
}

// Faults joins faults into one value of STOKER_STUB_FAULTS.
func Faults(faults ...Fault) string {
	texts := make([]string, len(faults))
	for i, f := range faults {
		texts[i] = f.String()
	}
	return strings.Join(texts, ";")
}
