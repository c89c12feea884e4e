package cufile

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// Kinds of errors, for errors.Is. A call into a library or the kernel that failed is an
// [*Error]; what is neither comes from a context, a file of Prove's or a cufile.json.
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
	// ErrClosed: it was closed before, or a Close of it has begun and failed.
	ErrClosed = errors.New("already closed")
	// ErrReadOnly: the slab was received without the right to write.
	ErrReadOnly = errors.New("slab is mapped read-only")
	// ErrRange: an offset, a length or an address is none that the slab, the file or the
	// host memory has.
	ErrRange = errors.New("out of range")
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
	text := fmt.Sprintf("%s (%d)", DeviceCodeName(e.CUDA), e.CUDA)
	if meaning, found := deviceTexts[e.CUDA]; found {
		text += ": " + meaning
	}
	return text
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
	1:   "where a slab was received, its sender sent something else; otherwise a mistake of Stoker's: report it with the versions that stoker doctor prints",
	2:   "free device memory, or ask for smaller slabs; nvidia-smi shows who holds it",
	3:   "the driver is not initialised in this process, as after a fork: open after the fork",
	34:  "name the driver's libcuda.so.1 (STOKER_CUDA_LIB), not the one in the toolkit's folder stubs",
	36:  "update the driver",
	46:  "nvidia-smi shows which process has the device for itself alone (compute mode)",
	100: "give the process a GPU: in a container start it with --gpus, and check CUDA_VISIBLE_DEVICES",
	101: "check CUDA_VISIBLE_DEVICES",
	201: "the device was closed; open it anew",
	214: "look at the device's health (nvidia-smi -q), and reset or replace it",
	220: "look at the device's health (nvidia-smi -q), and reset or replace it",
	226: "look at the device's health (nvidia-smi -q), and reset or replace it",
	304: "the system refused; in a container share what the driver needs (--ipc=host), else see dmesg",
	400: "a mistake of Stoker's: report it with the versions that stoker doctor prints",
	700: "the context is lost, with all that is in it: end this process and start it anew",
	702: "the context is lost, with all that is in it: end this process and start it anew",
	709: "the context is lost, with all that is in it: end this process and start it anew",
	712: "give the memory's earlier registration back first (HostMemory.Close)",
	716: "the context is lost, with all that is in it: end this process and start it anew",
	719: "the context is lost, with all that is in it: end this process and start it anew",
	800: "the device does not allow it, as with MIG or in a sandbox; Stoker's path through host memory works there",
	801: "the device or driver cannot do it; Stoker's path through host memory works there",
	802: "the GPU fabric is still starting; see nvidia-fabricmanager",
	803: "driver and library do not fit: reboot after the driver's update, or update both",
	805: "start the MPS server (nvidia-cuda-mps-control -d), or unset CUDA_MPS_PIPE_DIRECTORY",
	999: "see dmesg for the driver's Xid messages; in a container check the nvidia-container-toolkit",
}

var errnoRemedies = map[syscall.Errno]string{
	syscall.EINVAL: "the file system may lack direct I/O: use ext4 or XFS on a local drive, or FileOptions.Buffered",
	syscall.EACCES: "give this process the right to read it",
	syscall.EIO:    "the drive answered an error: see dmesg and smartctl",
	syscall.EMFILE: "raise the limit of open files (ulimit -n, LimitNOFILE=)",
	syscall.ENOSPC: "make room on the file system",
}
