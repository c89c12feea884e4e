//go:build cgo && linux

package cufile

import (
	"fmt"
	"testing"
)

// The difference between the two is what Go adds to a read: a call into C, two locks
// and the checks. The stand-in's own time is in both.
func BenchmarkReadAt(b *testing.B) {
	v := newReading(b, 1<<20, 1<<20)
	for _, bytes := range []int{Alignment, 1 << 20} {
		b.Run(fmt.Sprintf("bytes=%d/by=go", bytes), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.file.ReadAt(v.slab, 0, bytes, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("bytes=%d/by=c", bytes), func(b *testing.B) {
			n := v.driver.table.readLoop(v.device.handle.context, v.file.handle, v.slab.segment.address, uint64(bytes), 0, int64(b.N))
			if want := int64(b.N) * int64(bytes); n != want {
				b.Fatalf("read %d bytes, want %d", n, want)
			}
		})
	}
}

func BenchmarkReadAtParallel(b *testing.B) {
	v := newReading(b, 1<<20, 1<<20)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := v.file.ReadAt(v.slab, 0, Alignment, 0); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkExportImport(b *testing.B) {
	v := newReading(b, 64<<20, 1<<20)
	for b.Loop() {
		e, err := v.slab.Export()
		if err != nil {
			b.Fatal(err)
		}
		s, err := v.device.Import(e, false)
		if err != nil {
			b.Fatal(err)
		}
		v.close(s, e)
	}
}
