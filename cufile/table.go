package cufile

import "syscall"

// table is what this package needs of a vendor's two libraries. NVIDIA's is
// cudaTable; AMD's HIP and hipFile can be another. The calls do not check what
// Go can check before: lifecycle, ranges and rights are the business of those above.
type table interface {
	// load opens a library and answers the path that the loader took. Where it
	// cannot, it answers the loader's message.
	load(which library, name string) (text string, ok bool)
	symbols() []symbol
	stub() bool
	free() // gives the table's memory back; the libraries stay loaded

	start() (version, devices int, s status)
	describe(ordinal int) (DeviceInfo, status)
	retain(ordinal int) (deviceHandle, status)
	release(*deviceHandle) status // may be called again where it failed
	memory(deviceHandle) (free, total uint64, s status)
	registerHost(d deviceHandle, p []byte) status
	unregisterHost(d deviceHandle, p []byte) status
	copyIn(d deviceHandle, to uint64, p []byte) status // done when it returns, as copyOut is
	copyOut(d deviceHandle, p []byte, from uint64) status

	create(d deviceHandle, kind SlabKind, bytes uint64, direct bool) (segment, status)
	receive(d deviceHandle, descriptor int, bytes uint64, writable bool) (segment, status)
	receiveLegacy(d deviceHandle, handle *[ipcHandleBytes]byte, bytes uint64) (segment, status)
	destroy(d deviceHandle, s *segment) status // may be called again where it failed
	export(d deviceHandle, s segment) (descriptor int, st status)
	exportLegacy(d deviceHandle, s segment) ([ipcHandleBytes]byte, status)

	storageVersion() (int, status)
	setSize(parameter sizeParameter, bytes int64) status
	setBool(parameter boolParameter, value bool) status
	setLogDir(dir string) status
	openStorage() status
	closeStorage() status
	properties() (Properties, status)
	startStatistics(level int) status
	stopStatistics() status
	resetStatistics() status
	readStatistics(level int) ([]byte, status)
	p2pFlags(FileSystem) (P2PFlags, status)
	barBytes(ordinal int) (int64, status)
	registerFile(descriptor int) (uintptr, status)
	deregisterFile(handle uintptr)
	registerBuffer(d deviceHandle, base, bytes uint64) status
	deregisterBuffer(d deviceHandle, base uint64) status
	// read answers bytes read; -1 with an errno; or minus a storage code. Where
	// the context could not be set, nothing was read and cuda says why.
	read(context, handle uintptr, base, bytes uint64, offset, baseOffset int64) (n int64, cuda, errno int32)
	readLoop(context, handle uintptr, base, bytes uint64, offset, count int64) int64 // for benchmarks
}

type symbol struct {
	Symbol
	needed bool // the library is of no use without it
}

// status is a call's outcome; op is empty where it succeeded.
type status struct {
	op         string
	code, cuda int
	errno      syscall.Errno
}

func (s status) failed() bool { return s.op != "" }

// absent says that the library does not have the function.
func (s status) absent() bool { return s.errno == syscall.ENOSYS }

// err gives nil or an *Error.
func (s status) err(object string) error {
	if !s.failed() {
		return nil
	}
	return s.error(object)
}

func (s status) error(object string) *Error {
	e := &Error{Op: s.op, Object: object, Code: s.code, CUDA: s.cuda, Errno: s.errno}
	if s.absent() {
		e.Detail = "the library does not have this function"
	}
	return e
}

// deviceHandle is a retained GPU: numbers that only the table understands.
type deviceHandle struct {
	device          int32
	context, stream uintptr
}

// segment is one piece of device memory.
type segment struct {
	address     uint64
	allocation  uint64
	bytes       uint64 // mapped
	granularity uint64
	parts       uint32 // what of it exists; 0: nothing
}

// ipcHandleBytes is the length of CUDA's opaque handle of legacy memory.
const ipcHandleBytes = 64

type (
	sizeParameter int
	boolParameter int
)

// Parameters of the storage library, as CUFileSizeTConfigParameter and
// CUFileBoolConfigParameter number them.
const (
	maxDirectParameter sizeParameter = 5
	maxPinnedParameter sizeParameter = 8

	allowCompatParameter boolParameter = 1
	forceCompatParameter boolParameter = 2
	pciP2PDMAParameter   boolParameter = 7
)
