package loader

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/prefetch"
	"github.com/stokerio/stoker/shm"
)

func TestFilesAreInThePageCacheBeforeTheyAreRead(t *testing.T) {
	c := newColdFiles(t, 200, 5000, func(o *Options) { o.Prefetch.WindowBytes = 40 * 5000 })
	client := c.openAhead(openRequest("files"))
	s := c.session()
	const first = 8 // batches: those of the ring, and a few while foresight learns
	for b := range 45 {
		next := 4*b + 16 // the first sample that is not in the ring
		eventually(t, "the next batch is brought", func() bool { return c.has(next, next+4) })
		if b == first {
			c.disk.mu.Lock()
			clear(c.disk.mu.waited)
			c.disk.mu.Unlock()
		}
		if got := client.next(); got.failure != nil || got.index[0] != int64(4*b) {
			t.Fatalf("batch %d: %+v", b, got)
		}
		eventually(t, "the ring is full again", func() bool { return s.counters.batches.Load() == int64(b)+5 })
	}
	if waits := c.disk.waits(); waits > 0 {
		t.Errorf("%d reads had to wait", waits)
	}
	eventually(t, "all that was brought is counted", func() bool {
		n := *s.ahead.shownOf().describe()
		return n.BroughtBytes > 100*5000 && n.Samples > 100 && n.OnTime > 80
	})
	if n := *s.ahead.shownOf().describe(); n.Failed != 0 {
		t.Errorf("counted %+v", n)
	}
}

func TestWhereAllIsInThePageCacheForesightSleeps(t *testing.T) {
	c := newColdFiles(t, 40, 5000, nil)
	client := c.openSession(openRequest("files"))
	s := c.session()
	batches := 0
	eventually(t, "foresight sleeps", func() bool {
		drain(t, client, 11) // an epoch
		batches += 10
		return s.ahead.asleep.Load()
	})
	before := *s.ahead.shownOf().describe()
	c.disk.mu.Lock()
	asked := c.disk.mu.asked
	c.disk.mu.Unlock()
	drain(t, client, 110)
	if after := *s.ahead.shownOf().describe(); after != before {
		t.Errorf("%+v became %+v while it slept", before, after)
	}
	c.disk.mu.Lock()
	defer c.disk.mu.Unlock()
	if c.disk.mu.asked != asked {
		t.Errorf("%d requests to read ahead", c.disk.mu.asked-asked)
	}
}

// TestForesightWakesWithTheFirstReadThatWaits empties the page cache under a session that
// slept.
func TestForesightWakesWithTheFirstReadThatWaits(t *testing.T) {
	c := newColdFiles(t, 400, 5000, nil)
	client := c.openSession(openRequest("files"))
	s := c.session()
	eventually(t, "foresight sleeps", func() bool {
		drain(t, client, 101)
		return s.ahead.asleep.Load()
	})
	for client.next().Kind != shm.KindEndOfEpoch { //nolint:revive // to the epoch's end
	}
	eventually(t, "the ring is full", func() bool {
		levels := s.ring.Levels()
		return levels.Ready == levels.Slots
	})
	c.disk.drop()
	drain(t, client, 20)
	eventually(t, "the batches after those of the ring are brought", func() bool { return c.has(4*20+16, 4*20+20) })
}

// aheadOf is a reader of its own for an open session, whose planner the test drives.
func aheadOf(t *testing.T, s *session) *sessionAhead {
	t.Helper()
	f := newForesight(PrefetchOptions{WindowBytes: 1 << 20, Workers: 32}, discardLogger())
	a := &sessionAhead{
		owner: f, job: "x", batch: int64(s.share.BatchSize), samples: s.source.view.Len(), foreseen: foreseen{view: s.source.view},
		news: sessionNews{future: newFuture(s.epochs, s.share, s.source.view.Len(), place{})},
	}
	stream, err := a.begin(f.driver.planner, 0)
	if err != nil {
		t.Fatal(err)
	}
	a.foreseen.stream = stream
	return a
}

