package sim

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"time"

	"github.com/stokerio/stoker/prefetch"
	"github.com/stokerio/stoker/prefetch/trace"
)

// maxGenerated bounds the chunks and the samples of a dataset; of each chunk it is held
// whether it was read.
const maxGenerated = 1 << 28

// GenerateOptions describes a trace that nobody recorded: jobs that read permuted epochs
// of chunks of one size. Equal options give equal traces in every release with the same
// format.
type GenerateOptions struct {
	Seed            uint64
	Start           time.Time     // default: 1970
	Node            string        // default: "generated"
	Jobs            int           // default 2
	Separate        bool          // each job has a dataset of its own; else all read one
	Chunks          int64         // of a dataset, default 1,000
	SamplesPerChunk int64         // default 1
	SampleBytes     int64         // default 1 MiB
	Epochs          int64         // of each job, default 3
	BatchSize       int64         // default 64
	BatchTime       time.Duration // of the first job, default 100 ms
	Spread          float64       // each job takes so much of BatchTime more than the one before
	Resident        float64       // share of the chunks that the node keeps once they were read

	// Progress, which may be nil, is told now and then how many of the accesses are
	// written. Its error ends the generation.
	Progress func(done, total int64) error
}

// EnsureDefaults fills in what is zero.
func (o *GenerateOptions) EnsureDefaults() {
	if o.Start.IsZero() {
		o.Start = time.Unix(0, 0)
	}
	if o.Node == "" {
		o.Node = "generated"
	}
	if o.Jobs == 0 {
		o.Jobs = 2
	}
	if o.BatchTime == 0 {
		o.BatchTime = 100 * time.Millisecond
	}
	for _, preset := range []struct {
		value *int64
		other int64
	}{{&o.Chunks, 1000}, {&o.SamplesPerChunk, 1}, {&o.SampleBytes, 1 << 20}, {&o.Epochs, 3}, {&o.BatchSize, 64}} {
		if *preset.value == 0 {
			*preset.value = preset.other
		}
	}
}

// Validate says all that is wrong with options that have their defaults.
func (o *GenerateOptions) Validate() error {
	var wrong []error
	within := func(name string, value, most int64) {
		if value < 1 || value > most {
			wrong = append(wrong, fmt.Errorf("%s is %d: must be in 1 .. %d", name, value, most))
		}
	}
	within("the number of jobs", int64(o.Jobs), 1000)
	within("the number of chunks", o.Chunks, maxGenerated)
	within("samples a chunk", o.SamplesPerChunk, maxGenerated)
	within("bytes a sample", o.SampleBytes, 1<<30)
	within("the number of epochs", o.Epochs, 1<<20)
	within("the batch size", o.BatchSize, 1<<20)
	within("microseconds a batch", o.BatchTime.Microseconds(), int64(time.Hour/time.Microsecond))
	if !(o.Spread >= 0 && o.Spread <= 1000) {
		wrong = append(wrong, fmt.Errorf("the spread is %v: must be in 0 .. 1000", o.Spread))
	}
	if !(o.Resident >= 0 && o.Resident <= 1) {
		wrong = append(wrong, fmt.Errorf("the resident share is %v: must be in 0 .. 1", o.Resident))
	}
	if len(wrong) > 0 {
		return errors.Join(wrong...)
	}
	if o.Chunks*o.SamplesPerChunk > maxGenerated {
		return fmt.Errorf("%d chunks of %d samples each: must be %d samples together at most", o.Chunks, o.SamplesPerChunk, maxGenerated)
	}
	if o.Separate && int64(o.Jobs)*o.Chunks > maxGenerated {
		return fmt.Errorf("%d jobs with %d chunks each: must be %d chunks together at most", o.Jobs, o.Chunks, maxGenerated)
	}
	return nil
}

// GenerateTrace writes a trace of jobs that each start somewhere within the first epoch
// of the others, and read every sample once an epoch in a new order.
func GenerateTrace(out io.Writer, o GenerateOptions) error {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return fmt.Errorf("generate trace: %w", err)
	}
	w, err := trace.NewWriter(out, trace.Header{Start: o.Start, Node: o.Node})
	if err != nil {
		return err
	}
	g := &traceGenerator{options: o, out: w, random: traceRandom(o.Seed), samples: o.Chunks * o.SamplesPerChunk}
	if err := g.define(); err != nil {
		return err
	}
	if err := g.run(); err != nil {
		return err
	}
	return w.Close()
}

