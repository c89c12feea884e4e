package shm

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrNoMemory is what a shared memory allocation fails with when the system has
// no room for it.
var ErrNoMemory = errors.New("no memory for shared memory")

// Memory is one anonymous shared file, mapped. Its size is sealed; its pages are
// allocated when it is made, so that touching them later can not fail.
type Memory struct {
	mu    sync.Mutex
	fd    int
	bytes []byte
}

// sealAll forbids to shrink, to grow and to change the seals: the other side can
// then neither pull pages from under us nor enlarge what we are charged for.
const sealAll = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// NewMemory makes and maps size bytes. name is seen in /proc only.
// Errors: ErrNoMemory, or the failing system call's.
func NewMemory(name string, size int64) (*Memory, error) {
	if err := checkAvailable(size); err != nil {
		return nil, fmt.Errorf("shared memory %q: %w", name, err)
	}
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("create shared memory %q: %w", name, err)
	}
	m := &Memory{fd: fd}
	if err := m.prepare(size); err != nil {
		_ = m.Close()
		return nil, fmt.Errorf("prepare %d bytes of shared memory %q: %w", size, name, err)
	}
	return m, nil
}

func (m *Memory) prepare(size int64) error {
	if err := unix.Fallocate(m.fd, 0, 0, size); err != nil {
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.ENOMEM) {
			return fmt.Errorf("%w: %w", ErrNoMemory, err)
		}
		return fmt.Errorf("fallocate: %w", err)
	}
	if _, err := unix.FcntlInt(uintptr(m.fd), unix.F_ADD_SEALS, sealAll); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	b, err := unix.Mmap(m.fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		if errors.Is(err, unix.ENOMEM) {
			return fmt.Errorf("%w: %w", ErrNoMemory, err)
		}
		return fmt.Errorf("mmap: %w", err)
	}
	m.bytes = b
	return nil
}

// Bytes returns the mapping. It must not be touched after Close.
func (m *Memory) Bytes() []byte { return m.bytes }

// FD returns the descriptor, to be passed to the trainer, -1 once closed or
// dropped. It stays owned by m.
func (m *Memory) FD() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fd
}

// DropFD closes the descriptor and keeps the mapping.
func (m *Memory) DropFD() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fd < 0 {
		return nil
	}
	err := unix.Close(m.fd)
	m.fd = -1
	return err
}

// Discard gives the pages back to the system at once, whoever else still maps
// them; they read as zero from then on. It is for memory whose owner has died and
// left forks behind.
func (m *Memory) Discard() error { return unix.Madvise(m.bytes, unix.MADV_REMOVE) }

// Close unmaps and closes. The other side keeps its own mapping; the pages are
// freed with the last one. Closing twice is no error.
func (m *Memory) Close() error {
	err := m.DropFD()
	if m.bytes != nil {
		err = errors.Join(err, unix.Munmap(m.bytes))
		m.bytes = nil
	}
	return err
}