// drivenAhead is a reader whose batches are of 4 samples, one each 10 ms, and whose
// fetches take 100 ms, as far as the planner is told.
type drivenAhead struct {
	*sessionAhead
	t        *testing.T
	now      prefetch.Time
	epoch    int64
	consumed int64
}

// read takes the next batch, of which so many samples were read from the disk. It makes
// the fetches that the planner wants then, and counts them.
func (d *drivenAhead) read(missing int64) (fetches int) {
	d.t.Helper()
	if d.consumed == d.samples {
		d.epoch, d.consumed = d.epoch+1, 0
	}
	d.now, d.consumed = d.now.Add(10*time.Millisecond), d.consumed+4
	d.at = place{d.epoch, d.consumed}
	if err := d.sessionAhead.read(&sessionNews{at: d.now, batches: 1, samples: 4, missing: missing}); err != nil {
		d.t.Fatal(err)
	}
	for {
		var f prefetch.Fetch
		ok, err := d.planner.Next(d.now, &f)
		if err != nil {
			d.t.Fatal(err)
		}
		if !ok {
			return fetches
		}
		fetches++
		d.planner.Done(d.now, f.ID, prefetch.Result{Source: prefetch.Origin, Took: 100 * time.Millisecond, Bytes: f.Bytes})
		d.quiet = 0 // as it is told by sessionAhead.done
	}
}

// TestAWindowThatThePageCacheLostBeginsAnew reads a batch from the disk that the planner
// takes for there, with the window behind it.
func TestAWindowThatThePageCacheLostBeginsAnew(t *testing.T) {
	c := newColdFiles(t, 400, 5000, nil)
	c.openAhead(openRequest("files"))
	d := drivenAhead{sessionAhead: aheadOf(t, c.session()), t: t}
	for range 40 {
		d.read(0)
	}
	window := int(metricsOf(t, d.sessionAhead).Depth)
	if window < 40 {
		t.Fatalf("a window of %d", window)
	}
	if n := d.read(1); n > window/2 {
		t.Errorf("%d fetches after a read of one sample from the disk, of a window of %d", n, window)
	}
	if n := d.read(4); n < window/4 { // it may be less deep than before
		t.Errorf("%d fetches after a batch was read from the disk that was taken for there; the window has %d", n, window)
	}
	again := 0
	for range window / 4 {
		again += d.read(4)
	}
	if again > 3*window {
		t.Errorf("%d fetches in the time of a window of %d, which may begin anew once meanwhile", again, window)
	}
}

// TestAWindowAsLargeAsItsDatasetBringsEachUse reads 20 files again and again with a window
// that reaches beyond an epoch.
func TestAWindowAsLargeAsItsDatasetBringsEachUse(t *testing.T) {
	c := newColdFiles(t, 20, 5000, nil)
	c.openAhead(openRequest("files"))
	d := drivenAhead{sessionAhead: aheadOf(t, c.session()), t: t}
	fetches := 0
	for range 100 {
		fetches += d.read(0)
	}
	if window := metricsOf(t, d.sessionAhead).Depth; window < 20 {
		t.Fatalf("a window of %d", window)
	}
	if fetches < 380 {
		t.Errorf("%d fetches for 400 samples", fetches)
	}
}

func metricsOf(t *testing.T, a *sessionAhead) prefetch.Metrics {
	t.Helper()
	m, ok := a.planner.Metrics(a.foreseen.stream)
	if !ok {
		t.Fatal("the stream is not known")
	}
	return m
}

// TestAllReadsThatWaitedAreToldOf has reads whose times say nothing of which are told.
func TestAllReadsThatWaitedAreToldOf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		waits := rapid.SliceOfN(rapid.Int64Range(0, 3), 0, 2*tookKept).Draw(t, "waits")
		before := make([]time.Duration, rapid.IntRange(0, tookKept).Draw(t, "before"))
		var reads []backend.Read
		want := slices.Clone(before)
		for _, ns := range waits {
			reads = append(reads, backend.Read{WaitNs: ns})
			if ns > 0 {
				want = append(want, time.Duration(ns))
			}
		}
		if got := appendWaits(before, reads); !slices.Equal(got, want[:min(len(want), tookKept)]) {
			t.Fatalf("%v became %v with %v", before, got, waits)
		}
	})
}

