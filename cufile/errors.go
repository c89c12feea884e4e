package cufile

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// Kinds of errors, for errors.Is. All others are an [*Error].
var (
	// ErrNoCgo: this program was built without cgo and cannot load libraries.
	ErrNoCgo = errors.New("cufile: built without cgo, which loading the GPU libraries needs; build with CGO_ENABLED=1 and a C compiler")
	// ErrNoDriver: there is no libcuda here. On a machine without a GPU it is an
	// answer and nothing to repair.
	ErrNoDriver = errors.New("no GPU driver library")
	// ErrConfiguration: cufile.json is there and cannot be used; the library is not to blame.
	ErrConfiguration = errors.New("read the storage library's configuration")
	// ErrNoStorage: there is a GPU driver and no libcufile; open with NoStorage.
	ErrNoStorage = errors.New("no GPU storage library")
	// ErrUnsupported: the library that is loaded, or the device, cannot do this.
	ErrUnsupported = errors.New("not supported here")
	// ErrInUse: something that stands on this is still open.
	ErrInUse = errors.New("still in use")
	// ErrClosed: it was closed before.
	ErrClosed = errors.New("already closed")
	// ErrReadOnly: the slab was received without the right to write.
	ErrReadOnly = errors.New("slab is mapped read-only")
	// ErrRange: offset and length do not lie within the slab.
	ErrRange = errors.New("outside of the slab")
	// ErrNoDevice: no GPU that this process sees has this UUID.
	ErrNoDevice = errors.New("no such GPU")
	// ErrWrongBytes: a read succeeded and brought other bytes than the file holds.
	ErrWrongBytes = errors.New("wrong bytes")
	// ErrMessage: what came over the socket is no slab message.
	ErrMessage = errors.New("no slab message")
)

// Error is a call into a library or the kernel that failed. At most one of Code,
// CUDA alone and Errno says why; where Code is 5011 CUDA has the driver's reason.
type Error struct {
	Op     string        // the function: cuFileHandleRegister
	Object string        // on what: a path, a UUID, a library; may be empty
	Code   int           // cuFile's code, from 5001 on; 0: none
	CUDA   int           // CUresult; 0: none
	Errno  syscall.Errno // 0: none
	Detail string        // what else is known: the loader's message
}

// Error says what failed, on what, why, and what to do next.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Object != "" {
		fmt.Fprintf(&b, " %q", e.Object)
	}
	for _, part := range []string{e.storageText(), e.deviceText(), e.errnoText(), e.Detail} {
		if part != "" {
			b.WriteString(": ")
			b.WriteString(part)
		}
	}
	if remedy := e.Remedy(); remedy != "" {
		b.WriteString("; remedy: ")
		b.WriteString(remedy)
	}
	return b.String()
}

func (e *Error) storageText() string {
	if e.Code == 0 {
		return ""
	}
	return fmt.Sprintf("%s (%d): %s", StorageCodeName(e.Code), e.Code, storageCodeText(e.Code))
}

func (e *Error) deviceText() string {
	if e.CUDA == 0 {
		return ""
	}
	return fmt.Sprintf("%s (%d)", DeviceCodeName(e.CUDA), e.CUDA)
}

func (e *Error) errnoText() string {
	if e.Errno == 0 {
		return ""
	}
	return e.Errno.Error()
}

// Unwrap lets errors.Is find the kernel's error number.
func (e *Error) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

// Remedy is what to do about it, in a line; empty where nobody knows.
func (e *Error) Remedy() string {
	if entry, found := storageCodes[e.Code]; found && entry.remedy != "" {
		return entry.remedy
	}
	if remedy, found := deviceRemedies[e.CUDA]; found {
		return remedy
	}
	return errnoRemedies[e.Errno]
}

var deviceRemedies = map[int]string{
	2:   "free device memory, or ask for smaller slabs; nvidia-smi shows who holds it",
	3:   "the driver is not initialised in this process, as after a fork: open after the fork",
	100: "give the process a GPU: in a container start it with --gpus, and check CUDA_VISIBLE_DEVICES",
	101: "check CUDA_VISIBLE_DEVICES",
	201: "the device was closed; open it anew",
	304: "the system refused; in a container share what the driver needs (--ipc=host), else see dmesg",
	800: "the device does not allow it, as with MIG or in a sandbox; Stoker's path through host memory works there",
	801: "the device or driver cannot do it; Stoker's path through host memory works there",
	802: "the GPU fabric is still starting; see nvidia-fabricmanager",
	803: "driver and library do not fit: reboot after the driver's update, or update both",
	999: "see dmesg for the driver's Xid messages; in a container check the nvidia-container-toolkit",
}

var errnoRemedies = map[syscall.Errno]string{
	syscall.EINVAL: "the file system may lack direct I/O: use ext4 or XFS on a local drive, or FileOptions.Buffered",
	syscall.EACCES: "give this process the right to read it",
	syscall.EIO:    "the drive answered an error: see dmesg and smartctl",
	syscall.EMFILE: "raise the limit of open files (ulimit -n, LimitNOFILE=)",
	syscall.ENOSPC: "make room on the file system",
}
