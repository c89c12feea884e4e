// Package cufile speaks to a GPU's driver and to its storage library: libcuda and
// libcufile today, both opened at run time, so that one program runs with a GPU,
// with a GPU but no GPUDirect Storage, and with neither.
//
// # What there is
//
// [Open] loads the libraries and answers a [Driver]. A Driver finds GPUs by UUID;
// [Driver.Device] retains a GPU's primary context. [Device.NewSlab] takes a slab:
// one large piece of zeroed device memory that another process can map, by a
// descriptor ([SendSlab], [ReceiveSlab]). [Driver.OpenFile] opens a file for
// reads straight into a slab ([File.ReadAt]). [Driver.Prove] reads a file of its
// own and says which way the bytes went.
//
//	driver, err := cufile.Open(cufile.Options{Statistics: 3})
//	if errors.Is(err, cufile.ErrNoDriver) {
//		// no GPU here: an answer, not a failure
//	}
//	device, err := driver.Device(uuid)
//	slab, err := device.NewSlab(512 << 20)
//	err = slab.Register()
//	file, err := driver.OpenFile("/cache/segment", cufile.FileOptions{})
//	n, err := file.ReadAt(slab, 0, 4<<20, 0)
//
// # What it guarantees
//
//   - cuFile's compatibility mode (a read through host memory behind the same
//     call) is off unless [Parameters].AllowCompat asks for it, and is always set
//     explicitly: its default is documented in two ways.
//   - Order. What is open keeps what it stands on open: [Driver.Close] answers
//     [ErrInUse] while files, slabs or devices are open, [Device.Close] while its
//     slabs or host memory are. Close of a [File] or [Slab] waits for reads in
//     flight, then deregisters, unmaps and closes, because freeing memory that is
//     still registered can deadlock the kernel module (release notes of GPUDirect
//     Storage). Use after Close is [ErrClosed].
//   - A Close that fails can be called again. Until then its owner may be half gone,
//     as memory that is unmapped and not yet released: any use of it is [ErrClosed].
//   - [File.ReadAt] is one call into C and allocates nothing.
//   - All methods may be called from several goroutines at once.
//
// # Traps
//
//   - The libraries are never unloaded, and a Driver is to be closed before the
//     process ends: cuFile is known to crash at exit otherwise (release notes).
//   - A process that forks without exec must not touch any of this in the child:
//     neither CUDA nor cuFile survives it. os/exec is safe; every descriptor here
//     is close-on-exec.
//   - A GPU context costs about 500 MiB of device memory in each process.
//   - Writes into a slab that was received read-only are refused here, and would
//     otherwise destroy the context: the GPU's fault is not a signal.
//   - cuFile reads one request in pieces of its direct-I/O size, one after the
//     other. Parallelism comes from several goroutines, and each blocks a thread.
//   - A read is direct only where file offset, length and slab offset are
//     multiples of [Alignment]; others work, through a bounce buffer.
//   - cuFile answers 5030 where /run/udev cannot be read, as in a container that
//     does not mount it (https://github.com/rapidsai/kvikio/issues/33).
//
// Built without cgo the package has the same API, and Open answers [ErrNoCgo].
//
// The ABI is declared in abi.h, in our own words; a test compiles its sizes,
// offsets and signatures against NVIDIA's headers. Words here are neutral of the
// vendor, so that AMD's hipFile can become a second table behind the same API.
package cufile

// Alignment is what file offset, length and slab offset of a direct read are
// multiples of, in bytes; see NVIDIA's GPUDirect Storage best practices guide,
// "IO patterns".
const Alignment = 4096