func TestAfterASeekWhatIsReadThereIsBrought(t *testing.T) {
	c := newColdFiles(t, 400, 5000, nil)
	client := c.openAhead(openRequest("files"))
	var answer shm.Seeked
	client.ask(shm.Seek{Type: shm.TypeSeek, Epoch: 7, SamplesConsumed: 200}, &answer)
	// The ring is full of what was made before, so nobody has read there yet. How deep the
	// window is, a batch at least, lies with the times of the reads before.
	ahead := c.session().ahead.shownOf()
	eventually(t, "what is read next is brought, as far as the window goes", func() bool {
		depth := int(ahead.describe().WindowSamples)
		return depth >= 4 && c.has(200, min(200+depth, 400))
	})
}

// TestFilesThatChangedAreToldByWhoReadsThem changes and removes files ahead of a session.
func TestFilesThatChangedAreToldByWhoReadsThem(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"removed":   os.Remove,
		"truncated": func(path string) error { return os.Truncate(path, 7) },
		"replaced":  func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newColdFiles(t, 100, 5000, nil)
			client := c.openAhead(openRequest("files"))
			if err := change(c.names[41]); err != nil {
				t.Fatal(err)
			}
			for b := range 10 {
				if got := client.next(); got.failure != nil || got.index[0] != int64(4*b) {
					t.Fatalf("batch %d: %+v, %+v", b, got.index, got.failure)
				}
			}
			if got := client.next(); got.failure == nil || got.failure.Code != "changed" {
				t.Errorf("%+v, want that the file changed", got)
			}
		})
	}
}

func TestCloseLeavesAWorkerBehindThatHangs(t *testing.T) {
	c := newColdFiles(t, 100, 5000, nil)
	c.foresight.patience = time.Millisecond
	hung, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	c.disk.onRequest(func(string) {
		once.Do(func() { close(hung) })
		<-goOn
	})
	client := c.openAhead(openRequest("files"))
	<-hung
	drain(t, client, 20) // who reads does not wait for it
	held, err := c.registry.acquire("files")
	if err != nil {
		t.Fatal(err)
	}
	held.release()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if !held.held() {
		t.Error("the dataset was closed under a worker")
	}
	close(goOn)
	<-c.foresight.stopped
	if held.held() {
		t.Error("the dataset is not released")
	}
}

func TestADatasetIsRemovedThoughForesightHasNotLetGo(t *testing.T) {
	c := newColdFiles(t, 100, 5000, nil)
	hung, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	c.disk.onRequest(func(string) {
		once.Do(func() { close(hung) })
		<-goOn
	})
	client := c.openAhead(openRequest("files"))
	<-hung
	_ = client.Close()
	eventually(t, "the dataset is removed", func() bool { return c.RemoveDataset(t.Context(), "files") == nil })
	close(goOn)
}

func TestTheDriverForgetsWhoLeft(t *testing.T) {
	c := newColdFiles(t, 100, 5000, nil)
	for i := range 6 {
		request := openRequest("files")
		request.Order, request.WorldSize, request.Rank = "global", 3, i%3
		if i < 4 {
			request.JobID = "job"
		}
		client := c.openSession(request)
		drain(t, client, 5)
		if i%2 == 0 {
			_ = client.Close()
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	forgotten(t, c)
}

// forgotten checks that the driver of a closed node knows nobody any more.
func forgotten(t *testing.T, c *coldFiles) {
	t.Helper()
	d := &c.foresight.driver
	if n := len(d.all) + len(d.streams) + len(d.jobs) + len(d.layouts); n > 0 {
		t.Errorf("%d readers, %d streams, %d jobs, %d layouts are left", len(d.all), len(d.streams), len(d.jobs), len(d.layouts))
	}
	if _, err := c.registry.info("files"); err == nil {
		t.Error("the dataset is still open")
	}
}

func TestSessionsComeMoveAndGoAtOnce(t *testing.T) {
	c := newColdFiles(t, 300, 3000, nil)
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			for k := range 5 {
				request := openRequest("files")
				request.Order, request.Seed, request.WorldSize, request.Rank, request.JobID = "global", uint64(k), 4, i, "job"
				client := c.openSession(request)
				drain(t, client, 3+i)
				var answer shm.Seeked
				client.ask(shm.Seek{Type: shm.TypeSeek, Epoch: int64(k), SamplesConsumed: int64(16 * k)}, &answer)
				for client.next().Sequence < answer.FromSequence { //nolint:revive // what was made before
				}
				drain(t, client, 12)
				_ = client.Close()
			}
		})
	}
	group.Wait()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	forgotten(t, c)
}

