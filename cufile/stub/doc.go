// Package stub builds stand-ins for NVIDIA's libcuda.so.1 and libcufile.so.0, so that
// everything above them can be tested where there is no GPU. It is for tests and for
// gpu-check; nothing that serves users imports it.
//
// # What the stand-ins are
//
// Device memory is memory of memfds, mapped where the device pointer says: export,
// import and mapping between processes are real, and so are their ends when a process
// is killed. cuFile's reads are preads into it. Nothing is fast or slow in a way that
// means anything: whatever ran on them prints STUB and no speeds. What they prove is
// that the ABI, the order of calls, the fallbacks and the passing of descriptors are
// right by NVIDIA's documents, not that NVIDIA's libraries behave so.
//
// They are strict. A call that NVIDIA's documents forbid gets the documented code; one
// that would corrupt memory or hang there aborts the process with a line that begins
// with "STUB: misuse". Asynchronous work is done when somebody synchronises, and new
// device memory is not zero.
//
// # How they are used
//
// [Build] compiles them with the C compiler into a folder, [Cached] once for all. A
// program finds them through [Libraries.Environment], or by the two paths. [NewState]
// makes a file which several processes share: faults that take effect at once, counts
// of what is alive, and device memory that is counted over all of them.
//
// Environment, read by cuInit, and again by a later one if nothing of the process is
// alive by then:
//
//	STOKER_STUB_STATE         the file of NewState; made if it is missing
//	STOKER_STUB_QUIET=1       do not print STUB
//	STOKER_STUB_FAULTS        faults, as of Fault.String, joined by ";"
//	STOKER_STUB_DEVICES       "key=value,...;..." a device each: bytes name uuid pci cc mig vmm fd rdma attrN
//	STOKER_STUB_ROUTE         p2p, nvfs or none: what this machine is said to be able to do
//	STOKER_STUB_PINNED        bytes that may be registered with cuFile
//	STOKER_STUB_BAR           bytes that may be registered of one device
//	STOKER_STUB_CUDA_VERSION  of the driver, as 13000
//	CUDA_VISIBLE_DEVICES      as for CUDA
//
// The libraries export, beside NVIDIA's functions, int stoker_stub(void), which marks
// them, and long stoker_stub_live(const char *kind), which counts what the process
// holds: contexts, allocations, mappings, reservations, memory, ipc, host,
// registered_host, streams, events, files, buffers, drivers; "" is all of them.
//
// Left out because nothing of Stoker's uses them: cuCtxCreate, events between
// processes, modules and kernels; cuFile's batches, streams and vectors are there and
// answer that they are not supported.
package stub
