package cufile

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

// Device is a GPU whose primary context this process holds. The primary context is
// the one that PyTorch and cuFile use too; each process that holds one pays about
// 500 MiB of device memory.
type Device struct {
	driver *Driver
	info   DeviceInfo
	handle deviceHandle
	gate   gate
}

// Device retains the primary context of the GPU with this UUID. The caller closes
// it. ErrNoDevice where this process does not see it.
func (d *Driver) Device(uuid UUID) (*Device, error) {
	if !d.gate.enter() {
		return nil, closed("open GPU", uuid.String())
	}
	defer d.gate.leave()
	info, err := d.find(uuid)
	if err != nil {
		return nil, err
	}
	handle, s := d.table.retain(info.Ordinal)
	g := &Device{driver: d, info: info, handle: handle}
	if s.failed() {
		if handle.context != 0 { // undoing it failed, too
			d.gate.abandon(g)
		}
		return nil, s.error(uuid.String())
	}
	d.gate.moveIn(g, "GPU "+uuid.String())
	return g, nil
}

func (d *Driver) find(uuid UUID) (DeviceInfo, error) {
	all, err := d.describe()
	for _, info := range all {
		if info.UUID == uuid {
			return info, nil
		}
	}
	if err != nil { // it may be the one that does not answer
		return DeviceInfo{}, fmt.Errorf("open GPU %s: %w", uuid, err)
	}
	return DeviceInfo{}, fmt.Errorf("open GPU %s: %w among the %d that this process sees; see nvidia-smi -L and CUDA_VISIBLE_DEVICES", uuid, ErrNoDevice, len(all))
}

// Info describes the GPU.
func (g *Device) Info() DeviceInfo { return g.info }

// UUID names the GPU.
func (g *Device) UUID() UUID { return g.info.UUID }

// Memory says how many bytes of device memory are free, and how many there are.
func (g *Device) Memory() (free, total int64, err error) {
	if !g.gate.enter() {
		return 0, 0, closed("read the memory of GPU", g.info.UUID.String())
	}
	defer g.gate.leave()
	f, a, s := g.driver.table.memory(g.handle)
	return int64(f), int64(a), s.err(g.info.UUID.String())
}

// Close releases the context. While slabs or host memory of the device are open it
// answers ErrInUse and releases nothing.
func (g *Device) Close() error {
	err := g.gate.shut(func() error {
		if err := g.driver.table.release(&g.handle).err(g.info.UUID.String()); err != nil {
			return err
		}
		g.driver.gate.moveOut(g)
		return nil
	})
	if err != nil {
		return fmt.Errorf("close GPU %s: %w", g.info.UUID, err)
	}
	return nil
}

// HostMemory is host memory that the driver holds in place, so that copies from it
// go at the speed of the bus.
type HostMemory struct {
	device *Device
	memory []byte
	gate   gate
}

// RegisterHost registers memory, which must be a writable mapping (mmap, as of a
// memfd), page-aligned (else ErrRange), and stay mapped until HostMemory.Close: Go's
// own memory moves and may be collected. It takes milliseconds for a GiB, so register
// once.
func (g *Device) RegisterHost(p []byte) (*HostMemory, error) {
	if len(p) == 0 {
		return nil, fmt.Errorf("register host memory: %w: no bytes", ErrRange)
	}
	if !g.gate.enter() {
		return nil, closed("register host memory for GPU", g.info.UUID.String())
	}
	defer g.gate.leave()
	if address := uintptr(unsafe.Pointer(unsafe.SliceData(p))); address%uintptr(os.Getpagesize()) != 0 {
		return nil, fmt.Errorf("register host memory: %w: it begins at %#x, within a page: give the whole mapping, as mmap made it", ErrRange, address)
	}
	if s := g.driver.table.registerHost(g.handle, p); s.failed() {
		return nil, s.error(fmt.Sprintf("%d bytes", len(p)))
	}
	h := &HostMemory{device: g, memory: p}
	g.gate.moveIn(h, fmt.Sprintf("host memory of %d bytes", len(p)))
	return h, nil
}

// Close gives the memory back to its owner, who may then unmap it. It waits for
// copies in flight.
func (h *HostMemory) Close() error {
	err := h.gate.shut(func() error {
		if err := h.device.driver.table.unregisterHost(h.device.handle, h.memory).err(fmt.Sprintf("%d bytes", len(h.memory))); err != nil {
			return err
		}
		h.device.gate.moveOut(h)
		return nil
	})
	if err != nil {
		return fmt.Errorf("close host memory: %w", err)
	}
	return nil
}

// errnoOf finds the kernel's number in an error; EIO where there is none.
func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return syscall.EIO
}
