package flash_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"testing"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/flash"
	"github.com/stokerio/stoker/backend/flash/flashtest"
)

// edits are changes of a segment's bytes that a fuzzer chooses: an offset, how many, then
// they.
func edits(p []byte, do func(off int64, p []byte)) {
	for len(p) > 4 {
		off, n := int64(binary.LittleEndian.Uint32(p))&0x1FFFFF, min(len(p)-4, int(p[3]>>5)+1)
		do(off, p[4:4+n])
		p = p[4+n:]
	}
}

// Whatever is in the files of a device, opening it neither panics nor takes much memory; no
// chunk is served with other bytes than it had; and what is stored afterwards is there.
func FuzzOpen(f *testing.F) {
	const limit = 4 << 20
	files := flashtest.New()
	s, err := flash.Open(context.Background(), flash.Options{Devices: []flash.Device{tiny(files)}, ScrubBytesPerSecond: -1})
	if err != nil {
		f.Fatal(err)
	}
	var chunks []backend.Chunk
	for i, size := range []int{5, 4096, 9000, 30000} {
		if _, err := s.Put(context.Background(), bytesOf(uint64(i), size)); err != nil {
			f.Fatal(err)
		}
		c := filledOf(uint64(i), size)
		if err := s.Fill(context.Background(), c, bytesOf(uint64(i), size)); err != nil {
			f.Fatal(err)
		}
		chunks = append(chunks, putOf(uint64(i), size), c)
	}
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	const name = "segments/00000000.seg"
	const ledger = 1<<20 + 4*64<<10
	f.Add([]byte{}, uint32(limit))
	f.Add(append(binary.LittleEndian.AppendUint32(nil, 16), 1), uint32(limit))
	f.Add(append(binary.LittleEndian.AppendUint32(nil, ledger+48), 7), uint32(limit))
	f.Add(append(binary.LittleEndian.AppendUint32(nil, 1<<20), 7), uint32(1<<20+100))
	f.Fuzz(func(t *testing.T, change []byte, size uint32) {
		damaged := files.Copy()
		edits(change, func(off int64, p []byte) { damaged.Overwrite(name, p, off) })
		if int64(size) < limit {
			damaged.Truncate(name, int64(size))
		}
		s, err := flash.Open(t.Context(), flash.Options{Devices: []flash.Device{tiny(damaged)}, ScrubBytesPerSecond: -1})
		if err != nil {
			return
		}
		defer func() { _ = s.Close() }()
		for i, c := range chunks {
			p := make([]byte, c.Size)
			if err := s.ReadAt(t.Context(), c, p, 0); err == nil && !bytes.Equal(p, bytesOf(uint64(i/2), int(c.Size))) {
				t.Errorf("chunk %d has other bytes than were stored", i)
			}
		}
		for i := range uint64(4) {
			if _, err := s.Put(t.Context(), bytesOf(100+i, 7000)); err != nil {
				t.Errorf("put afterwards: %v", err)
			}
		}
		for i := range uint64(4) {
			p := make([]byte, 7000)
			if err := s.ReadAt(t.Context(), putOf(100+i, 7000), p, 0); err != nil || !bytes.Equal(p, bytesOf(100+i, 7000)) {
				t.Errorf("what was put afterwards: %v", err)
			}
		}
	})
}
