package sim

import (
	"bytes"
	"errors"
	"io"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/stokerio/stoker/prefetch"
	"github.com/stokerio/stoker/prefetch/trace"
)

// generated is a trace in memory.
func generated(t testing.TB, o GenerateOptions) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := GenerateTrace(&out, o); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func replayed(t testing.TB, recording []byte, o ReplayOptions) *ReplayReport {
	t.Helper()
	report, err := ReplayTrace(bytes.NewReader(recording), o)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// written is a trace of two sessions, each with a dataset of its own.
func written(t interface{ Fatal(...any) }, reads []trace.Read) []byte {
	var out bytes.Buffer
	w, err := trace.NewWriter(&out, trace.Header{})
	for number := range 2 {
		_, errDataset := w.Dataset(trace.Dataset{})
		_, errSession := w.Session(trace.Session{Dataset: number})
		err = errors.Join(err, errDataset, errSession)
	}
	for i := range reads {
		err = errors.Join(err, w.Read(&reads[i]))
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// smallTrace is the golden trace of the format, in which all of it occurs.
func smallTrace(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile("../trace/testdata/small.trace")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// broken takes no second write.
type broken struct{ io.Writer }

func (b *broken) Write(p []byte) (int, error) {
	if b.Writer == nil {
		return 0, io.ErrClosedPipe
	}
	b.Writer = nil
	return len(p), nil
}

// ratios are the hit ratios by policy of the one capacity that was replayed.
func ratios(report *ReplayReport) map[string]float64 {
	found := map[string]float64{}
	for _, row := range report.Rows {
		found[row.Policy] = row.HitShare
	}
	return found
}

// One job of permuted epochs has the hit ratios of the closed forms once its first epoch,
// which misses all, is taken out: c for never-evict and OPT, c+(1-c)ln(1-c) for LRU.
func TestAReplayOfOneJobMeetsTheClosedForms(t *testing.T) {
	const epochs = 6
	recording := generated(t, GenerateOptions{Seed: 1, Jobs: 1, Chunks: 20_000, Epochs: epochs, SampleBytes: 1000})
	for _, c := range []float64{.25, .5, .75} {
		got := ratios(replayed(t, recording, ReplayOptions{Capacities: []ReplayCapacity{{Share: c}}}))
		for policy, want := range map[string]float64{PolicyNeverEvict: c, PolicyOPT: c, PolicyLRU: c + (1-c)*math.Log(1-c)} {
			if after := got[policy] * epochs / (epochs - 1); math.Abs(after-want) > .01 {
				t.Errorf("c = %v: %s has %.3f after the first epoch, want %.3f", c, policy, after, want)
			}
		}
	}
}

func TestOPTIsFarBeyondTheOthersWithSeveralJobs(t *testing.T) {
	recording := generated(t, GenerateOptions{Seed: 2, Jobs: 4, Chunks: 4000, Epochs: 6})
	report := replayed(t, recording, ReplayOptions{Capacities: []ReplayCapacity{{Share: .25}}})
	got := ratios(report)
	if got[PolicyOPT] < .5 || got[PolicyNeverEvict] > .3 {
		t.Errorf("%v", got)
	}
	for _, row := range report.Rows {
		if row.Way == nil || *row.Way > 1 || row.HitBytes != row.Hits<<20 || row.MissBytes != row.Misses<<20 || row.Capacity != 1000<<20 {
			t.Errorf("%+v", row)
		}
		want := (row.HitShare - got[PolicyLRU]) / (got[PolicyOPT] - got[PolicyLRU])
		if math.Abs(*row.Way-want) > 1e-9 {
			t.Errorf("%s is %v of the way, want %v", row.Policy, *row.Way, want)
		}
	}
}

// A replay is what each cache says when it is asked in turn; that of OPT is a bound by
// bytes even where chunks differ and are read in parts.
func TestAReplayAsksTheCachesInTurn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.Int64Range(1, 100), 8, 8).Draw(t, "sizes")
		var reads []trace.Read
		var sequence []Access
		for range rapid.IntRange(1, 60).Draw(t, "reads") {
			session, chunk := rapid.IntRange(0, 1).Draw(t, "session"), rapid.Int64Range(0, 3).Draw(t, "chunk")
			item := int64(session)*4 + chunk
			reads = append(reads, trace.Read{Session: session, Accesses: []trace.Access{{Chunk: chunk, Bytes: sizes[item]}}})
			sequence = append(sequence, Access{Item: item, Bytes: sizes[item]})
		}
		capacity := rapid.Int64Range(1, 300).Draw(t, "capacity")
		report, err := ReplayTrace(bytes.NewReader(written(t, reads)), ReplayOptions{Capacities: []ReplayCapacity{{Bytes: capacity}}})
		if err != nil {
			t.Fatal(err)
		}
		best := report.Rows[len(report.Rows)-1].ByteShare
		for i, row := range report.Rows {
			cache := replayPolicies[i].make(min(capacity, report.ChunkBytes), foreseen{sequence, nextUses(sequence)})
			want := trace.Tally{}
			for _, a := range sequence {
				if cache.Access(a.Item, a.Bytes) {
					want.Hits++
					want.HitBytes += a.Bytes
				} else {
					want.Misses++
					want.MissBytes += a.Bytes
				}
			}
			if row.Policy != PolicyOPT && row.Tally != want || row.Hits != want.Hits || row.ByteShare > best+1e-9 {
				t.Fatalf("%+v, want %+v; OPT has %v", row, want, best)
			}
		}
	})
}

