package trace

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"github.com/stokerio/stoker/prefetch"
)

var updateTrace = flag.Bool("update-trace", false, "write the golden trace anew")

// recorded is all that a trace holds.
type recorded struct {
	header   Header
	datasets []Dataset
	sessions []Session
	reads    []Read
	lost     map[int]Lost // what a mark says was lost before a read, by the number of the read
}

// write writes a trace; flush says after which reads a block ends.
func (r *recorded) write(t interface{ Fatal(...any) }, flush func(read int) bool) []byte {
	var out bytes.Buffer
	w, err := NewWriter(&out, r.header)
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range r.datasets {
		if number, err := w.Dataset(d); err != nil || number != i {
			t.Fatal(number, err)
		}
	}
	for i, s := range r.sessions {
		if number, err := w.Session(s); err != nil || number != i {
			t.Fatal(number, err)
		}
	}
	for i := range r.reads {
		if lost, marked := r.lost[i]; marked {
			if err := w.Mark(r.reads[i].At, lost); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Read(&r.reads[i]); err != nil {
			t.Fatal(err)
		}
		if flush(i) {
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// readAll reads until the error, which is io.EOF for a whole trace.
func readAll(in io.Reader) (*recorded, error) {
	r, err := NewReader(in)
	if err != nil {
		return &recorded{}, err
	}
	all, lost := &recorded{header: r.Header(), lost: map[int]Lost{}}, Lost{}
	for {
		read, err := r.Next()
		all.datasets, all.sessions = slices.Clone(r.Datasets()), slices.Clone(r.Sessions())
		if err != nil {
			if _, again := r.Next(); again != err {
				return all, fmt.Errorf("after %w there is %w", err, again)
			}
			return all, err
		}
		if now := r.Lost(); now != lost {
			all.lost[len(all.reads)] = Lost{now.Reads - lost.Reads, now.Samples - lost.Samples}
			lost = now
		}
		kept := *read
		kept.Accesses = slices.Clone(read.Accesses)
		all.reads = append(all.reads, kept)
	}
}

// smallTrace uses every kind of record and every flag.
func smallTrace() *recorded {
	ms := time.Millisecond
	return &recorded{
		lost:   map[int]Lost{2: {Reads: 3, Samples: 200}},
		header: Header{Start: time.Date(2026, 11, 22, 17, 0, 0, 123_000, time.UTC), Node: "node-7"},
		datasets: []Dataset{
			{Name: "pets", IndexID: "ab12cd", Samples: 1000, Chunks: 100, Bytes: 100 << 20},
			{Name: "stream", Bytes: 1 << 40},
		},
		sessions: []Session{
			{Job: "resnet", Dataset: 0, BatchSize: 2, Order: "global, seed 7", Rank: 1, WorldSize: 4},
			{Job: "tail", Dataset: 1, BatchSize: 1},
		},
		reads: []Read{
			{At: 5 * ms, Session: 0, Accesses: []Access{
				{Sample: 995, Chunk: 99, Offset: 4096, Bytes: 120_000, Source: prefetch.Origin, Waited: 40 * ms},
				{Sample: 12, Chunk: 1, Bytes: 120_000, Source: prefetch.Resident},
			}},
			{At: 6 * ms, Session: 1, Epoch: 3, Position: 700, Accesses: []Access{
				{Sample: 1 << 40, Chunk: 1 << 41, Offset: 1 << 50, Bytes: MaxBytes, Source: prefetch.Flash},
				{Sample: 1 << 40, Further: true, Chunk: 1<<41 + 1, Bytes: 17, Source: prefetch.Peer, Waited: time.Microsecond},
				{Sample: 1 << 40, Further: true, Chunk: 5, Bytes: 17, Source: prefetch.Peer},
			}},
			{At: 6 * ms, Session: 0, Position: 2, Accesses: []Access{
				{Sample: 13, Chunk: 0, Bytes: 0, Source: prefetch.Resident},
				{Sample: 14, Chunk: 1, Bytes: 0, Source: prefetch.Resident},
			}},
			{At: 9 * ms, Session: 0, Epoch: 1, Position: 0, Accesses: []Access{{Sample: 13, Chunk: 1, Bytes: 100, Source: prefetch.Origin}}},
		},
	}
}

func never(int) bool { return false }

func TestTracesOfTheFirstVersionAreRead(t *testing.T) {
	file, err := os.Open(filepath.Join("testdata", "version1.trace"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	want := smallTrace()
	want.lost = map[int]Lost{} // it could not say so
	if got, err := readAll(file); err != io.EOF || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestTheFormatIsGolden(t *testing.T) {
	path := filepath.Join("testdata", "small.trace")
	got := smallTrace().write(t, func(read int) bool { return read == 1 })
	if *updateTrace {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("what is written has changed: raise formatVersion, and keep reading the old one\ngot  %x\nwant %x", got, want)
	}
	read, err := readAll(bytes.NewReader(want))
	if err != io.EOF || !reflect.DeepEqual(read, smallTrace()) {
		t.Errorf("%+v, %v", read, err)
	}
}

// drawTrace draws a trace that a reader gives back just so.
func drawTrace(t *rapid.T) *recorded {
	number := rapid.Int64Range(0, MaxNumber-1)
	text := rapid.StringN(0, 20, 60)
	r := &recorded{lost: map[int]Lost{}, header: Header{Start: time.UnixMicro(rapid.Int64Range(-1<<50, 1<<60).Draw(t, "start")).UTC(), Node: text.Draw(t, "node")}}
	for range rapid.IntRange(1, 3).Draw(t, "datasets") {
		r.datasets = append(r.datasets, Dataset{Name: text.Draw(t, "name"), IndexID: text.Draw(t, "index"),
			Samples: rapid.OneOf(rapid.Int64Range(0, 50), number).Draw(t, "samples"),
			Chunks:  rapid.OneOf(rapid.Int64Range(0, 50), number).Draw(t, "chunks"), Bytes: number.Draw(t, "bytes")})
	}
	for range rapid.IntRange(1, 4).Draw(t, "sessions") {
		r.sessions = append(r.sessions, Session{Job: text.Draw(t, "job"), Dataset: rapid.IntRange(0, len(r.datasets)-1).Draw(t, "dataset"),
			BatchSize: number.Draw(t, "batch"), Order: text.Draw(t, "order"), Rank: number.Draw(t, "rank"), WorldSize: number.Draw(t, "world")})
	}
	at := int64(0)
	for range rapid.IntRange(0, 20).Draw(t, "reads") {
		at += rapid.Int64Range(0, 1<<40).Draw(t, "later")
		read := Read{At: time.Duration(at) * time.Microsecond, Session: rapid.IntRange(0, len(r.sessions)-1).Draw(t, "session"),
			Epoch: rapid.OneOf(rapid.Int64Range(0, 2), number).Draw(t, "epoch"), Position: rapid.Int64Range(0, MaxNumber-100).Draw(t, "position")}
		d := &r.datasets[r.sessions[read.Session].Dataset]
		for i := range rapid.IntRange(1, 10).Draw(t, "accesses") {
			a := drawAccess(t, d)
			if a.Further = i > 0 && rapid.Bool().Draw(t, "further"); a.Further {
				a.Sample = read.Accesses[i-1].Sample
			}
			read.Accesses = append(read.Accesses, a)
		}
		if rapid.IntRange(0, 3).Draw(t, "mark") == 0 {
			r.lost[len(r.reads)] = Lost{rapid.Int64Range(1, 1<<40).Draw(t, "lost reads"), rapid.Int64Range(0, 1<<40).Draw(t, "lost samples")}
		}
		r.reads = append(r.reads, read)
	}
	return r
}

func drawAccess(t *rapid.T, d *Dataset) Access {
	below := func(size int64, name string) int64 {
		if size == 0 {
			size = MaxNumber
		}
		return rapid.Int64Range(0, size-1).Draw(t, name)
	}
	return Access{Sample: below(d.Samples, "sample"), Chunk: below(d.Chunks, "chunk"),
		Offset: rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(0, MaxNumber)).Draw(t, "offset"),
		Bytes:  rapid.OneOf(rapid.Just(int64(4096)), rapid.Int64Range(0, MaxBytes)).Draw(t, "bytes"),
		Source: prefetch.Source(rapid.IntRange(0, int(prefetch.Sources)-1).Draw(t, "source")),
		Waited: time.Duration(rapid.Int64Range(0, 1<<40).Draw(t, "waited")) * time.Microsecond}
}

func TestAReaderGivesBackWhatWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawTrace(t)
		b := want.write(t, func(int) bool { return rapid.Bool().Draw(t, "flush") })
		in := io.Reader(bytes.NewReader(b))
		if rapid.Bool().Draw(t, "slow") {
			in = iotest.OneByteReader(in)
		}
		if got, err := readAll(in); err != io.EOF || !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %+v\nwant %+v\n%v", got, want, err)
		}
	})
}

// A trace that is cut anywhere gives all reads of the blocks that are whole, and says
// that it is torn.
func TestACutTraceGivesAllBeforeTheCut(t *testing.T) {
	want := smallTrace()
	b := want.write(t, func(int) bool { return true })
	var whole []int // where blocks end, with as many reads before
	for end := headerBytes; end < len(b); {
		end += blockHeader + int(binary.LittleEndian.Uint32(b[end+4:]))
		whole = append(whole, end)
	}
	for cut := range len(b) {
		got, err := readAll(bytes.NewReader(b[:cut]))
		var problem *Error
		if !errors.As(err, &problem) {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if cut == 0 && problem.Problem == NotOne {
			continue
		}
		blocks := 0
		for blocks < len(whole) && whole[blocks] <= cut {
			blocks++
		}
		if problem.Problem != Torn || len(got.reads) != blocks || blocks > 0 && !reflect.DeepEqual(got.reads, want.reads[:blocks]) {
			t.Fatalf("cut at %d, after %d blocks: %d reads, %v", cut, blocks, len(got.reads), err)
		}
		if blocks > 0 && problem.Offset != int64(whole[blocks-1]) {
			t.Fatalf("cut at %d: it is torn at %d, want %d", cut, problem.Offset, whole[blocks-1])
		}
		zeros := append(slices.Clone(b[:cut]), make([]byte, 5000)...)
		if got, err := readAll(bytes.NewReader(zeros)); cut >= headerBytes && len(got.reads) < blocks {
			t.Fatalf("cut at %d, zeros after it: %d reads, %v", cut, len(got.reads), err)
		} else if cut > headerBytes && (!errors.As(err, &problem) || problem.Problem != Torn) {
			t.Fatalf("cut at %d, zeros after it: %v", cut, err)
		}
	}
}

func TestNoChangedByteGoesUnnoticed(t *testing.T) {
	want := smallTrace()
	b := want.write(t, func(int) bool { return true })
	for i := range b {
		for _, bit := range []byte{1, 0x80} {
			changed := slices.Clone(b)
			changed[i] ^= bit
			got, err := readAll(bytes.NewReader(changed))
			var problem *Error
			if !errors.As(err, &problem) || len(got.reads) > 0 && !reflect.DeepEqual(got.reads, want.reads[:len(got.reads)]) {
				t.Fatalf("byte %d ^ %#x: %+v, %v", i, bit, got, err)
			}
		}
	}
}

// sealed makes a trace of records, however wrong they are.
func sealed(blocks ...[]byte) []byte {
	b := binary.LittleEndian.AppendUint32(slices.Clone(magic[:]), formatVersion)
	for _, records := range blocks {
		head := binary.LittleEndian.AppendUint32(nil, uint32(len(records)))
		sum := crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, records)
		b = append(append(binary.LittleEndian.AppendUint32(b, sum), head...), records...)
	}
	return b
}

func TestHostileRecordsAreRefused(t *testing.T) {
	start := []byte{recordStart, 0, 0}
	known := slices.Concat(start, []byte{recordDataset, 0, 0, 10, 10, 10, recordSession, 0, 0, 1, 0, 0, 1})
	big := binary.AppendUvarint(nil, MaxNumber+1)
	for name, test := range map[string]struct {
		trace []byte
		want  string
	}{
		"no start":              {sealed([]byte{recordDataset}), "does not begin with its start"},
		"half a start":          {sealed([]byte{recordStart, 0, 9}), "start is not whole"},
		"a second start":        {sealed(start, start), "kind 1"},
		"unknown record":        {sealed(slices.Concat(start, []byte{9})), "kind 9"},
		"an empty block":        {append(sealed(start), 1, 2, 3, 4, 0, 0, 0, 0, 1), "a block has 0 bytes"},
		"a huge block":          {append(sealed(start), 1, 2, 3, 4, 255, 255, 255, 255, 1), "a block has 4294967295 bytes"},
		"a long text":           {sealed(slices.Concat(start, []byte{recordDataset, 200})), "not whole"},
		"a huge dataset":        {sealed(slices.Concat(start, []byte{recordDataset, 0, 0}, big, []byte{0, 0})), "not whole"},
		"a session of nothing":  {sealed(slices.Concat(start, []byte{recordSession, 0, 0, 1, 0, 0, 1})), "and there are 0"},
		"an unknown session":    {sealed(slices.Concat(known, []byte{recordRead, 0, 1, 0, 0, 1, 0})), "session 1 reads"},
		"no accesses":           {sealed(slices.Concat(known, []byte{recordRead, 0, 0, 0, 0, 0, 0})), "0 accesses"},
		"too many accesses":     {sealed(slices.Concat(known, []byte{recordRead, 0, 0, 0, 0, 9, 0, 0})), "9 accesses in 2 bytes"},
		"a negative epoch":      {sealed(slices.Concat(known, []byte{recordRead, 0, 0, 1, 0, 1, 0, 0})), "of epoch -1"},
		"a negative position":   {sealed(slices.Concat(known, []byte{recordRead, 0, 0, 0, 1, 1, 0, 0})), "position -1"},
		"a sample beyond":       {sealed(slices.Concat(known, []byte{recordRead, 0, 0, 0, 0, 1, 0, 10})), "sample 10"},
		"a chunk beyond":        {sealed(slices.Concat(known, []byte{recordRead, 0, 0, 0, 0, 1, accessChunk, 0, 20})), "chunk 10"},
		"a chunk before":        {sealed(slices.Concat(known, []byte{recordRead, 0, 0, 0, 0, 1, accessChunk, 0, 1})), "chunk -1"},
		"a piece of nothing":    {sealed(slices.Concat(known, []byte{recordRead, 0, 0, 0, 0, 1, accessFurther})), "further piece"},
		"an access cut short":   {sealed(slices.Concat(known, []byte{recordRead, 0, 0, 0, 0, 1, accessBytes, 3})), "not whole"},
		"too many bytes":        {sealed(slices.Concat(known, []byte{recordRead, 0, 0, 0, 0, 1, accessBytes, 0}, binary.AppendUvarint(nil, 1<<32))), "bytes of chunk 0"},
		"a false end":           {sealed(slices.Concat(known, []byte{recordEnd, 1, 1})), "end counts 1 reads"},
		"more after the end":    {sealed(slices.Concat(start, []byte{recordEnd, 0, 0, 9})), "follows its end"},
		"half a mark":           {sealed(slices.Concat(start, []byte{recordMark, 0, 0})), "not whole"},
		"too much is lost":      {sealed(slices.Concat(start, []byte{recordMark, 0}, big, []byte{0})), "not whole"},
		"a block after the end": {sealed(slices.Concat(start, []byte{recordEnd, 0, 0}), start), "follows its end"},
	} {
		_, err := readAll(bytes.NewReader(test.trace))
		var problem *Error
		if !errors.As(err, &problem) || problem.Problem != Corrupt || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
	far := slices.Clone(known)
	for range 200 { // of 2^56 us each
		far = append(binary.AppendUvarint(append(far, recordRead), MaxNumber), 0, 0, 0, 1, 0, 0)
	}
	if _, err := readAll(bytes.NewReader(sealed(far))); err == nil || !strings.Contains(err.Error(), "later than time goes") {
		t.Error(err)
	}
}

func TestWhatIsNoTraceIsSaid(t *testing.T) {
	other := sealed()
	other[8] = 7
	for want, b := range map[string][]byte{"none": []byte("PNG, perhaps"), "version": other, "torn": sealed()[:11]} {
		_, err := NewReader(bytes.NewReader(b))
		var problem *Error
		if !errors.As(err, &problem) || string(problem.Problem) != want {
			t.Errorf("%q: %v, want %s", b, err, want)
		}
	}
	broken := errors.New("the device is gone")
	b := smallTrace().write(t, func(int) bool { return true })
	for _, n := range []int{0, 5, headerBytes, headerBytes + 3, headerBytes + blockHeader, 100} {
		if _, err := readAll(io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(broken))); !errors.Is(err, broken) {
			t.Errorf("an error after %d bytes: %v", n, err)
		}
	}
	if _, err := readAll(io.MultiReader(bytes.NewReader(b), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("an error at the end: %v", err)
	}
}

func TestAWriterRefusesWhatAReaderWould(t *testing.T) {
	var out bytes.Buffer
	long := strings.Repeat("x", MaxText+1)
	if _, err := NewWriter(&out, Header{Node: long}); err == nil || out.Len() != 0 {
		t.Error("a long node is taken")
	}
	w, err := NewWriter(&out, Header{Start: time.Unix(0, 0).UTC()})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []Dataset{{Name: long}, {IndexID: long}, {Samples: -1}, {Chunks: MaxNumber + 1}} {
		if _, err := w.Dataset(d); err == nil {
			t.Errorf("%+v is taken", d)
		}
	}
	if _, err := w.Dataset(Dataset{Samples: 10, Chunks: 5}); err != nil {
		t.Fatal(err)
	}
	for _, s := range []Session{{Job: long}, {Order: long}, {Dataset: 1}, {Dataset: -1}, {BatchSize: -1}, {WorldSize: MaxNumber + 1}} {
		if _, err := w.Session(s); err == nil {
			t.Errorf("%+v is taken", s)
		}
	}
	if _, err := w.Session(Session{}); err != nil {
		t.Fatal(err)
	}
	for _, lost := range []Lost{{Reads: -1}, {Samples: MaxNumber + 1}} {
		if err := w.Mark(0, lost); err == nil {
			t.Errorf("%+v is taken", lost)
		}
	}
	one := []Access{{}}
	for _, r := range []Read{
		{Session: 1, Accesses: one}, {Session: -1, Accesses: one}, {Epoch: -1, Accesses: one}, {Position: -1, Accesses: one},
		{Position: MaxNumber, Accesses: one},
		{Accesses: []Access{{Sample: 10}}}, {Accesses: []Access{{Sample: -1}}}, {Accesses: []Access{{Chunk: 5}}},
		{Accesses: []Access{{Offset: -1}}}, {Accesses: []Access{{Bytes: MaxBytes + 1}}}, {Accesses: []Access{{Bytes: -1}}},
		{Accesses: []Access{{Source: prefetch.Sources}}}, {Accesses: []Access{{Further: true}}},
		{Accesses: []Access{{}, {Sample: 1, Further: true}}},
		{Accesses: slices.Concat(one, slices.Repeat([]Access{{Further: true}}, MaxAccesses))},
	} {
		if err := w.Read(&r); err == nil {
			t.Errorf("%+v is taken", r.Accesses[0])
		}
	}
	if err := errors.Join(w.Read(&Read{}), w.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	if all, err := readAll(&out); err != io.EOF || len(all.reads) != 0 || len(all.sessions) != 1 {
		t.Errorf("%+v, %v", all, err)
	}
	if err := w.Flush(); err == nil {
		t.Error("a closed trace is written to")
	}
}

func TestALargeReadIsDividedBetweenSamples(t *testing.T) {
	r := smallTrace()
	large := Read{Session: 0, Epoch: 2, Position: 5, At: time.Second}
	for i := range 2*MaxAccesses + 7 {
		large.Accesses = append(large.Accesses, Access{Sample: int64(i/3) % 1000, Chunk: int64(i) % 100, Further: i%3 > 0})
	}
	r.reads = []Read{large}
	got, err := readAll(bytes.NewReader(r.write(t, never)))
	if err != io.EOF || len(got.reads) != 3 {
		t.Fatalf("%d reads, %v", len(got.reads), err)
	}
	var all []Access
	position := large.Position
	for i := range got.reads {
		if read := &got.reads[i]; read.Accesses[0].Further || read.Position != position || read.Epoch != 2 || read.At != time.Second {
			t.Errorf("part %d begins at %d, must at %d: %+v", i, read.Position, position, read.Accesses[0])
		}
		position += got.reads[i].Samples()
		all = append(all, got.reads[i].Accesses...)
	}
	if !reflect.DeepEqual(all, large.Accesses) {
		t.Error("the accesses are others")
	}
}

func TestMarksKeepTimeAndCountWhatIsLost(t *testing.T) {
	var out bytes.Buffer
	w, err := NewWriter(&out, Header{})
	if err != nil {
		t.Fatal(err)
	}
	_, errDataset := w.Dataset(Dataset{})
	_, errSession := w.Session(Session{})
	err = errors.Join(errDataset, errSession, w.Mark(time.Hour, Lost{}), w.Mark(time.Second, Lost{2, 30}),
		w.Read(&Read{At: time.Hour + time.Second, Accesses: []Access{{}}}), w.Mark(2*time.Hour, Lost{1, MaxNumber}), w.Close())
	if err != nil || w.Lost() != (Lost{3, MaxNumber}) || w.Reads() != 1 || w.Accesses() != 1 {
		t.Fatal(w.Lost(), err)
	}
	r, err := NewReader(&out)
	if err != nil {
		t.Fatal(err)
	}
	if read, err := r.Next(); err != nil || read.At != time.Hour+time.Second || r.Lost() != (Lost{2, 30}) {
		t.Errorf("%+v after %+v, %v", read, r.Lost(), err)
	}
	if _, err := r.Next(); err != io.EOF || r.Lost() != (Lost{3, MaxNumber}) {
		t.Errorf("%+v is lost, %v", r.Lost(), err)
	}
}

func TestTimeThatGoesBackStandsStill(t *testing.T) {
	r := smallTrace()
	for i, at := range []time.Duration{time.Second, -time.Hour, time.Second - 1, 1<<63 - 1} {
		r.reads[i].At = at
	}
	got, err := readAll(bytes.NewReader(r.write(t, never)))
	if err != io.EOF {
		t.Fatal(err)
	}
	for i, want := range []time.Duration{time.Second, time.Second, time.Second, time.Duration(maxMicros) * time.Microsecond} {
		if got.reads[i].At != want {
			t.Errorf("read %d is at %v, want %v", i, got.reads[i].At, want)
		}
	}
}

// failing takes so many writes.
type failing int

func (f *failing) Write(b []byte) (int, error) {
	if *f--; *f < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(b), nil
}

func TestAFailedWriteIsReturnedFromThenOn(t *testing.T) {
	none := failing(0)
	if _, err := NewWriter(&none, Header{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
	one := failing(1)
	w, err := NewWriter(&one, Header{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Dataset(Dataset{})
	if err != nil || !errors.Is(w.Flush(), io.ErrClosedPipe) || !errors.Is(w.Read(&Read{}), io.ErrClosedPipe) || !errors.Is(w.Close(), io.ErrClosedPipe) {
		t.Error("the error is lost")
	}
}

// shuffledTrace writes an epoch of a million single-chunk samples in batches of 256.
func shuffledTrace(t testing.TB, out io.Writer, size func(*rand.Rand) int64) {
	const chunks = 1_000_000
	w, err := NewWriter(out, Header{})
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	_, err = w.Dataset(Dataset{Samples: chunks, Chunks: chunks})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Session(Session{BatchSize: 256}); err != nil {
		t.Fatal(err)
	}
	read := Read{}
	for i, sample := range random.Perm(chunks) {
		read.Accesses = append(read.Accesses, Access{Sample: int64(sample), Chunk: int64(sample), Bytes: size(random), Source: prefetch.Origin})
		if len(read.Accesses) == 256 || i == chunks-1 {
			if err := w.Read(&read); err != nil {
				t.Fatal(err)
			}
			read.At += 100 * time.Millisecond
			read.Position += int64(len(read.Accesses))
			read.Accesses = read.Accesses[:0]
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAnAccessTakesFewBytes(t *testing.T) {
	for name, test := range map[string]struct {
		size func(*rand.Rand) int64
		most float64
	}{
		"equal chunks":             {func(*rand.Rand) int64 { return 8 << 20 }, 4.1},
		"sizes of 50,000..150,000": {func(r *rand.Rand) int64 { return 50_000 + r.Int64N(100_000) }, 7.1},
	} {
		counted := &countingWriter{}
		shuffledTrace(t, counted, test.size)
		perAccess := float64(counted.bytes) / 1e6
		t.Logf("%s: %.3f bytes an access", name, perAccess)
		if perAccess > test.most {
			t.Errorf("%s: %.3f bytes an access, at most %.1f", name, perAccess, test.most)
		}
	}
}

type countingWriter struct{ bytes int64 }

func (c *countingWriter) Write(b []byte) (int, error) { c.bytes += int64(len(b)); return len(b), nil }

func TestWritingAndReadingAllocateNothing(t *testing.T) {
	w, err := NewWriter(io.Discard, Header{})
	if err != nil {
		t.Fatal(err)
	}
	_, errDataset := w.Dataset(Dataset{})
	_, errSession := w.Session(Session{})
	if err := errors.Join(errDataset, errSession); err != nil {
		t.Fatal(err)
	}
	read := Read{Accesses: slices.Repeat([]Access{{Sample: 1 << 40, Bytes: 4096, Offset: 17}, {Sample: 3}}, 64)}
	if n := testing.AllocsPerRun(2000, func() { err = errors.Join(err, w.Read(&read)) }); n > 0 || err != nil {
		t.Errorf("a read allocates %v times: %v", n, err)
	}
	var out bytes.Buffer
	shuffledTrace(t, &out, func(*rand.Rand) int64 { return 8 << 20 })
	r, err := NewReader(&out)
	if err != nil {
		t.Fatal(err)
	}
	next := func() { _, err = r.Next() }
	next()
	if n := testing.AllocsPerRun(3000, next); n > 0 || err != nil {
		t.Errorf("the next read allocates %v times: %v", n, err)
	}
}

func FuzzReader(f *testing.F) {
	whole := smallTrace().write(f, func(read int) bool { return read == 1 })
	f.Add(whole)
	f.Add(whole[:len(whole)-3])
	f.Add(sealed([]byte{recordStart, 0, 0, recordEnd, 0, 0}))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, in := range [][]byte{b, sealed(b), sealed(append([]byte{recordStart, 0, 0, recordDataset, 0, 0, 10, 10, 10, recordSession, 0, 0, 1, 0, 0, 1}, b...))} {
			first, err := readAll(bytes.NewReader(in))
			if err == nil {
				t.Fatal("it reads on for ever")
			}
			var problem *Error
			if err != io.EOF && !errors.As(err, &problem) {
				t.Fatal(err)
			}
			again, err := readAll(bytes.NewReader(first.write(t, never)))
			if err != io.EOF || len(again.reads) != len(first.reads) || len(first.reads) > 0 && !reflect.DeepEqual(first.reads, again.reads) {
				t.Fatalf("what was read is read otherwise once written: %v", err)
			}
		}
	})
}

func BenchmarkWriter(b *testing.B) {
	for b.Loop() {
		shuffledTrace(b, io.Discard, func(*rand.Rand) int64 { return 8 << 20 })
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1e6, "ns/access")
}

func BenchmarkReader(b *testing.B) {
	var out bytes.Buffer
	shuffledTrace(b, &out, func(*rand.Rand) int64 { return 8 << 20 })
	for b.Loop() {
		if _, err := Summarize(bytes.NewReader(out.Bytes()), nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1e6, "ns/access")
}
