package tar

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/stokerio/stoker/backend"
)

func TestWhatIsNoArchiveIsRefusedWithItsPlace(t *testing.T) {
	for name, c := range map[string]struct {
		archive []byte
		code    FaultCode
		offset  int64
	}{
		"nothing":            {nil, FaultEmpty, 0},
		"text":               {[]byte(strings.Repeat("text ", 200)), FaultNoTar, 0},
		"a few bytes":        {[]byte("short"), FaultTruncated, 0},
		"garbage":            {append(new(archive).file("a.x", "1").data("garbage").b, archiveOf("b.x")...), FaultGarbage, 1024},
		"negative size":      {new(archive).file("a.x", "1").header(header{name: "b.x", kind: '0', size: "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"}, 0).end(), FaultHeader, 1024},
		"overflowing size":   {new(archive).header(header{name: "b.x", kind: '0', size: "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff"}, 0).end(), FaultHeader, 0},
		"absurd size":        {new(archive).header(header{name: "b.x", kind: '0', size: "777777777777"}, 0).end(), FaultTruncated, 0},
		"absurd PAX size":    {new(archive).pax('x', "size=9223372036854775807").file("a.x", "1").end(), FaultHeader, 0},
		"huge long name":     {new(archive).header(header{kind: 'L', size: "00077777777"}, 0).end(), FaultHeader, 0},
		"long name, no more": {new(archive).member(header{kind: 'L'}, "name\x00").end(), FaultHeader, 1024},
		"PAX header, no end": {new(archive).pax('x', "path=a.x").b, FaultTruncated, 1024},
		"global, no more":    {new(archive).file("a.x", "1").pax('g', "comment=x").end(), FaultHeader, 2048},
		"cut in a PAX":       {new(archive).pax('x', "path=a.x").b[:600], FaultTruncated, 0},
		"too long a name":    {new(archive).pax('x', "path="+strings.Repeat("n", 4097)).file("a.x", "1").end(), FaultName, 0},
		"duplicate":          {archiveOf("a.x", "b", "a.X"), FaultDuplicate, 2048},
		"duplicate of many":  {archiveOf(many("a.", 40, "a.p7")...), FaultDuplicate, 40 * 1024},
		"duplicate no more":  {archiveOf("a.x", "a.y", "__m__", "a.y"), FaultDuplicate, 3072},
		"reserved":           {archiveOf("a.x", "b.__key__"), FaultReserved, 1024},
		"too many parts":     {endlessSample(MaxParts + 1), FaultParts, MaxParts * 512},
		"cut in the map":     {oldSparse(200_000, ascending(30)...)[:700], FaultTruncated, 0},
		"no size":            {new(archive).header(header{name: "a.x", kind: 'S', change: func(h []byte) { copy(h[sparseSizeField:], "none") }}, 0).end(), FaultHeader, 0},
		"map of nothing":     {new(archive).pax('x', "GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=9").file("a.x", "").end(), FaultHeader, 1024},
		"endless map":        {new(archive).pax('x', "GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=9").file("a.x", "999999999\n1\n").end(), FaultHeader, 0},
	} {
		out := read(c.archive)
		if t.Run(name, func(t *testing.T) { wantCorrupt(t, out, c.code) }); out.fault.Offset != c.offset && name != "map of nothing" {
			t.Errorf("%s: at byte %d, want %d: %v", name, out.fault.Offset, c.offset, out.err)
		}
	}
}

func ascending(n int) []int {
	var runs []int
	for i := range n {
		runs = append(runs, i*1000+1, 7)
	}
	return runs
}

func TestErrorsNameTheArchiveAndStay(t *testing.T) {
	w := NewWalker(&memory{b: archiveOf("a.x", "a.x")})
	w.Object = "shard-7.tar"
	s := NewSamples(w)
	_, first := s.Next()
	_, second := s.Next()
	_, third := w.Next()
	if first == nil || second != first || third != first || !strings.Contains(first.Error(), `"shard-7.tar"`) {
		t.Errorf("%v, then %v, then %v", first, second, third)
	}
	if !strings.Contains(read(endlessSample(MaxParts+1)).err.Error(), "first dot") {
		t.Error("too many parts: the rule of the first dot is not explained")
	}
}

func TestASampleIsReturnedThoughTheNextOneIsRefused(t *testing.T) {
	for _, names := range [][]string{{"a.x", "b.__key__"}, {"a.x", "b.x", "b.x"}} {
		out := read(archiveOf(names...))
		if out.err == nil || len(out.samples) != 1 || out.samples[0].key != "a" {
			t.Errorf("%v: %v, %v", names, out.samples, out.err)
		}
	}
}