func TestAReplayTellsWhatTheRecordedRunHad(t *testing.T) {
	report := replayed(t, smallTrace(t), ReplayOptions{Capacities: []ReplayCapacity{{Share: 1}}, Policies: []string{PolicySIEVE}})
	if report.Node != "node-7" || report.Reads != 4 || report.Samples != 6 || report.Accesses != 8 || report.Length != 9*time.Millisecond || report.Torn != "" || report.Cut {
		t.Errorf("%+v", report.Summary)
	}
	if got := report.Tally(); got != (trace.Tally{Hits: 3, Misses: 5, HitBytes: 120_000, MissBytes: 120_000 + trace.MaxBytes + 34 + 100}) {
		t.Errorf("recorded %+v", got)
	}
	first, second := report.Sessions[0], report.Sessions[1]
	if got := first.Tally(); got.Hits != 3 || got.Misses != 2 || first.Epochs != 2 || first.Reads != 3 || first.Samples != 5 || first.Waited != 40*time.Millisecond || first.Waits != 1 {
		t.Errorf("%+v", first)
	}
	if second.AccessesOf[prefetch.Flash] != 1 || second.AccessesOf[prefetch.Peer] != 2 || second.BytesOf[prefetch.Peer] != 34 || second.Samples != 1 || second.Job != "tail" {
		t.Errorf("%+v", second)
	}
	if len(report.Rows) != 3 || report.Rows[1].Policy != PolicySIEVE || report.Chunks != 6 {
		t.Errorf("%d chunks, %+v", report.Chunks, report.Rows)
	}
	// Chunk 5 and chunk 2^41+1 of stream, chunks 0, 1 and 99 of pets: as far as they were read.
	if want := int64(17 + 17 + 1 + 120_000 + 124_096 + 1<<50 + trace.MaxBytes); report.ChunkBytes != want {
		t.Errorf("%d bytes of chunks, want %d", report.ChunkBytes, want)
	}
}

func TestATornTraceIsReplayedAsFarAsItGoes(t *testing.T) {
	recording := generated(t, GenerateOptions{Chunks: 10_000})
	whole := replayed(t, recording, ReplayOptions{Capacities: []ReplayCapacity{{Share: .5}}})
	half := replayed(t, recording[:len(recording)/2], ReplayOptions{Capacities: []ReplayCapacity{{Share: .5}}})
	if whole.Torn != "" || half.Torn == "" || half.Accesses == 0 || half.Accesses >= whole.Accesses {
		t.Errorf("whole %d %q, half %d %q", whole.Accesses, whole.Torn, half.Accesses, half.Torn)
	}
	recording[len(recording)/2] ^= 1
	var problem *trace.Error
	o := ReplayOptions{Capacities: []ReplayCapacity{{Share: .5}}}
	if _, err := ReplayTrace(bytes.NewReader(recording), o); !errors.As(err, &problem) || problem.Problem != trace.Corrupt || problem.Accesses == 0 {
		t.Fatal(err)
	}
	o.First = problem.Accesses
	if good := replayed(t, recording, o); good.Accesses != half.Accesses || !good.Cut {
		t.Errorf("%d accesses are before the damage, the torn trace has %d", good.Accesses, half.Accesses)
	}
}

func TestTheFirstAccessesAreReplayedWhereTheWholeIsTooMuch(t *testing.T) {
	recording := generated(t, GenerateOptions{Jobs: 1, Chunks: 100, Epochs: 10, BatchSize: 64})
	o := ReplayOptions{Capacities: []ReplayCapacity{{Share: .5}}, MaxAccesses: 999}
	var limit *ReplayLimitError
	if _, err := ReplayTrace(bytes.NewReader(recording), o); !errors.As(err, &limit) || limit.Limit != 999 {
		t.Error(err)
	}
	o.First = 150
	report := replayed(t, recording, o)
	if !report.Cut || report.Accesses != 150 || report.Rows[0].Hits+report.Rows[0].Misses != 150 || report.Chunks != 100 {
		t.Errorf("%+v", report.Summary)
	}
	o.First, o.MaxAccesses = 1001, 1000
	if report := replayed(t, recording, o); report.Cut || report.Accesses != 1000 {
		t.Errorf("%+v", report.Summary)
	}
	var huge []trace.Read
	for chunk := range int64(5) {
		huge = append(huge, trace.Read{Session: 1, Accesses: []trace.Access{{Chunk: chunk, Offset: trace.MaxNumber, Bytes: 1}}})
	}
	if _, err := ReplayTrace(bytes.NewReader(written(t, huge)), o); !errors.As(err, &limit) {
		t.Error(err)
	}
}

func TestReplayOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	for want, o := range map[string]ReplayOptions{
		"no capacity":          {},
		"the share 1.5":        {Capacities: []ReplayCapacity{{Share: 1.5}}},
		"the share NaN":        {Capacities: []ReplayCapacity{{Share: math.NaN()}}},
		"-1 bytes":             {Capacities: []ReplayCapacity{{Bytes: -1}}},
		"0 bytes":              {Capacities: []ReplayCapacity{{}}},
		`"arc" is not known`:   {Capacities: []ReplayCapacity{{Share: 1}}, Policies: []string{"arc"}},
		"must not be negative": {Capacities: []ReplayCapacity{{Share: 1}}, First: -1},
	} {
		if _, err := ReplayTrace(strings.NewReader(""), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	none := ReplayOptions{Capacities: []ReplayCapacity{{Share: .5}}}
	report := replayed(t, written(t, nil), none)
	if report.Accesses != 0 || len(report.Rows) != len(replayPolicies) || report.Rows[0].Way != nil || report.Rows[0].HitShare != 0 {
		t.Errorf("%+v", report)
	}
}

func TestProgressEndsAReplay(t *testing.T) {
	recording := generated(t, GenerateOptions{Chunks: 100_000})
	enough := errors.New("enough")
	for _, stage := range []string{ReplayReads, ReplayPlays} {
		last := int64(-1)
		_, err := ReplayTrace(bytes.NewReader(recording), ReplayOptions{Capacities: []ReplayCapacity{{Share: .5}}, Progress: func(at string, done, total int64) error {
			if at != stage {
				return nil
			}
			if done <= last || at == ReplayPlays && total != 5*600_000 {
				t.Errorf("%s: %d of %d after %d", at, done, total, last)
			}
			if last = done; stage == ReplayReads || done > 1_000_000 {
				return enough
			}
			return nil
		}})
		if err != enough {
			t.Errorf("%s: %v", stage, err)
		}
	}
	if _, err := trace.Summarize(bytes.NewReader(recording), func(int64) error { return enough }); err != enough {
		t.Error(err)
	}
	if err := GenerateTrace(io.Discard, GenerateOptions{Progress: func(int64, int64) error { return enough }}); err != enough {
		t.Error(err)
	}
}

func TestAGeneratedTraceIsAsItsOptionsSay(t *testing.T) {
	o := GenerateOptions{Seed: 5, Jobs: 3, Chunks: 900, SamplesPerChunk: 7, SampleBytes: 1000, Epochs: 4, BatchSize: 32, Spread: .5, Resident: .3, Separate: true}
	recording := generated(t, o)
	if !bytes.Equal(recording, generated(t, o)) {
		t.Error("equal options give other traces")
	}
	seen, accesses := map[[3]int64]int{}, 0
	r, err := trace.NewReader(bytes.NewReader(recording))
	if err != nil {
		t.Fatal(err)
	}
	read, err := r.Next()
	for ; err == nil; read, err = r.Next() {
		for j, a := range read.Accesses {
			accesses++
			seen[[3]int64{int64(read.Session), read.Epoch, a.Sample}]++
			if a.Chunk != a.Sample/7 || a.Offset != a.Sample%7*1000 || a.Bytes != 1000 || read.Position+int64(j) >= 6300 {
				t.Fatalf("%+v", a)
			}
		}
	}
	if err != io.EOF || len(r.Datasets()) != 3 || len(r.Sessions()) != 3 || len(seen) != 3*4*6300 || len(seen) != accesses {
		t.Errorf("%d samples of epochs in %d accesses, %v", len(seen), accesses, err)
	}
	summary, err := trace.Summarize(bytes.NewReader(recording), nil)
	if err != nil || !reflect.DeepEqual(summary.Datasets, r.Datasets()) || summary.Bytes != int64(len(recording)) {
		t.Errorf("%+v, %v", summary, err)
	}
	// The kept chunks are resident but for the first of their 28 reads.
	if share := summary.Tally(); math.Abs(share.HitRatio()-.3) > .04 || summary.Waits == 0 {
		t.Errorf("%.3f is resident, %d waits", share.HitRatio(), summary.Waits)
	}
	for want, o := range map[string]GenerateOptions{
		"number of jobs": {Jobs: -1}, "samples a chunk": {SamplesPerChunk: -1}, "resident share": {Resident: math.NaN()}, "the spread": {Spread: math.Inf(1)},
		"samples together": {Chunks: 1 << 20, SamplesPerChunk: 1 << 20}, "chunks together": {Jobs: 1000, Chunks: 1 << 20, Separate: true},
		"microseconds a batch": {BatchTime: 1},
	} {
		if err := GenerateTrace(io.Discard, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if err := GenerateTrace(&broken{io.Discard}, o); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}
