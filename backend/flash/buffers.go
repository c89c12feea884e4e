package flash

import "sync"

// buffers lend memory off the heap: for blocks that are read to be checked, and for what
// cannot be read straight to where it is wanted. It begins at a multiple of a page.
type buffers struct {
	mu    sync.Mutex
	sizes [len(bufferBytes)][]buffer // that nobody has
}

// buffer is lent memory. Who takes one gives it back, once.
type buffer struct {
	p    []byte
	free func()
}

// Sizes of buffers, and how many of each are kept while nobody needs them.
var (
	bufferBytes = [...]int{128 << 10, 1 << 20}
	buffersKept = [...]int{256, 16}
)

// take lends at least n bytes, which are not zero; n is a block's size at most.
func (b *buffers) take(n int) buffer {
	size := bufferSize(n)
	b.mu.Lock()
	defer b.mu.Unlock()
	if last := len(b.sizes[size]) - 1; last >= 0 {
		taken := b.sizes[size][last]
		b.sizes[size] = b.sizes[size][:last]
		return taken
	}
	p, free := offHeap[byte](bufferBytes[size])
	return buffer{p, free}
}

func bufferSize(n int) (size int) {
	for bufferBytes[size] < n {
		size++
	}
	return size
}

// give takes a buffer back.
func (b *buffers) give(given buffer) {
	size := bufferSize(len(given.p))
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.sizes[size]) == buffersKept[size] {
		given.free()
		return
	}
	b.sizes[size] = append(b.sizes[size], given)
}

// close frees those that nobody has.
func (b *buffers) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for size, all := range b.sizes {
		for _, kept := range all {
			kept.free()
		}
		b.sizes[size] = nil
	}
}
