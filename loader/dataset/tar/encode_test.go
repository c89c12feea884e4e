package tar

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/stokerio/stoker/backend"
)

// encoded is a sample as the encoder takes it and a blob gives it back.
type encoded struct {
	key   string
	parts []located
}

func (b *blob) all(t testing.TB) []encoded {
	t.Helper()
	var all []encoded
	err := b.each(func(key []byte, parts []located) error {
		all = append(all, encoded{string(key), append([]located(nil), parts...)})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// randomSamples draws samples that could be those of an archive.
func randomSamples(rt *rapid.T) []encoded {
	var all []encoded
	at, expandedAt := int64(0), int64(0)
	for range rapid.IntRange(0, 70).Draw(rt, "samples") {
		s := encoded{key: string(rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(rt, "key"))}
		for i := range rapid.IntRange(1, 5).Draw(rt, "parts") {
			p := located{suffix: fmt.Appendf(nil, "part%d", i), size: rapid.SampledFrom([]int64{0, 1, 511, 512, 513, 100_000, 1 << 33}).Draw(rt, "size")}
			if p.expanded = rapid.IntRange(0, 9).Draw(rt, "expanded") == 0; p.expanded {
				p.offset = expandedAt
				expandedAt += p.size
			} else {
				p.offset = at + rapid.SampledFrom([]int64{512, 1536, 512 * 200}).Draw(rt, "gap")
				at = p.offset + padded(p.size)
			}
			s.parts = append(s.parts, p)
		}
		all = append(all, s)
	}
	return all
}

func encodeAll(t testing.TB, samples []encoded) *blob {
	t.Helper()
	e := newEncoder()
	for _, s := range samples {
		if err := e.add([]byte(s.key), s.parts); err != nil {
			t.Fatal(err)
		}
	}
	b, err := e.finish()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWhatIsEncodedOfAShardComesBack(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		samples := randomSamples(rt)
		b := encodeAll(t, samples)
		if b.damaged() {
			rt.Fatal("its own checksums are wrong")
		}
		b.about.expanded.Tag = "some"
		about, err := decodeDescription(b.about.encode(nil))
		if err != nil {
			rt.Fatal(err)
		}
		if fmt.Sprint(*about) != fmt.Sprint(b.about) {
			rt.Fatalf("description %+v, want %+v", *about, b.about)
		}
		if got := b.all(t); fmt.Sprint(got) != fmt.Sprint(samples) {
			rt.Fatalf("%v\nwant %v", got, samples)
		}
	})
}

func TestASampleTakesFewBytes(t *testing.T) {
	for name, c := range map[string]struct {
		first, second int64 // bytes between a part and the one before
		most          float64
	}{"without PAX headers": {512, 512, 8}, "with PAX headers": {1536, 1536, 8}, "video": {512, 512, 9}} {
		e, at, n := newEncoder(), int64(0), 10_000
		size := int64(100_000)
		if name == "video" {
			size = 5 << 20
		}
		for i := range n {
			image := located{suffix: []byte("jpg"), offset: at + c.first, size: size + int64(i%1000)}
			at = image.offset + padded(image.size)
			class := located{suffix: []byte("cls"), offset: at + c.second, size: 3}
			at = class.offset + padded(class.size)
			if err := e.add(fmt.Appendf(nil, "%09d", i), []located{image, class}); err != nil {
				t.Fatal(err)
			}
		}
		b, err := e.finish()
		if err != nil {
			t.Fatal(err)
		}
		location := float64(len(b.groups)+len(b.directory)) / float64(n)
		if t.Logf("%s: %.2f bytes of location, %.2f of keys a sample", name, location, float64(len(b.keys))/float64(n)); location > c.most {
			t.Errorf("%s: %.2f bytes of location a sample, want at most %.1f", name, location, c.most)
		}
	}
}

func TestTheEncoderRefusesWhatNoArchiveHolds(t *testing.T) {
	for name, parts := range map[string][]located{
		"odd offset":       {{suffix: []byte("a"), offset: 513}},
		"overlap":          {{suffix: []byte("a"), offset: 512, size: 600}, {suffix: []byte("b"), offset: 1024}},
		"negative size":    {{suffix: []byte("a"), offset: 512, size: -1}},
		"negative offset":  {{suffix: []byte("a"), offset: -512}},
		"huge":             {{suffix: []byte("a"), offset: 512, size: 1<<63 - 1}},
		"expanded overlap": {{suffix: []byte("a"), size: 10, expanded: true}, {suffix: []byte("b"), offset: 9, expanded: true}},
	} {
		if err := newEncoder().add([]byte("k"), parts); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if err := newEncoder().add([]byte("k"), make([]located, MaxParts+1)); !errors.Is(err, errKinds) {
		t.Errorf("too many parts: %v", err)
	}
}

func TestHostileDescriptionsAreRefused(t *testing.T) {
	good := encodeAll(t, []encoded{{"k", []located{{suffix: []byte("a"), offset: 512, size: 5}}}}).about
	for name, change := range map[string]func(d *description){
		"more samples":     func(d *description) { d.samples++ },
		"fewer samples":    func(d *description) { d.shapes[0].samples = 2 },
		"more bytes":       func(d *description) { d.bytes++ },
		"larger largest":   func(d *description) { d.largest = 6 },
		"no parts":         func(d *description) { d.shapes[0].parts, d.shapes[0].bytes = nil, nil },
		"unknown suffix":   func(d *description) { d.shapes[0].parts = []shapePart{{suffix: 1}} },
		"nothing expanded": func(d *description) { d.shapes[0].parts = []shapePart{{expanded: true}} },
		"sums that wrap":   func(d *description) { d.shapes[0].samples = -1 },
	} {
		d := good
		d.shapes = []shape{{parts: good.shapes[0].parts, samples: 1, bytes: []int64{5}}}
		change(&d)
		if _, err := decodeDescription(d.encode(nil)); !errors.Is(err, errIndex) {
			t.Errorf("%s: %v", name, err)
		}
	}
	whole := good.encode(nil)
	for n := range whole {
		if _, err := decodeDescription(whole[:n]); err == nil {
			t.Errorf("cut to %d of %d bytes: accepted", n, len(whole))
		}
	}
	if _, err := decodeDescription(append(whole, 0)); err == nil {
		t.Error("a byte more is accepted")
	}
}

func FuzzDescription(f *testing.F) {
	b := encodeAll(f, []encoded{{"k", []located{{suffix: []byte("a"), offset: 512, size: 5}, {suffix: []byte("b.c"), offset: 1536, size: 1 << 40}}}})
	b.about.skipped = []skip{{SkippedDuplicate, 3}}
	b.about.source = backend.Version{Inode: 7, Size: 1 << 41, ModifiedNs: -3, Tag: "etag"}
	f.Add(b.about.encode(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := decodeDescription(b)
		if err != nil {
			return
		}
		again, err := decodeDescription(d.encode(nil)) // numbers may have had longer forms
		if err != nil || fmt.Sprint(again) != fmt.Sprint(d) {
			t.Fatalf("%+v (%v), want %+v", again, err, d)
		}
	})
}

func FuzzGroup(f *testing.F) {
	b := encodeAll(f, []encoded{{"k", []located{{suffix: []byte("a"), offset: 512, size: 5}}}, {"kk", []located{{suffix: []byte("a"), offset: 1536, size: 1 << 40}}}})
	f.Add(b.groups[groupCRCBytes:], b.keys[groupCRCBytes:])
	f.Add(binary.AppendUvarint([]byte{0}, 1<<63), []byte{0, 200, 1})
	shapes := []*columns{{expanded: []bool{false, true}, anyExpanded: true}, {expanded: []bool{false}}, {expanded: []bool{true}, anyExpanded: true}}
	f.Fuzz(func(t *testing.T, group, keys []byte) {
		g := groupReader{b: group}
		for {
			c := g.shape(shapes)
			if c == nil {
				break
			}
			quick := g
			whole := true
			for _, expanded := range c.expanded {
				offset, size, ok := g.part(expanded)
				if !ok {
					whole = false
					break
				}
				if offset < 0 || size < 0 || offset > maxArchiveBytes || size > maxArchiveBytes {
					t.Fatalf("part at %d of %d bytes", offset, size)
				}
			}
			if skipped := quick.skip(c); skipped != whole || skipped && (quick.i != g.i || quick.at != g.at) {
				t.Fatalf("skip says %v of %+v, part %v of %+v", skipped, quick, whole, g)
			}
			if !whole {
				break
			}
		}
		k := keyReader{fields: fields{b: keys}}
		for range groupSamples {
			if key, err := k.next(); err != nil {
				break
			} else if len(key) > len(keys)*2 {
				t.Fatalf("key of %d bytes out of %d", len(key), len(keys))
			}
		}
	})
}

func TestKeysThatShareTheirBeginningAreShort(t *testing.T) {
	var samples []encoded
	for i := range 64 {
		samples = append(samples, encoded{strings.Repeat("directory/", 20) + fmt.Sprintf("%08d", i), []located{{suffix: []byte("a"), offset: int64(i)*1024 + 512}}})
	}
	b := encodeAll(t, samples)
	if perSample := len(b.keys) / 64; perSample > 20 {
		t.Errorf("%d bytes a key", perSample)
	}
	if got := b.all(t); fmt.Sprint(got) != fmt.Sprint(samples) {
		t.Error("other samples")
	}
	if !bytes.Contains(b.keys, []byte("directory/")) {
		t.Error("keys are not there")
	}
}
