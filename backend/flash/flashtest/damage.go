package flashtest

import "fmt"

// Damage is what happens to files behind a store's back: it is durable at once, and who
// has the file open sees it.

// at returns a file, which must be there. The lock is held.
func (f *Files) at(name string) *node {
	n := f.entries[name]
	if n == nil {
		panic(fmt.Sprintf("flashtest: there is no file %s", name))
	}
	return n
}

// Flip inverts bits of the byte at off.
func (f *Files) Flip(name string, off int64, bits byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var b [1]byte
	n := f.at(name)
	n.read(b[:], off)
	n.overwrite([]byte{b[0] ^ bits}, off)
}

// Overwrite puts bytes into a file.
func (f *Files) Overwrite(name string, p []byte, off int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at(name).overwrite(p, off)
}

// Content is all bytes of a file.
func (f *Files) Content(name string) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.at(name)
	p := make([]byte, n.size)
	n.read(p, 0)
	return p
}

// Truncate cuts a file, or makes it longer with zeros.
func (f *Files) Truncate(name string, size int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at(name).truncate(size)
}

// Unlink removes a file.
func (f *Files) Unlink(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at(name)
	f.drop(f.entries[name])
	delete(f.entries, name)
	delete(f.durable, name)
}

// Restore makes a file what another one is, of another Files (Copy makes one): as when it
// is copied over it. It is made if it is not there.
func (f *Files) Restore(name string, from *Files, source string) {
	from.mu.Lock()
	content := from.at(source).crash(Everything)
	from.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.entries[name]
	if n == nil {
		n = newNode()
		n.name = name
		f.entries[name], f.durable[name] = n, n
	}
	f.taken += content.room.bytes() - n.room.bytes()
	n.pages, n.unsynced, n.uncertain, n.room = content.pages, content.unsynced, content.uncertain, content.room
	n.size, n.durableSize = content.size, content.size
}

// overwrite is write, durable.
func (n *node) overwrite(p []byte, off int64) {
	n.write(p, off)
	for number := off / pageBytes; number <= (off+int64(len(p))-1)/pageBytes; number++ {
		n.pages[number].old = [pageSectors][]sector{}
		delete(n.unsynced, number)
		delete(n.uncertain, number)
	}
	n.durableSize = n.size
}