func TestEndsOfArchivesAreTold(t *testing.T) {
	zeros := func(n int) []byte { return make([]byte, n) }
	one := func() []byte { return bytes.Clone(new(archive).file("a.x", "1").b) }
	for name, c := range map[string]struct {
		archive []byte
		want    End
	}{
		"two blocks":       {append(one(), zeros(1024)...), End{EndBlocks, 1024, -1}},
		"a record":         {append(one(), zeros(10240)...), End{EndBlocks, 1024, -1}},
		"one block":        {append(one(), zeros(512)...), End{EndBlock, 1024, -1}},
		"one and a half":   {append(one(), zeros(700)...), End{EndBlock, 1024, -1}},
		"no block":         {one(), End{EndNone, 1024, -1}},
		"half a block":     {append(one(), zeros(100)...), End{EndNone, 1024, -1}},
		"another archive":  {append(append(one(), zeros(1024)...), archiveOf("b.x")...), End{EndBlocks, 1024, 2048}},
		"one, then data":   {append(append(one(), zeros(512)...), archiveOf("b.x")...), End{EndBlock, 1024, 1536}},
		"data later":       {append(append(one(), zeros(300_000)...), 'x'), End{EndBlocks, 1024, 301_024}},
		"nothing but ends": {zeros(1024), End{EndBlocks, 0, -1}},
	} {
		for _, out := range []outcome{read(c.archive), drain(NewStreamWalker(bytes.NewReader(c.archive)), c.archive)} {
			if out.err != nil || out.end != c.want {
				t.Errorf("%s: %v, %+v, want %+v", name, out.err, out.end, c.want)
			}
			if want := min(1, int(c.want.Offset)); len(out.samples) != want {
				t.Errorf("%s: %d samples, want %d", name, len(out.samples), want)
			}
		}
	}
}

func TestSamplesAreRunsOfEqualKeys(t *testing.T) {
	out := read(archiveOf("a.x", "a.y.Z", "__m__", "b.x", "noname", "b.y", "a.x", "d/.h", "d/.i", "e.x"))
	var got []string
	for _, s := range out.samples {
		names := s.key + ":"
		for _, p := range s.parts {
			names += " " + p.suffix
		}
		got = append(got, names)
	}
	want := "[a: x y.z b: x y a: x d/: h i e: x]"
	if out.err != nil || fmt.Sprint(got) != want {
		t.Errorf("%v, %v, want %v", got, out.err, want)
	}
}

// generated is an archive and where its members' headers are.
func generated(t *rapid.T) (b []byte, borders []int) {
	var a archive
	for i := range rapid.IntRange(1, 6).Draw(t, "members") {
		borders = append(borders, len(a.b))
		name := fmt.Sprintf("%03d.%s", i/2, []string{"x", "y"}[i%2])
		data := strings.Repeat("d", rapid.SampledFrom([]int{0, 1, 511, 512, 513, 1500, 3000}).Draw(t, "bytes"))
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 0:
			a.pax('x', "path=long/"+name).file("short", data)
		case 1:
			a.member(header{kind: 'L'}, "long/"+name+"\x00").file("short", data)
		case 2:
			a.b = append(a.b, bytes.TrimSuffix(oldSparse(100_000, ascending(rapid.IntRange(1, 30).Draw(t, "runs"))...), new(archive).file("b.x", "3").end())...)
			copy(a.b[borders[i]:], name)
			sum(a.b[borders[i] : borders[i]+blockBytes])
		default:
			a.file(name, data)
		}
	}
	return a.b, append(borders, len(a.b))
}

func TestATruncatedArchiveIsRefusedOrEndsBehindAMember(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, borders := generated(t)
		whole := read(b)
		if whole.err != nil {
			t.Fatalf("whole: %v", whole.err)
		}
		cuts := make([]int, 0, len(b)/blockBytes+9)
		for cut := 0; cut < len(b); cut += blockBytes {
			cuts = append(cuts, cut)
		}
		for range 8 {
			cuts = append(cuts, rapid.IntRange(0, len(b)-1).Draw(t, "cut"))
		}
		for _, cut := range cuts {
			border := 0
			for _, at := range borders {
				if at <= cut {
					border = at
				}
			}
			for _, out := range []outcome{read(b[:cut]), drain(NewStreamWalker(bytes.NewReader(b[:cut])), b)} {
				if border > 0 && cut < border+blockBytes && isZero(b[border:cut]) {
					if out.err != nil || out.end != (End{EndNone, int64(border), -1}) {
						t.Fatalf("cut behind a member at %d: %v, %+v", cut, out.err, out.end)
					}
					checkPrefix(t, whole.samples, out.samples)
					continue
				}
				if backend.KindOf(out.err) != backend.Corrupt || out.fault.Offset > int64(cut) || out.fault.Offset < int64(border) {
					t.Fatalf("cut at %d of %d, within the member at %d: %v", cut, len(b), border, out.err)
				}
			}
		}
	})
}

