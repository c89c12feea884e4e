package flash

import (
	"testing"
)

func TestBuffersAreKeptUpToABound(t *testing.T) {
	var b buffers
	for size, bytes := range bufferBytes {
		var lent []buffer
		for range buffersKept[size] + 5 {
			lent = append(lent, b.take(bytes))
		}
		for _, one := range lent {
			if len(one.p) != bytes || address(one.p)%pageBytes != 0 {
				t.Errorf("%d bytes at %x", len(one.p), address(one.p))
			}
			b.give(one)
		}
		if n := len(b.sizes[size]); n != buffersKept[size] {
			t.Errorf("%d buffers of %d bytes are kept, want %d", n, bytes, buffersKept[size])
		}
	}
	b.close()
	if len(b.sizes[0])+len(b.sizes[1]) != 0 {
		t.Error("buffers are kept after the end")
	}
}
