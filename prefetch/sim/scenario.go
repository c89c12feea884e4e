package sim

import (
	"time"

	"github.com/stokerio/stoker/prefetch"
)

// NamedLaw is a law with the name that figures have.
type NamedLaw struct {
	Name string
	Law  Law
}

// DepthLaws are four laws of a mean of 40 ms: no tail, a short one, a long one, and one
// request in a hundred that takes ten times as long.
func DepthLaws() []NamedLaw {
	return []NamedLaw{
		{"constant", Constant(40 * time.Millisecond)},
		{"lognormal-0.5", Lognormal{40 * time.Millisecond, 0.5}},
		{"lognormal-1", Lognormal{40 * time.Millisecond, 1}},
		{"mixture", Mixture{36 * time.Millisecond, 400 * time.Millisecond, 0.01}},
	}
}

// scenarioSample is the size of a sample in all scenarios: a compressed picture.
const scenarioSample = 100_000

// DepthScenario is one job that takes a sample each millisecond, single ones, from a
// source with such latency and all the bandwidth there is: 100,000 samples, three epochs
// of another order each, of which the first 2,000 samples are warm-up.
func DepthScenario(law Law) *World {
	w := &World{Seed: 1, Links: []LinkSpec{{}}}
	w.Nodes = []NodeSpec{originNode(law, 0, 0)}
	dataset := w.addDataset(LayoutSpec{Samples: 33_333, SampleBytes: scenarioSample, SamplesPerChunk: 1}, false)
	s := w.stream(dataset, 1, time.Millisecond)
	s.Epochs, s.WarmUp = 3, 2_000
	w.Jobs = []JobSpec{{Streams: []StreamSpec{s}}}
	return w
}

// BudgetScenario is four jobs that need 100, 50, 25 and 12.5 MB/s, in batches of 16, over
// one link of linkFactor times their sum, for two minutes of which the first 20 s are
// warm-up.
func BudgetScenario(linkFactor float64) *World {
	w := &World{Seed: 2, Until: seconds(120), From: seconds(20)}
	w.Links = []LinkSpec{{BytesPerSecond: linkFactor * 187.5e6}}
	w.Nodes = []NodeSpec{originNode(Lognormal{40 * time.Millisecond, 0.5}, 0, 0)}
	for i := range 4 {
		perSample := time.Millisecond << i
		dataset := w.addDataset(LayoutSpec{Samples: 50_000, SampleBytes: scenarioSample, SamplesPerChunk: 1}, false)
		s := w.stream(dataset, uint64(i), perSample)
		s.Batch, s.WarmUp = 16, int64(w.From.Sub(0)/perSample)
		w.Jobs = append(w.Jobs, JobSpec{Streams: []StreamSpec{s}})
	}
	return w
}

// KeepScenario is one job and a cache of the share c of its dataset: 40,000 chunks of one
// sample each, three epochs of another order each.
func KeepScenario(c float64) *World {
	const samples = 40_000
	w := &World{Seed: 3, Links: []LinkSpec{{}}}
	w.Nodes = []NodeSpec{originNode(Lognormal{5 * time.Millisecond, 0.5}, 0, int64(c*samples)*scenarioSample)}
	dataset := w.addDataset(LayoutSpec{Samples: samples, SampleBytes: scenarioSample, SamplesPerChunk: 1}, true)
	s := w.stream(dataset, 1, time.Millisecond)
	s.Batch, s.Epochs, s.WarmUp = 32, 3, samples
	w.Jobs = []JobSpec{{Streams: []StreamSpec{s}}}
	return w
}