func TestForesightIsToldOfEachSessionAndOfTheNode(t *testing.T) {
	c := newColdFiles(t, 200, 5000, func(o *Options) { o.Prefetch.WindowBytes = 40 * 5000 })
	client := c.openAhead(openRequest("files"))
	eventually(t, "something is brought", func() bool {
		drain(t, client, 1)
		f := c.Stalls()[0].Foresight
		return f.BroughtBytes > 0 && f.OnTime > 0 && f.WindowSamples > 0
	})
	_ = client.Close()
	eventually(t, "the session has ended", func() bool {
		stalls := c.Stalls()
		return len(stalls) == 1 && stalls[0].EndedAt != nil
	})
	last := c.Stalls()[0].Foresight
	var all api.Foresight
	eventually(t, "its window is gone", func() bool {
		all = c.Stats().Foresight
		return all.WindowSamples == 0
	})
	if all.BroughtBytes < last.BroughtBytes || all.Samples < last.Samples || all.OnTime < last.OnTime || all.WastedBytes < last.WastedBytes {
		t.Errorf("the node %+v, its session %+v", all, last)
	}
	if all.Samples != all.OnTime+all.Late+all.Unforeseen {
		t.Errorf("samples do not add up: %+v", all)
	}
}

// TestDrawnOrdersAreForeseenAcrossEpochs has tables for orders, of which the next epoch's
// is made while the one before is read.
func TestDrawnOrdersAreForeseenAcrossEpochs(t *testing.T) {
	for _, kind := range []string{"torch", "numpy"} {
		var log lockedBuffer
		c := newColdFiles(t, 120, 5000, func(o *Options) {
			o.Logger = slog.New(slog.NewTextHandler(&log, nil))
			o.Prefetch.WindowBytes = 20 * 5000
		})
		request := openRequest("files")
		request.Order, request.WorldSize, request.Rank = kind, 2, 1
		client := c.openSession(request)
		for epoch := range 6 {
			before := c.session().ahead.shownOf().describe().BroughtBytes
			eventually(t, "files are brought in this epoch", func() bool {
				c.disk.drop()
				drain(t, client, 1)
				return c.session().ahead.shownOf().describe().BroughtBytes > before
			})
			for client.next().Epoch == uint64(epoch) { //nolint:revive // to the epoch's end
			}
		}
		_ = client.Close()
		if text := log.String(); strings.Contains(text, "nothing") {
			t.Errorf("%s: %s", kind, text)
		}
	}
}

func TestForesightThatIsOffDoesNothing(t *testing.T) {
	c := newColdFiles(t, 40, 5000, func(o *Options) { o.Prefetch.Off = true })
	client := c.openSession(openRequest("files"))
	drain(t, client, 22)
	if c.session().ahead != nil || c.foresight.mu.driving || c.disk.mu.asked > 0 {
		t.Errorf("something was read ahead")
	}
}

// brokenOrder is the order of a stream that cannot be planned.
type brokenOrder struct{}

func (brokenOrder) Len(int64) int64                                { return 100 }
func (brokenOrder) At(_, _, _ int64, samples []int64) []int64      { return samples }
func (brokenOrder) PositionOf(int64, int64) (place int64, ok bool) { return 0, false }

