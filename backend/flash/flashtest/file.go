package flashtest

import (
	"io"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Bytes that a device writes as a whole or not at all, and that a kernel keeps together.
const (
	sectorBytes = 512
	pageBytes   = 4096
	pageSectors = pageBytes / sectorBytes
)

// sector is content that is never changed, so that copies of files share it; nil: zeros.
type sector = *[sectorBytes]byte

// page is one of a file: what its sectors hold, and what they held before since it was
// last synced, oldest first.
type page struct {
	now [pageSectors]sector
	old [pageSectors][]sector
}

// node is a file, whatever its name. The lock of its Files guards it.
type node struct {
	pages       map[int64]*page    // by number; those that are not there are zeros
	unsynced    map[int64]struct{} // were written since the last sync
	uncertain   map[int64]struct{} // may read otherwise after a crash: these, and those that a sync failed to write
	name        string             // its last
	size        int64
	durableSize int64
	room        ranges
	opened      int
	unlinked    bool
}

func newNode() *node {
	return &node{pages: map[int64]*page{}, unsynced: map[int64]struct{}{}, uncertain: map[int64]struct{}{}}
}

// read copies what is at off, and reports how much there is.
func (n *node) read(p []byte, off int64) int {
	p = p[:max(0, min(int64(len(p)), n.size-off))]
	for done := 0; done < len(p); {
		at := off + int64(done)
		inside := int(at % sectorBytes)
		part := p[done:min(len(p), done+sectorBytes-inside)]
		if s := n.sectorAt(at); s != nil {
			copy(part, s[inside:])
		} else {
			clear(part)
		}
		done += len(part)
	}
	return len(p)
}

// writeHead writes the first bytes of whole pages; all that follows reads as zero.
func (n *node) writeHead(p []byte, off int64) {
	n.size = max(n.size, off+int64(len(p)))
	for at := off; at < off+int64(len(p)); at += pageBytes {
		delete(n.pages, at/pageBytes)
	}
	if len(p) > 0 && [headBytes]byte(p) != [headBytes]byte{} {
		n.write(p[:headBytes], off)
	}
}

// headBytes is what hollow files keep of what is written at once.
const headBytes = 8

func (n *node) sectorAt(off int64) sector {
	if pg := n.pages[off/pageBytes]; pg != nil {
		return pg.now[off%pageBytes/sectorBytes]
	}
	return nil
}

// write puts p at off.
func (n *node) write(p []byte, off int64) {
	n.size = max(n.size, off+int64(len(p)))
	for len(p) > 0 {
		inside := int(off % sectorBytes)
		part := p[:min(len(p), sectorBytes-inside)]
		next := new([sectorBytes]byte)
		if before := n.sectorAt(off); before != nil {
			*next = *before
		}
		copy(next[inside:], part)
		n.put(off, next)
		p, off = p[len(part):], off+int64(len(part))
	}
}

func (n *node) put(off int64, s sector) {
	number := off / pageBytes
	pg := n.pages[number]
	if pg == nil {
		pg = &page{}
		n.pages[number] = pg
	}
	i := off % pageBytes / sectorBytes
	pg.old[i] = append(pg.old[i], pg.now[i])
	pg.now[i] = s
	n.unsynced[number], n.uncertain[number] = struct{}{}, struct{}{}
}

// sync makes what was written since the last one durable.
func (n *node) sync() {
	for number := range n.unsynced {
		if pg := n.pages[number]; pg != nil {
			pg.old = [pageSectors][]sector{}
		}
		delete(n.uncertain, number)
	}
	clear(n.unsynced)
	n.durableSize = n.size
}

// failSync forgets that anything has to be written, as Linux does once it told of an error.
func (n *node) failSync() { clear(n.unsynced) }

// truncate cuts the file, or makes it longer with zeros, durably.
func (n *node) truncate(size int64) {
	for number, pg := range n.pages {
		for i := range pg.now {
			if start := number*pageBytes + int64(i)*sectorBytes; start+sectorBytes > size {
				pg.now[i], pg.old[i] = cut(pg.now[i], size-start), nil
			}
		}
	}
	n.size, n.durableSize = size, size
}

// cut is a sector with zeros from its byte n on.
func cut(s sector, n int64) sector {
	if s == nil || n <= 0 {
		return nil
	}
	left := *s
	clear(left[n:])
	return &left
}

// handle is an open file.
type handle struct {
	files  *Files
	node   *node
	closed bool
}

// ReadAt implements flash.File.
func (h *handle) ReadAt(p []byte, off int64) (int, error) {
	if _, err := h.begin(Read, off, int64(len(p))); err != nil {
		return 0, err
	}
	h.files.mu.Lock()
	defer h.files.mu.Unlock()
	n := h.node.read(p, off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements flash.File.
func (h *handle) WriteAt(p []byte, off int64) (int, error) {
	short, err := h.begin(Write, off, int64(len(p)))
	f := h.files
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		p = p[:min(short, len(p))]
	}
	if !f.take(h.node, off, int64(len(p))) {
		return 0, pathError(Write, h.node.name, unix.ENOSPC)
	}
	if f.hollow && len(p)%pageBytes == 0 {
		h.node.writeHead(p, off)
		return len(p), err
	}
	h.node.write(p, off)
	return len(p), err
}

// Close implements flash.File.
func (h *handle) Close() error {
	_, err := h.begin(Close, 0, 0)
	h.files.mu.Lock()
	defer h.files.mu.Unlock()
	if h.closed {
		return fs.ErrClosed
	}
	h.closed = true
	h.node.opened--
	h.files.reclaim(h.node)
	return err
}

// Allocate implements flash.File.
func (h *handle) Allocate(off, n int64) error {
	if _, err := h.begin(Allocate, off, n); err != nil {
		return err
	}
	h.files.mu.Lock()
	defer h.files.mu.Unlock()
	if !h.files.take(h.node, off, n) {
		return pathError(Allocate, h.node.name, unix.ENOSPC)
	}
	h.node.size = max(h.node.size, off+n)
	return nil
}

// Sync implements flash.File.
func (h *handle) Sync() error {
	_, err := h.begin(Sync, 0, 0)
	h.files.mu.Lock()
	defer h.files.mu.Unlock()
	if err != nil {
		h.node.failSync()
		return err
	}
	h.node.sync()
	return nil
}

// WriteBack implements flash.File.
func (h *handle) WriteBack(int64, int64) {}

// Size implements flash.File.
func (h *handle) Size() (int64, error) {
	if _, err := h.begin(Size, 0, 0); err != nil {
		return 0, err
	}
	h.files.mu.Lock()
	defer h.files.mu.Unlock()
	return h.node.size, nil
}

// Fd implements flash.File.
func (h *handle) Fd() int { return -1 }

// begin is what each operation of an open file begins with.
func (h *handle) begin(k Kind, off, n int64) (short int, err error) {
	h.files.mu.Lock()
	closed, name := h.closed, h.node.name
	h.files.mu.Unlock()
	if closed {
		return 0, pathError(k, name, fs.ErrClosed)
	}
	return h.files.begin(Operation{Kind: k, Name: name, Offset: off, Bytes: n})
}
