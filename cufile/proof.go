package cufile

import "fmt"

// Route is the way that bytes took from a file into device memory.
type Route int

// Routes that Prove tells apart.
const (
	// Unknown: the bytes are right, and nothing says which way they came.
	Unknown Route = iota
	// PCIP2PDMA: from the drive to the GPU by the kernel's own peer-to-peer DMA.
	PCIP2PDMA
	// NvidiaFS: from the drive to the GPU by NVIDIA's kernel module.
	NvidiaFS
	// NotDirect: refused, or answered through host memory.
	NotDirect
)

func (r Route) String() string {
	switch r {
	case Unknown:
		return "unknown"
	case PCIP2PDMA:
		return "p2pdma"
	case NvidiaFS:
		return "nvidia-fs"
	case NotDirect:
		return "not direct"
	}
	return fmt.Sprintf("route %d", int(r))
}

// MarshalText gives what String gives.
func (r Route) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Direct says whether the bytes went from drive to GPU without passing through
// host memory.
func (r Route) Direct() bool { return r == PCIP2PDMA || r == NvidiaFS }

// Proof is the answer of [Driver.Prove].
type Proof struct {
	Route  Route
	Reason string // in a sentence: what was counted, or what was refused
	Dir    string
	Device UUID
	CuFile int  // version of the library, as in Versions
	Stub   bool // proved on a stand-in: says nothing about this machine
	// Reads and Bytes are what was read and found to be right.
	Reads int
	Bytes int64
	// Counted says that the library counts routes; the counters below are then
	// what they moved by during the proof.
	Counted                             bool
	P2PReads, NvidiaFSReads, PosixReads uint64
	UnalignedReads                      uint64
	// Refusal is the error of the library, or of opening the file, where Route is
	// NotDirect because of it; nil otherwise.
	Refusal *Error
}