// SecondDatasetScenario is a cache that one job's dataset just fits into, and a second job
// with a dataset of equal size that begins when the first is in its third epoch. Both
// share the cache evenly from then on.
func SecondDatasetScenario() *World {
	const samples = 20_000
	w := &World{Seed: 4, Links: []LinkSpec{{}}}
	w.Nodes = []NodeSpec{originNode(Lognormal{5 * time.Millisecond, 0.5}, 0, samples*scenarioSample)}
	for i := range 2 {
		dataset := w.addDataset(LayoutSpec{Samples: samples, SampleBytes: scenarioSample, SamplesPerChunk: 1}, true)
		s := w.stream(dataset, uint64(i), time.Millisecond)
		s.Batch, s.Epochs = 32, 5-2*int64(i)
		s.Start = seconds(50) * prefetch.Time(i)
		w.Jobs = append(w.Jobs, JobSpec{Streams: []StreamSpec{s}})
	}
	return w
}

// CostScenario is for measuring what planning costs: jobs that read one dataset in orders
// of their own, 64 samples a chunk, in batches of 256, from a quick source, with room for
// a quarter of it in the cache. Each reads limit samples of it.
func CostScenario(samples int64, jobs int, limit int64) *World {
	w := &World{Seed: 5, Links: []LinkSpec{{}}}
	w.Nodes = []NodeSpec{originNode(Lognormal{time.Millisecond, 0.5}, 0, samples/4*scenarioSample)}
	dataset := w.addDataset(LayoutSpec{Samples: samples, SampleBytes: scenarioSample, SamplesPerChunk: 64}, true)
	for i := range jobs {
		s := w.stream(dataset, uint64(i), 100*time.Microsecond)
		s.Batch, s.Limit = 256, limit
		w.Jobs = append(w.Jobs, JobSpec{Streams: []StreamSpec{s}})
	}
	return w
}

// ClusterScenario is one job with a rank on each of several nodes. The nodes share the
// origin's link, of linkFactor times what they need, and each has a cache of a quarter of
// the dataset.
func ClusterScenario(nodes int, linkFactor float64) *World {
	const samples, batch, perSample = 40_000, 32, 2 * time.Millisecond
	w := &World{Seed: 6}
	w.Links = []LinkSpec{{BytesPerSecond: linkFactor * float64(nodes) * scenarioSample / perSample.Seconds()}}
	dataset := w.addDataset(LayoutSpec{Samples: samples, SampleBytes: scenarioSample, SamplesPerChunk: 1}, true)
	job := JobSpec{}
	for rank := range nodes {
		w.Nodes = append(w.Nodes, originNode(Lognormal{40 * time.Millisecond, 0.5}, 0, samples/4*scenarioSample))
		s := w.stream(dataset, 1, perSample)
		s.Order = must(NewOrder(OrderSpec{Seed: 1, Samples: samples, Rank: int64(rank), Ranks: int64(nodes), Batch: batch}))
		s.Node, s.Batch, s.Epochs, s.WarmUp = rank, batch, 3, 2_000
		job.Streams = append(job.Streams, s)
	}
	w.Jobs = []JobSpec{job}
	return w
}

// originNode is a node with one source, the origin, and a cache.
func originNode(law Law, link int, cacheBytes int64) NodeSpec {
	n := NodeSpec{CacheBytes: cacheBytes}
	n.Sources[prefetch.Origin] = SourceSpec{Law: law, Link: link}
	return n
}

// addDataset adds a dataset that scenarios know to be valid, and returns its number.
func (w *World) addDataset(spec LayoutSpec, keep bool) int {
	w.Datasets = append(w.Datasets, DatasetSpec{Layout: must(NewLayout(spec)), Seed: w.Seed, Keep: keep})
	return len(w.Datasets) - 1
}

// stream is a stream over all of a dataset, in permuted epochs, from the origin.
func (w *World) stream(dataset int, seed uint64, perSample time.Duration) StreamSpec {
	order := must(NewOrder(OrderSpec{Seed: seed, Samples: w.Datasets[dataset].Layout.Samples()}))
	return StreamSpec{Dataset: dataset, Order: order, Source: prefetch.Origin, Batch: 1, PerSample: perSample}
}

func seconds(n int64) prefetch.Time { return prefetch.Time(n * int64(time.Second)) }

// must is for specs that are constants.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
