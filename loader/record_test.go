package loader

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/prefetch"
	"github.com/stokerio/stoker/prefetch/trace"
	"github.com/stokerio/stoker/shm"
)

// tape takes a recording.
type tape struct {
	mu    sync.Mutex
	b     bytes.Buffer
	err   error         // if set, what writing returns
	lives chan struct{} // if set, told of each flush
}

func (p *tape) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return 0, p.err
	}
	return p.b.Write(b)
}

func (p *tape) Flush() error {
	if p.lives != nil {
		p.lives <- struct{}{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// recordedTape is what a tape holds.
type recordedTape struct {
	datasets []trace.Dataset
	sessions []trace.Session
	reads    []trace.Read
	lost     trace.Lost
}

func (p *tape) read(t interface {
	Helper()
	Fatal(...any)
}) recordedTape {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	r, err := trace.NewReader(bytes.NewReader(p.b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	var all recordedTape
	for {
		read, err := r.Next()
		if err == io.EOF {
			all.datasets, all.sessions, all.lost = r.Datasets(), r.Sessions(), r.Lost()
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		kept := *read
		kept.Accesses = slices.Clone(read.Accesses)
		all.reads = append(all.reads, kept)
	}
}

// startRecording records to a tape until stop.
func (n *testNode) startRecording(request api.TraceRequest) (*tape, func()) {
	n.t.Helper()
	r, err := n.Trace(request)
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(n.t.Context())
	to, done := &tape{}, make(chan error, 1)
	go func() { done <- r.Run(ctx, to) }()
	return to, func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Error(err)
		}
	}
}

// samplesOf are the samples of a session's reads, as they were read.
func (r *recordedTape) samplesOf(session int) (samples [][]int64, places [][2]int64) {
	for _, read := range r.reads {
		if read.Session != session {
			continue
		}
		var of []int64
		for _, a := range read.Accesses {
			if !a.Further {
				of = append(of, a.Sample)
			}
		}
		samples, places = append(samples, of), append(places, [2]int64{read.Epoch, read.Position})
	}
	return samples, places
}

func TestARecordingHoldsWhatSessionsRead(t *testing.T) {
	n := startNode(t, testOptions(t))
	sizes := func(i int) int { return 100 * i } // the first is empty
	dir, _ := writeFiles(t, 10, sizes)
	byPath := []int{0, 3, 6, 9, 1, 4, 7, 2, 5, 8}
	info := n.add("pets", dir)
	to, stop := n.startRecording(api.TraceRequest{})
	requests := []shm.Open{openRequest("pets"), openRequest("pets")}
	requests[0].Order, requests[0].Seed, requests[0].JobID = "global", 7, "resnet"
	requests[1].BatchSize = 3
	var want [2][]batch
	for i, request := range requests {
		c := n.openSession(request)
		for ends := 0; ends < 2; {
			if b := c.next(); b.Kind == shm.KindEndOfEpoch {
				ends++
			} else {
				want[i] = append(want[i], b)
			}
		}
		_ = c.Close()
	}
	stop()
	got := to.read(t)
	if len(got.datasets) != 1 || got.datasets[0] != (trace.Dataset{Name: "pets", IndexID: info.IndexID, Samples: 10, Chunks: 10, Bytes: info.Bytes}) {
		t.Errorf("datasets %+v", got.datasets)
	}
	wantSessions := []trace.Session{
		{Job: "resnet", BatchSize: 4, Order: "global, seed 7", WorldSize: 1}, {BatchSize: 3, Order: "sequential", WorldSize: 1},
	}
	if !slices.Equal(got.sessions, wantSessions) || got.lost != (trace.Lost{}) {
		t.Errorf("sessions %+v, lost %+v", got.sessions, got.lost)
	}
	for i := range want {
		samples, places := got.samplesOf(i)
		if len(samples) < len(want[i]) { // what was read ahead is there as well
			t.Fatalf("session %d: %d reads are recorded, %d batches came", i, len(samples), len(want[i]))
		}
		for j, b := range want[i] {
			if !slices.Equal(samples[j], b.index) || places[j] != [2]int64{int64(b.Epoch), int64(b.Position)} {
				t.Errorf("session %d: read %d is %v at %v, batch %v at %d of epoch %d", i, j, samples[j], places[j], b.index, b.Position, b.Epoch)
			}
		}
	}
	for _, read := range got.reads {
		for _, a := range read.Accesses {
			if a.Bytes != int64(sizes(byPath[a.Chunk])) || a.Offset != 0 || a.Chunk != a.Sample {
				t.Errorf("%+v", a)
			}
		}
	}
}

func TestARecordingIsOfWhatWasAskedFor(t *testing.T) {
	n := startNode(t, testOptions(t))
	for _, name := range []string{"cats", "dogs"} {
		dir, _ := writeFiles(t, 4, func(int) int { return 10 })
		n.add(name, dir)
	}
	first := n.openSession(openRequest("dogs"))
	toDogs, stopDogs := n.startRecording(api.TraceRequest{Datasets: []string{"dogs"}})
	toFirst, stopFirst := n.startRecording(api.TraceRequest{Sessions: []string{first.opened.Session}})
	for _, c := range []*client{n.openSession(openRequest("cats")), n.openSession(openRequest("dogs")), first} {
		for range 2 * 16 { // more than a ring holds, so that some were made after the recordings began
			c.next()
		}
	}
	stopDogs()
	stopFirst()
	if got := toDogs.read(t); len(got.sessions) != 2 || len(got.datasets) != 1 || got.datasets[0].Name != "dogs" {
		t.Errorf("%+v of %+v", got.sessions, got.datasets)
	}
	if got := toFirst.read(t); len(got.sessions) != 1 || len(got.reads) == 0 {
		t.Errorf("%+v, %d reads", got.sessions, len(got.reads))
	}
}

func TestRecordingsAreBounded(t *testing.T) {
	n := startNode(t, testOptions(t))
	var stops []func()
	for range recordingsMax {
		_, stop := n.startRecording(api.TraceRequest{})
		stops = append(stops, stop)
	}
	wantCode := func(request api.TraceRequest, code api.Code) {
		t.Helper()
		var problem *api.Error
		if _, err := n.Trace(request); !errors.As(err, &problem) || problem.Code != code {
			t.Errorf("%+v: %v, want %s", request, err, code)
		}
	}
	wantCode(api.TraceRequest{}, api.CodeLimit)
	wantCode(api.TraceRequest{Datasets: []string{"none"}}, api.CodeNotFound)
	wantCode(api.TraceRequest{Sessions: []string{"s-9"}}, api.CodeNotFound)
	stops[0]()
	_, stops[0] = n.startRecording(api.TraceRequest{})
	if got := n.Stats().Traces.Recordings; got != recordingsMax {
		t.Errorf("%d recordings are under way", got)
	}
	for _, stop := range stops {
		stop()
	}
	if n.recordings.active.Load() != nil {
		t.Error("batches are still looked at")
	}
}

func TestARecordingOfWhichNothingComesSaysThatItLives(t *testing.T) {
	n := startNode(t, testOptions(t))
	r, err := n.Trace(api.TraceRequest{})
	if err != nil {
		t.Fatal(err)
	}
	gone, done := errors.New("the client is gone"), make(chan error, 1)
	to := &tape{lives: make(chan struct{})}
	go func() { done <- r.Run(t.Context(), to) }()
	bytesAt := func() int {
		<-to.lives
		to.mu.Lock()
		defer to.mu.Unlock()
		return to.b.Len()
	}
	if first, second := bytesAt(), bytesAt(); first == 0 || second <= first {
		t.Errorf("%d bytes, then %d", first, second)
	}
	to.mu.Lock()
	to.err = gone
	to.mu.Unlock()
	for {
		select {
		case <-to.lives:
		case err := <-done:
			if !errors.Is(err, gone) {
				t.Error(err)
			}
			return
		}
	}
}

// synthetic is a recording of a session that exists in numbers only, with a filler.
func synthetic(n *Node) (*recording, *session, *filler) {
	r := &recording{node: n, wake: make(chan struct{}, 1), room: 1000}
	r.mu.known = map[int64]struct{}{1: {}}
	object := &backend.Object{Version: backend.Version{Size: 1 << 40}}
	f := &filler{source: &source{columns: make([]dataset.Column, 1)}, plan: dataset.Plan{Objects: []backend.Object{*object}}}
	return r, &session{number: 1, node: n}, f
}

// pretend has the filler read so many samples of ten bytes.
func (f *filler) pretend(samples int) {
	f.samples, f.plan.Parts, f.reads = f.samples[:0], f.plan.Parts[:0], f.reads[:0]
	for i := range samples {
		f.samples = append(f.samples, int64(i))
		f.plan.Parts = append(f.plan.Parts, dataset.Part{Offset: int64(i) * 10, Length: 10})
		f.reads = append(f.reads, backend.Read{Chunk: backend.Chunk{Object: &f.plan.Objects[0]}, Offset: int64(i) * 10, P: make([]byte, 10)})
	}
}

// Whatever finds no room is counted, and nothing else is left out; a queue that is empty
// takes any batch.
func TestWhatFindsNoRoomIsCounted(t *testing.T) {
	n := &Node{clock: shm.NewClock()}
	rapid.Check(t, func(t *rapid.T) {
		r, s, f := synthetic(n)
		to := &tape{}
		w, err := trace.NewWriter(to, trace.Header{})
		if err != nil {
			t.Fatal(err)
		}
		_, errDataset := w.Dataset(trace.Dataset{})
		_, errSession := w.Session(trace.Session{})
		if err := errors.Join(errDataset, errSession); err != nil {
			t.Fatal(err)
		}
		p := &recorder{recording: r, out: to, trace: w, sessions: map[int64]recordedAs{1: {0, &recordedDataset{}}}}
		reads, samples := int64(0), int64(0)
		for range rapid.IntRange(1, 12).Draw(t, "batches") {
			f.pretend(rapid.SampledFrom([]int{1, 30, 200, 1000}).Draw(t, "samples"))
			waiting := r.mu.pieces
			r.add(s, &job{epoch: 1}, f, 0)
			reads, samples = reads+1, samples+int64(len(f.samples))
			if taken := r.mu.pieces > waiting; taken != (waiting == 0 || waiting+2*len(f.samples) <= r.room) {
				t.Fatalf("a batch of %d beside %d: taken is %v", len(f.samples), waiting, taken)
			}
			if rapid.IntRange(0, 3).Draw(t, "drain") == 0 {
				if err := p.drain(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := p.finish(); err != nil {
			t.Fatal(err)
		}
		got := to.read(t)
		for i := range got.reads {
			samples -= got.reads[i].Samples()
		}
		if samples != got.lost.Samples || reads < got.lost.Reads || r.mu.pieces != 0 {
			t.Fatalf("%d samples are missing, %+v are lost; %d pieces wait", samples, got.lost, r.mu.pieces)
		}
	})
}

func TestRecordingAllocatesNothingInSteadyState(t *testing.T) {
	r, s, f := synthetic(&Node{clock: shm.NewClock()})
	w, err := trace.NewWriter(io.Discard, trace.Header{})
	if err != nil {
		t.Fatal(err)
	}
	_, errDataset := w.Dataset(trace.Dataset{})
	_, errSession := w.Session(trace.Session{})
	p := &recorder{recording: r, trace: w, sessions: map[int64]recordedAs{1: {0, &recordedDataset{}}}}
	f.pretend(256)
	j := &job{}
	once := func() {
		r.add(s, j, f, 0)
		if failed := p.drain(); failed != nil {
			err = failed
		}
	}
	once()
	once()
	if allocations := testing.AllocsPerRun(200, once); allocations > 0 || errors.Join(err, errDataset, errSession) != nil {
		t.Errorf("a batch allocates %v times: %v", allocations, err)
	}
}

// BenchmarkRecording is what a batch of 256 samples costs its session, and what the
// recorder has with it.
func BenchmarkRecording(b *testing.B) {
	n := &Node{clock: shm.NewClock()}
	r, s, f := synthetic(n)
	w, err := trace.NewWriter(io.Discard, trace.Header{})
	_, errDataset := w.Dataset(trace.Dataset{Samples: 1 << 20, Chunks: 1 << 20})
	_, errSession := w.Session(trace.Session{})
	if err := errors.Join(err, errDataset, errSession); err != nil {
		b.Fatal(err)
	}
	p := &recorder{recording: r, trace: w, sessions: map[int64]recordedAs{1: {0, &recordedDataset{}}}}
	f.pretend(256)
	none, entry := &job{}, &shm.Entry{}
	b.Run("off", func(b *testing.B) {
		for b.Loop() {
			s.record(none, f, entry)
		}
	})
	b.Run("session", func(b *testing.B) {
		for b.Loop() {
			r.add(s, none, f, 0)
			b.StopTimer()
			err = errors.Join(err, p.drain())
			b.StartTimer()
		}
	})
	b.Run("both", func(b *testing.B) {
		for b.Loop() {
			r.add(s, none, f, 0)
			err = errors.Join(err, p.drain())
		}
	})
	if err != nil {
		b.Fatal(err)
	}
}

// The accesses of a sample cover what was read of it, byte by byte, each within a chunk.
func TestAccessesCoverWhatWasRead(t *testing.T) {
	const chunk = backend.MaxChunkBytes
	rapid.Check(t, func(t *rapid.T) {
		d := &recordedDataset{}
		if rapid.Bool().Draw(t, "large") {
			d.firsts = []int64{0, 3, 6, 9}
		}
		b := &recordedBatch{}
		rows := rapid.IntRange(1, 5).Draw(t, "rows")
		for row := range rows {
			b.samples = append(b.samples, int64(100+row))
		}
		type place struct{ sample, object, offset int64 }
		want, waits := map[place]bool{}, map[int64]time.Duration{}
		for range rapid.IntRange(1, 2).Draw(t, "columns") {
			for row := range rows {
				object, bytes := rapid.Int64Range(0, 2).Draw(t, "object"), rapid.Int32Range(0, 40).Draw(t, "bytes")
				offset := rapid.OneOf(rapid.Int64Range(0, 60), rapid.Int64Range(chunk, chunk+20000), rapid.Int64Range(2*chunk-40, 2*chunk-40)).Draw(t, "offset")
				wait := rapid.SampledFrom([]int64{0, 5000}).Draw(t, "wait")
				if bytes == 0 {
					wait = 0
				}
				b.pieces = append(b.pieces, recordedPiece{row: int32(row), bytes: bytes, object: object, offset: offset, waitNs: wait})
				waits[b.samples[row]] = max(waits[b.samples[row]], time.Duration(wait))
				for i := range int64(bytes) {
					want[place{b.samples[row], object, offset + i}] = true
				}
			}
		}
		accesses := b.accesses(d, nil)
		samples := []int64{}
		covered, waited := map[place]bool{}, map[int64]time.Duration{}
		for _, a := range accesses {
			if !a.Further {
				samples = append(samples, a.Sample)
			}
			object, offset := a.Chunk, a.Offset
			if d.firsts != nil {
				number, _ := slices.BinarySearch(d.firsts, a.Chunk+1)
				object = int64(number) - 1
				offset += (a.Chunk - d.firsts[object]) * chunk
				if a.Offset+a.Bytes > chunk {
					t.Fatalf("%+v goes beyond its chunk", a)
				}
			}
			for i := range a.Bytes {
				covered[place{a.Sample, object, offset + i}] = true
			}
			waited[a.Sample] = max(waited[a.Sample], a.Waited)
			if (a.Source == prefetch.Origin) != (a.Waited > 0) {
				t.Fatalf("%+v", a)
			}
		}
		if !slices.Equal(samples, b.samples) {
			t.Fatalf("samples %v, want %v", samples, b.samples)
		}
		for p := range want {
			if !covered[p] {
				t.Fatalf("%+v is in no access: %+v", p, accesses)
			}
		}
		if extra := len(covered) - len(want); extra > nearGap*len(accesses) {
			t.Fatalf("%d bytes more than were read", extra)
		}
		for sample, wait := range waits {
			if waited[sample] != wait {
				t.Fatalf("sample %d was waited for %v, recorded are %v", sample, wait, waited[sample])
			}
		}
	})
}
