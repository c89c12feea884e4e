package backendtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/stokerio/stoker/backend"
)

// Memory is the reference Store: chunks in a map. It shows what the contract
// means and stands in for slower stores in tests.
type Memory struct {
	mu     sync.RWMutex
	closed bool
	chunks map[backend.ChunkID]stored
}

type stored struct {
	chunk   backend.Chunk // Object and its Name are copies
	content []byte
}

var _ backend.Store = (*Memory)(nil)

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{chunks: map[backend.ChunkID]stored{}} }

var errClosed = errors.New("the store is closed")

// check is what every call begins with; the caller holds mu.
func (m *Memory) check(ctx context.Context, op string) error {
	if m.closed {
		return &backend.Error{Kind: backend.Unavailable, Op: op, Object: "memory", Err: errClosed}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", op, context.Cause(ctx))
	}
	return nil
}

// find returns what is stored for c; the caller holds mu.
func (m *Memory) find(ctx context.Context, op string, c backend.Chunk) (stored, error) {
	if err := m.check(ctx, op); err != nil {
		return stored{}, err
	}
	id := c.Identity()
	s, ok := m.chunks[id]
	if !ok {
		return stored{}, &backend.Error{Kind: backend.NotFound, Op: op, Object: id.String()}
	}
	return s, nil
}

// ReadAt implements backend.Store.
func (m *Memory) ReadAt(ctx context.Context, c backend.Chunk, p []byte, off int64) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s, err := m.find(ctx, "read", c)
	if err != nil {
		return err
	}
	if size := int64(len(s.content)); off < 0 || off > size || int64(len(p)) > size-off {
		return &backend.Error{
			Kind: backend.OutOfRange, Op: "read", Object: c.Identity().String(),
			Detail: fmt.Sprintf("%d bytes at %d of %d", len(p), off, size),
		}
	}
	copy(p, s.content[off:])
	return nil
}

// Put implements backend.Store.
func (m *Memory) Put(ctx context.Context, content []byte) (backend.ChunkID, error) {
	id := backend.ContentID(content)
	return id, m.keep(ctx, "put", backend.Chunk{ID: id, Size: int64(len(content))}, content)
}

// Fill implements backend.Store.
func (m *Memory) Fill(ctx context.Context, c backend.Chunk, content []byte) error {
	return m.keep(ctx, "fill", c, content)
}

func (m *Memory) keep(ctx context.Context, op string, c backend.Chunk, content []byte) error {
	if len(content) > backend.MaxChunkBytes || int64(len(content)) != c.Size {
		return &backend.Error{
			Kind: backend.OutOfRange, Op: op, Object: c.Identity().String(),
			Detail: fmt.Sprintf("%d bytes for a chunk of %d, at most %d", len(content), c.Size, backend.MaxChunkBytes),
		}
	}
	if c.Object != nil {
		o := *c.Object
		o.Name = bytes.Clone(o.Name)
		c.Object = &o
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check(ctx, op); err != nil {
		return err
	}
	id := c.Identity()
	if _, ok := m.chunks[id]; !ok {
		m.chunks[id] = stored{chunk: c, content: bytes.Clone(content)}
	}
	return nil
}

// Stat implements backend.Store.
func (m *Memory) Stat(ctx context.Context, c backend.Chunk) (backend.Info, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s, err := m.find(ctx, "stat", c)
	if err != nil {
		return backend.Info{}, err
	}
	return s.info(), nil
}

func (s stored) info() backend.Info {
	return backend.Info{Chunk: s.chunk, Bytes: int64(len(s.content))}
}

// Delete implements backend.Store.
func (m *Memory) Delete(ctx context.Context, c backend.Chunk) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check(ctx, "delete"); err != nil {
		return err
	}
	delete(m.chunks, c.Identity())
	return nil
}

// List implements backend.Store. visit may call the store.
func (m *Memory) List(ctx context.Context, visit func(backend.Info) error) error {
	m.mu.RLock()
	err := m.check(ctx, "list")
	infos := make([]backend.Info, 0, len(m.chunks))
	for _, s := range m.chunks {
		infos = append(infos, s.info())
	}
	m.mu.RUnlock()
	if err != nil {
		return err
	}
	for info := range slices.Values(infos) {
		if err := visit(info); err != nil {
			return err
		}
	}
	return nil
}

// Close implements backend.Store; closing again does nothing.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed, m.chunks = true, nil
	return nil
}

// Wrapped is the smallest decorator: it forwards the contract and hides the
// abilities, which backend.As still finds.
type Wrapped struct{ backend.Store }

// Wrap puts a decorator around s.
func Wrap(s backend.Store) Wrapped { return Wrapped{s} }

// Unwrap implements backend.Unwrapper.
func (w Wrapped) Unwrap() backend.Store { return w.Store }
