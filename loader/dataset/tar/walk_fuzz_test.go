package tar

import (
	"bytes"
	"testing"

	"github.com/stokerio/stoker/backend"
)

// fuzzSeedBytes bounds the seeds: the fuzzer's time to make an input smaller grows with
// the square of its length.
const fuzzSeedBytes = 4 << 10

// Whatever the bytes: parts lie within the archive, one behind another, a stream gives
// the same samples, and what is refused is refused with a full error.
func FuzzSamples(f *testing.F) {
	for _, b := range seedArchives(f) {
		if len(b) <= fuzzSeedBytes {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		checkParts(t, b)
		file := read(b)
		stream := drain(NewStreamWalker(bytes.NewReader(b)), b)
		if (file.err == nil) != (stream.err == nil) || file.err == nil && (!same(file.samples, stream.samples) || file.end != stream.end) {
			t.Fatalf("file: %v, %v, %+v\nstream: %v, %v, %+v", file.samples, file.err, file.end, stream.samples, stream.err, stream.end)
		}
		if file.err != nil {
			wantCorrupt(t, file, file.fault.Code)
		}
	})
}

// checkParts reads all samples and fails unless what they say of their bytes is
// possible.
func checkParts(t *testing.T, b []byte) {
	w := NewWalker(&memory{b: b})
	s := NewSamples(w)
	last := int64(0)
	for {
		sample, err := s.Next()
		if err != nil {
			return
		}
		if len(sample.Parts) == 0 || sample.Header != sample.Parts[0].Header {
			t.Fatalf("sample %+v", sample)
		}
		for _, p := range sample.Parts {
			if p.Header < last || p.Data < p.Header+blockBytes || p.Size < 0 || p.Stored < 0 || p.Stored > int64(len(b))-p.Data {
				t.Fatalf("part %+v after %d of %d", p, last, len(b))
			}
			last = p.Data + p.Stored
			checkRuns(t, p)
		}
	}
}

func checkRuns(t *testing.T, p Part) {
	if p.Sparse == nil {
		if p.Size != p.Stored {
			t.Fatalf("part %+v", p)
		}
		return
	}
	offset, data := int64(0), p.Data
	for _, r := range p.Sparse {
		if r.Offset < offset || r.Length < 0 || r.Offset > p.Size || r.Length > p.Size-r.Offset || r.Data != data {
			t.Fatalf("run %+v of %+v", r, p)
		}
		offset, data = r.Offset+r.Length, data+r.Length
	}
	if data != p.Data+p.Stored || len(p.Sparse) == 0 {
		t.Fatalf("runs of %+v", p)
	}
}

func FuzzSplitName(f *testing.F) {
	for _, name := range []string{"a/b.c.d", "dir/.hidden", "a.b/.hidden", "a\nb/c.d", "", "."} {
		f.Add([]byte(name))
	}
	f.Fuzz(func(t *testing.T, name []byte) {
		key, suffix, ok := SplitName(name)
		want := splitPattern.FindSubmatch(name)
		if ok != (want != nil) || ok && (!bytes.Equal(key, want[1]) || !bytes.Equal(suffix, appendSuffix(nil, want[2]))) {
			t.Fatalf("%q: %q, %q, %v, want %q", name, key, suffix, ok, want)
		}
	})
}

// A walk that begins anywhere, as one divided by a wrong index would, neither fails
// otherwise than with a fault nor runs on.
func FuzzWalkRange(f *testing.F) {
	for _, b := range seedArchives(f) {
		if len(b) <= fuzzSeedBytes {
			f.Add(b, uint16(1), uint16(4))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, from, to uint16) {
		w := NewWalker(&memory{b: b})
		w.WalkRange(int64(from)*blockBytes, int64(to)*blockBytes)
		if _, err := drainErr(w); err != nil && w.Fault().Code != "" && backend.KindOf(err) != backend.Corrupt {
			t.Fatal(err)
		}
	})
}
