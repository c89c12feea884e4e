package cufile

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// errTwice is a registration, or its end, that happened before.
var errTwice = errors.New("nothing to do: the slab is so already")

// Slab is one large piece of device memory. Its memory lives until the last process
// that has it mapped lets go, whatever becomes of the one that made it.
type Slab struct {
	device     *Device
	kind       SlabKind
	segment    segment
	bytes      int64
	writable   bool
	registered bool // guarded by gate: changed alone
	gate       gate
}

// NewSlab takes device memory of at least this many bytes, all zero, in whole
// granules (2 MiB as a rule). It can be exported as a descriptor, except where the
// GPU cannot (DeviceInfo.Exportable), or the driver refuses to, as in a sandbox: there it
// is a legacy one. The caller closes it.
func (g *Device) NewSlab(bytes int64) (*Slab, error) { return g.newSlab(false, bytes) }

// NewLegacySlab is NewSlab with memory that travels as a 64-byte handle, which MIG
// and separate PID namespaces do not allow and which every receiver can write.
func (g *Device) NewLegacySlab(bytes int64) (*Slab, error) { return g.newSlab(true, bytes) }

func (g *Device) newSlab(legacy bool, bytes int64) (*Slab, error) {
	if bytes <= 0 || bytes > g.info.Bytes {
		return nil, fmt.Errorf("new slab of %d bytes on GPU %s: %w: want 1 to %d bytes", bytes, g.info.UUID, ErrRange, g.info.Bytes)
	}
	return g.adopt(fmt.Sprintf("slab of %d bytes", bytes), func(s *Slab) status {
		s.kind, s.bytes, s.writable = SlabVMM, bytes, true
		if legacy || !g.info.Exportable() || !g.driver.has(exportableMemory) {
			s.kind = SlabLegacy
		}
		st := g.create(s)
		if s.kind == SlabLegacy || st.failed() || !g.refuses(s.segment) {
			return st
		}
		if st = g.driver.table.destroy(g.handle, &s.segment); st.failed() {
			return st
		}
		s.kind = SlabLegacy
		return g.create(s)
	})
}

func (g *Device) create(s *Slab) (st status) {
	s.segment, st = g.driver.table.create(g.handle, s.kind, uint64(s.bytes), g.info.DirectVirtualMemory)
	return st
}

// refuses tries whether memory can leave the process as a descriptor: what the GPU says of
// itself, a sandbox may not let through. An export that fails otherwise says so when it is
// wanted.
func (g *Device) refuses(s segment) bool {
	descriptor, st := g.driver.table.export(g.handle, s)
	if st.failed() {
		return slices.Contains(g.driver.vendor.refusals, st.cuda)
	}
	_ = unix.Close(descriptor)
	return false
}

// adopt makes a slab that the device knows of.
func (g *Device) adopt(name string, build func(*Slab) status) (*Slab, error) {
	if !g.gate.enter() {
		return nil, closed("new slab on GPU", g.info.UUID.String())
	}
	defer g.gate.leave()
	s := &Slab{device: g}
	if st := build(s); st.failed() {
		if s.segment.parts != 0 { // undoing it failed, too
			g.gate.abandon(s)
		}
		return nil, st.error(fmt.Sprintf("%s on %s", name, g.info.UUID))
	}
	g.gate.moveIn(s, name)
	return s, nil
}

// Bytes is what was asked for, and how far a slab may be read and written.
func (s *Slab) Bytes() int64 { return s.bytes }

// MappedBytes is Bytes in whole granules: what the slab costs.
func (s *Slab) MappedBytes() int64 { return int64(s.segment.bytes) }

// Address is where the slab lies in this process's view of the device. It means
// nothing to another process.
func (s *Slab) Address() uint64 { return s.segment.address }

// Kind says how the slab travels.
func (s *Slab) Kind() SlabKind { return s.kind }

// Device names the GPU.
func (s *Slab) Device() UUID { return s.device.info.UUID }

// Writable says whether this process may write into the slab.
func (s *Slab) Writable() bool { return s.writable }