type traceGenerator struct {
	options GenerateOptions
	out     *trace.Writer
	random  traceRandom
	samples int64 // of a dataset
	jobs    []traceJob
	seen    [][]bool // of each dataset: chunks that were read
	read    trace.Read
}

// traceJob is a job with the epoch that it reads.
type traceJob struct {
	next      int64 // when it takes a batch, microseconds; -1: it has ended
	every     int64 // microseconds
	order     permutation
	epoch, at int64
}

func (g *traceGenerator) define() error {
	o := &g.options
	for job := range o.Jobs {
		if job == 0 || o.Separate {
			d := trace.Dataset{Name: fmt.Sprintf("generated-%d", job), Samples: g.samples, Chunks: o.Chunks, Bytes: g.samples * o.SampleBytes}
			if _, err := g.out.Dataset(d); err != nil {
				return err
			}
			g.seen = append(g.seen, make([]bool, o.Chunks))
		}
		s := trace.Session{Job: fmt.Sprintf("job-%d", job), Dataset: len(g.seen) - 1, BatchSize: o.BatchSize, Order: "permuted", WorldSize: 1}
		if _, err := g.out.Session(s); err != nil {
			return err
		}
		j := traceJob{every: int64(float64(o.BatchTime.Microseconds()) * (1 + o.Spread*float64(job)))}
		if job > 0 {
			epoch := j.every * ((g.samples + o.BatchSize - 1) / o.BatchSize)
			j.next = int64(g.random.below(uint64(epoch)))
		}
		j.order = newPermutation(g.samples, g.random.next())
		g.jobs = append(g.jobs, j)
	}
	return nil
}

// run writes batches, always that of the job whose turn is first.
func (g *traceGenerator) run() error {
	total := int64(g.options.Jobs) * g.options.Epochs * g.samples
	for done := int64(0); done < total; done += int64(len(g.read.Accesses)) {
		first := -1
		for i := range g.jobs {
			if g.jobs[i].next >= 0 && (first < 0 || g.jobs[i].next < g.jobs[first].next) {
				first = i
			}
		}
		if err := g.batch(first); err != nil {
			return err
		}
		if g.options.Progress != nil {
			if err := g.options.Progress(done, total); err != nil {
				return err
			}
		}
	}
	return nil
}

// batch writes one job's next batch.
func (g *traceGenerator) batch(number int) error {
	j, o := &g.jobs[number], &g.options
	n := min(o.BatchSize, g.samples-j.at)
	g.read = trace.Read{At: time.Duration(j.next) * time.Microsecond, Session: number, Epoch: j.epoch, Position: j.at, Accesses: g.read.Accesses[:0]}
	dataset := 0
	if o.Separate {
		dataset = number
	}
	for place := j.at; place < j.at+n; place++ {
		g.read.Accesses = append(g.read.Accesses, g.access(dataset, j.order.at(place)))
	}
	j.at += n
	j.next += j.every
	if j.at == g.samples {
		j.at = 0
		j.epoch++
		j.order = newPermutation(g.samples, g.random.next())
	}
	if j.epoch == o.Epochs {
		j.next = -1
	}
	return g.out.Read(&g.read)
}

// access reads a sample: from the cache if its chunk is one of those that are kept and
// was read before, else from the origin, now and then after a wait.
func (g *traceGenerator) access(dataset int, sample int64) trace.Access {
	o := &g.options
	chunk := sample / o.SamplesPerChunk
	a := trace.Access{Sample: sample, Chunk: chunk, Offset: sample % o.SamplesPerChunk * o.SampleBytes, Bytes: o.SampleBytes, Source: prefetch.Origin}
	hash := traceRandom(o.Seed ^ uint64(chunk))
	kept := hash.float() < o.Resident
	switch {
	case kept && g.seen[dataset][chunk]:
		a.Source = prefetch.Resident
	case g.random.below(50) == 0:
		a.Waited = time.Duration(1+g.random.below(50_000)) * time.Microsecond
	}
	g.seen[dataset][chunk] = true
	return a
}

// traceRandom is SplitMix64 (Steele et al., OOPSLA'14), whose numbers no release of Go
// changes.
type traceRandom uint64

func (r *traceRandom) next() uint64 {
	*r += traceRandom(golden)
	return mix(uint64(*r))
}

// below is a number in 0 .. n-1; that it is uneven by n/2^64 does no harm here.
func (r *traceRandom) below(n uint64) uint64 {
	high, _ := bits.Mul64(r.next(), n)
	return high
}

// float is a number in [0, 1).
func (r *traceRandom) float() float64 { return math.Ldexp(float64(r.next()>>11), -53) }
