package cufile

import (
	"errors"
	"fmt"
	"os"
	"runtime"
)

// Export is a slab on its way to another process.
type Export struct {
	Kind        SlabKind
	Bytes       int64
	MappedBytes int64
	Granularity int64
	Device      UUID
	Process     int // the exporter's PID
	// File is the descriptor of a VMM slab, which whoever has the Export closes;
	// nil for a legacy one.
	File *os.File
	// Handle is the handle of a legacy slab; zero for a VMM one.
	Handle [ipcHandleBytes]byte
}

// Export makes what another process needs to map the slab. SendSlab sends it. The
// caller closes it. Whoever gets it may map the slab to be written, also where this
// process may only read it.
func (s *Slab) Export() (Export, error) {
	if !s.gate.enter() {
		return Export{}, closed("export", s.name())
	}
	defer s.gate.leave()
	e := Export{
		Kind: s.kind, Bytes: s.bytes, MappedBytes: int64(s.segment.bytes), Granularity: int64(s.segment.granularity),
		Device: s.device.info.UUID, Process: os.Getpid(),
	}
	if s.kind == SlabLegacy {
		handle, st := s.device.driver.table.exportLegacy(s.device.handle, s.segment)
		e.Handle = handle
		return e, s.explain("export", st.err(s.name()))
	}
	descriptor, st := s.device.driver.table.export(s.device.handle, s.segment)
	if st.failed() {
		return Export{}, s.explain("export", st.error(s.name()))
	}
	e.File = os.NewFile(uintptr(descriptor), "slab")
	return e, nil
}

// Close closes the descriptor, if there is one.
func (e Export) Close() error {
	if e.File == nil {
		return nil
	}
	return e.File.Close()
}

// Import maps a slab that another process exported, read-only unless writable. The
// export's File stays its owner's, who may close it afterwards. The caller closes the
// slab. A legacy slab is always writable by the hardware; here it is held to what was
// asked. ErrMessage where the export is none that an exporter makes, ErrClosed where
// its File is closed.
func (g *Device) Import(e Export, writable bool) (*Slab, error) {
	if err := e.validate(); err != nil {
		return nil, err
	}
	descriptor := -1
	if e.Kind == SlabVMM {
		if e.File == nil {
			return nil, fmt.Errorf("import slab: %w: no descriptor", ErrMessage)
		}
		if descriptor = int(e.File.Fd()); descriptor < 0 {
			return nil, fmt.Errorf("import slab: its descriptor: %w", ErrClosed)
		}
	}
	if e.Device != g.info.UUID {
		return nil, fmt.Errorf("import slab: it lies on GPU %s, not on %s: open that one", e.Device, g.info.UUID)
	}
	s, err := g.adopt(fmt.Sprintf("imported slab of %d bytes", e.Bytes), func(s *Slab) status {
		s.kind, s.bytes, s.writable = e.Kind, e.Bytes, writable
		var st status
		if e.Kind == SlabLegacy {
			s.segment, st = g.driver.table.receiveLegacy(g.handle, &e.Handle, uint64(e.MappedBytes))
		} else {
			s.segment, st = g.driver.table.receive(g.handle, descriptor, uint64(e.MappedBytes), writable)
			runtime.KeepAlive(e.File) // a File that nobody has any more is closed
		}
		return st
	})
	if err != nil {
		return nil, err
	}
	if s.segment.bytes < uint64(e.MappedBytes) {
		return nil, s.tooShort(e)
	}
	return s, nil
}

// tooShort gives back a legacy slab that is smaller than its sender says. A handle is
// mapped as it is, so that nothing else would stop a read behind its end.
func (s *Slab) tooShort(e Export) error {
	err := fmt.Errorf("import slab: %w: it says %d bytes and has %d", ErrMessage, e.MappedBytes, s.segment.bytes)
	if closeErr := s.Close(); closeErr != nil {
		s.device.gate.abandon(s)
		return errors.Join(err, closeErr)
	}
	return err
}