// Register lets the storage library read into the slab without a bounce buffer. It
// pins the whole slab and takes host memory besides, so register few large slabs and
// once. 5016 and 5036 say that BAR1 or the limit of pinned memory is used up.
func (s *Slab) Register() error {
	err := s.gate.alone(func() error {
		switch {
		case !s.device.driver.storage:
			return ErrNoStorage
		case !s.writable:
			return ErrReadOnly
		case s.registered:
			return errTwice
		}
		st := s.device.driver.table.registerBuffer(s.device.handle, s.segment.address, s.segment.bytes)
		s.registered = !st.failed()
		return st.err(s.name())
	})
	return s.explain("register", err)
}

// Unregister undoes Register, after waiting for reads in flight. Close does it too.
func (s *Slab) Unregister() error {
	err := s.gate.alone(func() error {
		if !s.registered {
			return errTwice
		}
		return s.unregister()
	})
	return s.explain("unregister", err)
}

func (s *Slab) unregister() error {
	if !s.registered {
		return nil
	}
	st := s.device.driver.table.deregisterBuffer(s.device.handle, s.segment.address)
	s.registered = st.failed()
	return st.err(s.name())
}

func (s *Slab) name() string {
	return fmt.Sprintf("slab of %d bytes on %s", s.bytes, s.device.info.UUID)
}

func (s *Slab) explain(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s slab: %w", what, err)
}

// within refuses ranges outside of the slab.
func (s *Slab) within(offset int64, n int) error {
	if offset < 0 || n < 0 || offset > s.bytes || int64(n) > s.bytes-offset {
		return fmt.Errorf("%w: %d bytes at %d of a slab of %d", ErrRange, n, offset, s.bytes)
	}
	return nil
}

// inside runs f on a range of the slab, which stays until f is done.
func (s *Slab) inside(what string, offset int64, n int, writes bool, f func(address uint64) status) error {
	if !s.gate.enter() {
		return closed(what, s.name())
	}
	defer s.gate.leave()
	if err := s.within(offset, n); err != nil {
		return s.explain(what, err)
	}
	if writes && !s.writable {
		return s.explain(what, ErrReadOnly)
	}
	if n == 0 {
		return nil
	}
	if st := f(s.segment.address + uint64(offset)); st.failed() {
		return st.error(s.name())
	}
	return nil
}

// CopyIn writes p at an offset. It is done when it returns.
func (s *Slab) CopyIn(p []byte, offset int64) error {
	return s.inside("copy into", offset, len(p), true, func(address uint64) status {
		return s.device.driver.table.copyIn(s.device.handle, address, p)
	})
}

// CopyOut reads into p from an offset. It is done when it returns.
func (s *Slab) CopyOut(p []byte, offset int64) error {
	return s.inside("copy out of", offset, len(p), false, func(address uint64) status {
		return s.device.driver.table.copyOut(s.device.handle, p, address)
	})
}

// CopyFromHost writes n bytes of registered host memory at an offset, at the speed
// of the bus. It is done when it returns. The memory may belong to another device of
// the same Driver.
func (s *Slab) CopyFromHost(h *HostMemory, hostOffset, offset, n int64) error {
	if !h.gate.enter() {
		return closed("copy from host memory", "")
	}
	defer h.gate.leave()
	if size := int64(len(h.memory)); hostOffset < 0 || n < 0 || hostOffset > size || n > size-hostOffset {
		return fmt.Errorf("copy from host memory: %w: %d bytes at %d of %d", ErrRange, n, hostOffset, size)
	}
	return s.CopyIn(h.memory[hostOffset:hostOffset+n], offset)
}

// Close waits for reads and copies in flight, unregisters and gives the memory back.
// Other processes that have the slab mapped keep it.
func (s *Slab) Close() error {
	err := s.gate.shut(func() error {
		if err := s.unregister(); err != nil {
			return err
		}
		if err := s.device.driver.table.destroy(s.device.handle, &s.segment).err(s.name()); err != nil {
			return err
		}
		s.device.gate.moveOut(s)
		return nil
	})
	return s.explain("close", err)
}