// brokenReader fails in every way that a reader can.
type brokenReader struct {
	sessionAhead
	fails atomic.Bool // to begin
}

func (b *brokenReader) begin(p *prefetch.Planner, now prefetch.Time) (prefetch.StreamID, error) {
	if b.fails.Load() {
		return 0, io.ErrUnexpectedEOF
	}
	dataset, err := b.owner.driver.layout(b.foreseen.view, now)
	if err != nil {
		return 0, err
	}
	b.planner = p
	return p.AddStream(now, prefetch.Stream{Job: b.owner.driver.job("x", now), Dataset: dataset, Order: brokenOrder{}, Source: prefetch.Origin})
}

func (b *brokenReader) turn(prefetch.Time) (prefetch.Time, bool) { return prefetch.Never, false }

func (b *brokenReader) end(prefetch.Time) error { return io.ErrClosedPipe }

func TestAReaderThatFailsIsLoggedAndHarmsNobody(t *testing.T) {
	var log lockedBuffer
	c := newColdFiles(t, 200, 5000, func(o *Options) {
		o.Logger, o.Prefetch.WindowBytes = slog.New(slog.NewTextHandler(&log, nil)), 60*5000
	})
	client := c.openAhead(openRequest("files"))
	var left sync.WaitGroup
	for i := range 2 {
		b := &brokenReader{sessionAhead: sessionAhead{owner: c.foresight, foreseen: foreseen{name: "broken", view: c.session().source.view}}}
		b.fails.Store(i == 0)
		b.foreseen.reader = b
		left.Add(1)
		c.foresight.add(&b.foreseen, left.Done)
		text := []string{"unexpected EOF", "the order gave 0"}[i]
		eventually(t, "it is said", func() bool {
			drain(t, client, 1) // which wakes the driver
			return strings.Contains(log.String(), text)
		})
		c.foresight.leave(&b.foreseen)
	}
	left.Wait()
	served := c.session().ahead.shownOf().describe().BroughtBytes
	eventually(t, "others are served", func() bool {
		c.disk.drop()
		drain(t, client, 1)
		return c.session().ahead.shownOf().describe().BroughtBytes > served
	})
	for _, text := range []string{"unexpected EOF", "the order gave 0", "closed pipe"} {
		if n := strings.Count(log.String(), text); n != 1 {
			t.Errorf("%q was logged %d times:\n%s", text, n, log.String())
		}
	}
	if text := log.String(); strings.Count(text, "for=broken") != 3+strings.Count(text, "plan what is read ahead") {
		t.Errorf("not all that was logged says for whom:\n%s", text)
	}
}

// lockedBuffer may be written and read in parallel.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestWhoeverIsAddedTooLateIsReleasedAtOnce(t *testing.T) {
	f := newForesight(PrefetchOptions{Workers: 1}, discardLogger())
	f.close()
	f.close()
	released := 0
	x := &foreseen{}
	f.add(x, func() { released++ })
	f.leave(x)
	if released != 1 {
		t.Errorf("released %d times", released)
	}
}

func TestATaskThatFindsNoPlaceIsRefused(t *testing.T) {
	f := newForesight(PrefetchOptions{Workers: 1}, discardLogger())
	defer f.close()
	for i := range f.options.tasksMost() {
		f.tasks <- task{fetch: prefetch.Fetch{ID: prefetch.FetchID(i)}}
	}
	if f.give(task{}) {
		t.Error("a task more was taken")
	}
}

// TestReadingAheadAllocatesLittle has every batch brought from a cold disk.
func TestReadingAheadAllocatesLittle(t *testing.T) {
	options := testOptions(t)
	n := startNode(t, options)
	dir := tokenDirectory(t, 1<<20)
	n.add("tokens", dir)
	request := openRequest("tokens")
	request.Order, request.BatchSize, request.BlockSize = "global", 32, 128
	path := filepath.Join(dir, "train.bin")
	client := n.openSession(request)
	drain(t, client, 100)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const batches = 2000
	for range batches / 50 {
		chillFile(t, path)
		drain(t, client, 50)
	}
	runtime.ReadMemStats(&after)
	if mallocs := after.Mallocs - before.Mallocs; mallocs > batches {
		t.Errorf("%d allocations in %d batches", mallocs, batches)
	}
}