// checkPrefix fails unless got are the first of all samples, the last of them perhaps
// with fewer parts.
func checkPrefix(t *rapid.T, all, got []found) {
	if len(got) > len(all) {
		t.Fatalf("%d samples of %d", len(got), len(all))
	}
	for i, s := range got {
		want := all[i]
		if i == len(got)-1 && len(s.parts) <= len(want.parts) {
			want.parts = want.parts[:len(s.parts)]
		}
		if !same([]found{want}, []found{s}) {
			t.Fatalf("sample %d is %v, want %v", i, s, all[i])
		}
	}
}

// failing is a source that fails from some offset on.
type failing struct {
	memory
	from int64
}

var errDisk = errors.New("disk on fire")

func (f *failing) ReadAt(p []byte, off int64) error {
	if off+int64(len(p)) > f.from {
		return errDisk
	}
	return f.memory.ReadAt(p, off)
}

func TestErrorsOfTheSourceArePassedOn(t *testing.T) {
	b := new(archive).file("a.x", strings.Repeat("d", 40_000)).file("b.x", "2").end()
	for _, from := range []int64{0, 41_000} {
		_, err := drainErr(NewWalker(&failing{memory{b: b}, from}))
		if !errors.Is(err, errDisk) || backend.KindOf(err) == backend.Corrupt {
			t.Errorf("from %d: %v", from, err)
		}
	}
	_, err := drainErr(NewStreamWalker(io.MultiReader(bytes.NewReader(b[:41_000]), brokenReader{})))
	if !errors.Is(err, errDisk) {
		t.Errorf("stream: %v", err)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errDisk }

func drainErr(w *Walker) (n int, err error) {
	for {
		if _, err = w.Next(); err != nil {
			return n, err
		}
		n++
	}
}

func TestRangesOfAnArchiveAddUpToIt(t *testing.T) {
	for name, b := range golden(t) {
		var headers []int64
		w := NewWalker(&memory{b: b})
		for m, err := w.Next(); err == nil; m, err = w.Next() {
			headers = append(headers, m.Header)
			if m.End() != w.Offset() {
				t.Errorf("%s: member ends at %d, next header at %d", name, m.End(), w.Offset())
			}
		}
		end := w.Offset()
		for i, from := range headers {
			to := end
			if i+1 < len(headers) {
				to = headers[i+1]
			}
			w.Reset(&memory{b: b})
			w.WalkRange(from, to)
			if n, err := drainErr(w); n != 1 || err != io.EOF {
				t.Errorf("%s: member at %d: %d members, %v", name, from, n, err)
			}
		}
	}
	w := NewWalker(&memory{b: archiveOf("a.x", "b.x")})
	w.WalkRange(0, 3*blockBytes)
	if n, err := drainErr(w); n != 2 || !errors.Is(err, ErrRange) {
		t.Errorf("a range that ends within a member: %d members, %v", n, err)
	}
}

func TestWalkingAllocatesNothingInSteadyState(t *testing.T) {
	var a archive
	for i := range 500 {
		name := fmt.Sprintf("dir/%06d", i)
		a.file(name+".jpg", strings.Repeat("j", 3000)).pax('x', "path="+name+".long.Json").file("x", "{}").file(name+".cls", "7")
	}
	b := a.end()
	src := &memory{b: b}
	w := NewWalker(src)
	s := NewSamples(w)
	allocs := testing.AllocsPerRun(5, func() {
		src.last = 0
		w.Reset(src)
		s.Reset()
		n := 0
		for {
			if _, err := s.Next(); err != nil {
				break
			}
			n++
		}
		if n != 500 {
			t.Fatalf("%d samples", n)
		}
	})
	if allocs > 1 {
		t.Errorf("%v allocations for 1500 members, want none", allocs)
	}
}

func TestMembersThatAreNoFilesArePassedOver(t *testing.T) {
	b := new(archive).member(header{name: "d.x/", kind: 0}, "").member(header{name: "l.x", kind: '2', size: "00000000777"}, "").
		member(header{name: "q.x", kind: 'Q'}, "unknown").file("a.x", "1").member(header{name: "V", kind: 'V'}, "").end()
	w := NewWalker(&memory{b: b})
	var got []string
	for m, err := w.Next(); err == nil; m, err = w.Next() {
		got = append(got, fmt.Sprintf("%s %v %d", m.Name, m.Regular, m.Size))
	}
	if want := "[d.x/ false 0 l.x false 0 q.x false 7 a.x true 1 V false 0]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %v", got, want)
	}
	if out := read(b); len(out.samples) != 1 {
		t.Errorf("%v, want one sample", out.samples)
	}
}

// many returns n names that begin alike, and then another.
func many(prefix string, n int, last string) []string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("%sp%d", prefix, i))
	}
	return append(names, last)
}
