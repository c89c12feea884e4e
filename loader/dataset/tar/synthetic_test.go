package tar

import (
	"context"
	"fmt"
	"testing"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/loader/dataset/internal/dirstore"
)

// synthetic is a store of shards that are made as they are read: samples of an image
// of size bytes ("000000017.jpg") and one of 3 ("000000017.cls"), so that a shard may
// be larger than any disk.
type synthetic struct {
	dirstore.Store
	shards  int
	samples int // of each shard
	size    int64
}

// synthStride is the bytes of one sample.
func synthStride(size int64) int64 { return 2*blockBytes + padded(size) + padded(3) }

func (s *synthetic) bytes() int64 { return int64(s.samples)*synthStride(s.size) + 2*blockBytes }

func (s *synthetic) Objects(_ context.Context, visit func(backend.Object) error, _ func([]byte, string)) error {
	for i := range s.shards {
		if err := visit(backend.Object{Origin: "synthetic", Name: fmt.Appendf(nil, "shard-%06d.tar", i), Version: backend.Version{Size: s.bytes()}}); err != nil {
			return err
		}
	}
	return nil
}

// OpenObject implements backend.Opener.
func (s *synthetic) OpenObject(context.Context, *backend.Object) (backend.Reader, error) {
	return synthReader{s, new([blockBytes]byte)}, nil
}

// ReadAt implements backend.Store.
func (s *synthetic) ReadAt(_ context.Context, c backend.Chunk, p []byte, off int64) error {
	return synthReader{s, new([blockBytes]byte)}.ReadAt(p, c.Start+off)
}

type synthReader struct {
	s     *synthetic
	block *[blockBytes]byte
}

func (r synthReader) Close() error { return nil }

func (r synthReader) ReadAt(p []byte, off int64) error {
	clear(p)
	stride := synthStride(r.s.size)
	for number := off / stride; number < int64(r.s.samples); number++ {
		start := number * stride
		if start >= off+int64(len(p)) {
			break
		}
		r.header(p, start-off, number, "jpg", r.s.size)
		r.header(p, start-off+blockBytes+padded(r.s.size), number, "cls", 3)
	}
	return nil
}

// header puts a header into p at that place, as far as it is in it.
func (r synthReader) header(p []byte, at, number int64, suffix string, size int64) {
	if at >= int64(len(p)) || at <= -blockBytes {
		return
	}
	b := r.block[:]
	clear(b)
	digits(b[:9], number, 10)
	b[9] = '.'
	copy(b[10:], suffix)
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	digits(b[124:135], size, 8)
	copy(b[136:], "00000000000\x00        0")
	copy(b[257:], "ustar\x0000")
	total := int64(0)
	for _, c := range b {
		total += int64(c)
	}
	digits(b[148:154], total, 8)
	b[154] = 0
	if at < 0 {
		copy(p, b[-at:])
		return
	}
	copy(p[at:], b)
}

// digits writes a number with leading zeros.
func digits(b []byte, n, base int64) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = '0' + byte(n%base)
		n /= base
	}
}

func TestAShardOfAMillionMembersIsIndexed(t *testing.T) {
	n := 500_000
	if raceEnabled {
		n = 30_000
	}
	store := &synthetic{shards: 1, samples: n, size: 100_000}
	s := scanShards(t, store, Options{})
	if s.info.Samples != int64(n) || s.info.Bytes != int64(n)*100_003 {
		t.Fatalf("%+v", s.info)
	}
	v := s.view(t, ViewOptions{Select: choose("image=jpg")})
	var p dataset.Plan
	for i := int64(0); i < v.Len(); i += 1 + v.Len()/1000 {
		if err := v.Plan(&p, []int64{i}); err != nil {
			t.Fatal(err)
		}
		if want := (dataset.Part{Offset: i*synthStride(100_000) + blockBytes, Length: 100_000}); p.Parts[0] != want {
			t.Fatalf("sample %d: %+v, want %+v", i, p.Parts[0], want)
		}
		if _, key, err := v.Key(i); err != nil || key != fmt.Sprintf("%09d", i) {
			t.Fatalf("sample %d: key %q (%v)", i, key, err)
		}
	}
	location := int64(0)
	for _, section := range []string{sectionGroups, sectionDirectory} {
		size, _ := s.index.SectionBytes(section)
		location += size
	}
	if location > 16*int64(n) {
		t.Errorf("%d bytes of location for %d samples", location, n)
	}
}