// chillFile asks the kernel to drop a file's pages.
func chillFile(t testing.TB, name string) {
	t.Helper()
	f, err := os.Open(name)
	if err == nil {
		err = errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// halfCached is files of which every other one is in the page cache.
func halfCached(t *testing.T) *coldFiles {
	c := newColdFiles(t, 200, 5000, func(o *Options) { o.Prefetch.WindowBytes = 40 * 5000 })
	for i := 0; i < len(c.names); i += 2 {
		var stat unix.Stat_t
		if err := unix.Stat(c.names[i], &stat); err != nil {
			t.Fatal(err)
		}
		c.disk.look(stat.Ino, 0, 5000, true)
	}
	return c
}

// TestWhatIsWastedWasBrought has sessions end in the midst of files of which half need not be
// brought: those are no waste, and what was brought is used or wasted once the window is gone.
func TestWhatIsWastedWasBrought(t *testing.T) {
	c := halfCached(t)
	client := c.openAhead(openRequest("files"))
	eventually(t, "something is brought, used and found", func() bool {
		drain(t, client, 1)
		f := c.Stalls()[0].Foresight
		return f.BroughtBytes > 0 && f.UsedBytes > 0 && f.FoundBytes > 0
	})
	_ = client.Close()
	eventually(t, "its window is gone, and each byte that was brought is used or wasted", func() bool {
		f, ended := c.Stats().Foresight, c.Stalls()
		return f.WindowSamples == 0 && len(ended) == 1 && f.UsedBytes+f.WastedBytes == f.BroughtBytes && *ended[0].Foresight == f
	})
	if f := c.Stats().Foresight; f.Waste > 1 || f.Accuracy > 1 || math.Abs(f.Accuracy+f.Waste-1) > 1e-9 {
		t.Errorf("accuracy and waste are all of what was brought: %+v", f)
	}
}

func TestSessionsOfAJobAreToldOfTogether(t *testing.T) {
	c := newColdFiles(t, 200, 5000, nil)
	request := openRequest("files")
	request.JobID = "nightly"
	for range 2 {
		client := c.openSession(request)
		drain(t, client, 5)
	}
	drain(t, c.openSession(openRequest("files")), 1) // of no job
	eventually(t, "the job is the sum of its sessions", func() bool {
		var sum api.Foresight
		stalls := c.Stalls()
		for _, s := range stalls {
			if s.JobID == "nightly" {
				sum.Change(&api.Foresight{}, s.Foresight)
			}
		}
		jobs, measured := api.JobsOf(stalls), c.Stats().Jobs
		return sum.Samples > 0 && len(jobs) == 1 && jobs[0] == api.JobForesight{JobID: "nightly", Sessions: 2, Foresight: sum} && slices.Equal(measured, jobs)
	})
}

func TestWhatWasBroughtInTimeAndReadFromTheDiskIsGone(t *testing.T) {
	for name, test := range map[string]struct {
		missing       int64
		before, after prefetch.Metrics
		want          int64
	}{
		"all there":            {0, prefetch.Metrics{Depth: 8}, prefetch.Metrics{OnTime: 4}, 0},
		"two of them":          {2, prefetch.Metrics{Depth: 8}, prefetch.Metrics{OnTime: 4}, 2},
		"those that were late": {2, prefetch.Metrics{Depth: 8}, prefetch.Metrics{OnTime: 2, Late: 1, Uncovered: 1}, 0},
		"no more than on time": {9, prefetch.Metrics{Depth: 8, OnTime: 3}, prefetch.Metrics{OnTime: 4}, 1},
		"nothing was brought":  {4, prefetch.Metrics{}, prefetch.Metrics{OnTime: 4}, 0},
	} {
		n := sessionNews{missing: test.missing}
		if got := n.gone(&test.before, &test.after); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}
