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

// WeightsScenario is three jobs of the weights 1, 2 and 4 that need 50, 50 and 100 MB/s, in
// batches of 16, over one link of 0.8 times their sum, for two minutes of which the first
// 20 s are warm-up. None has what it needs, so that all should have 1 : 2 : 4.
func WeightsScenario() *World {
	w := sharedLink(7, 160e6)
	for i, perSample := range []time.Duration{2 * time.Millisecond, 2 * time.Millisecond, time.Millisecond} {
		w.addShared(uint64(i), float64(int(1)<<i), perSample)
	}
	return w
}

// ReserveScenario is four jobs that need 50 MB/s each over one link of 160 MB/s, of which
// they are to leave a share for others, for two minutes of which the first 20 s are warm-up.
func ReserveScenario(reserve float64) *World {
	w := sharedLink(8, 160e6)
	w.Links[0].Reserve = reserve
	for i := range uint64(4) {
		w.addShared(i, 1, 2*time.Millisecond)
	}
	return w
}

// sharedLink is a world of one link to the origin and no jobs yet.
func sharedLink(seed uint64, bytesPerSecond float64) *World {
	w := &World{Seed: seed, Until: seconds(120), From: seconds(20)}
	w.Links = []LinkSpec{{BytesPerSecond: bytesPerSecond}}
	w.Nodes = []NodeSpec{originNode(Lognormal{40 * time.Millisecond, 0.5}, 0, 0)}
	return w
}

// addShared adds a job with a dataset of its own, in batches of 16.
func (w *World) addShared(order uint64, weight float64, perSample time.Duration) {
	dataset := w.addDataset(LayoutSpec{Samples: 50_000, SampleBytes: scenarioSample, SamplesPerChunk: 1}, false)
	s := w.stream(dataset, order, perSample)
	s.Batch, s.WarmUp = 16, int64(w.From.Sub(0)/perSample)
	w.Jobs = append(w.Jobs, JobSpec{Weight: weight, Streams: []StreamSpec{s}})
}

// CacheScenario is one job and a cache of the share c of its dataset, as KeepScenario, with
// a source that is slow to answer: those that the cache lacks are few, and far apart.
func CacheScenario(c float64) *World {
	w := KeepScenario(c)
	w.Nodes[0].Sources[prefetch.Origin].Law = Lognormal{40 * time.Millisecond, 1}
	return w
}

// ChunksScenario is one job that reads 64 samples of 100 KB a chunk, in batches of 32 and
// three epochs without a cache: Permuted wants samples of any chunk, Windowed those of 16
// chunks at a time.
func ChunksScenario(kind OrderKind) *World {
	const samples, perChunk = 40_000, 64
	w := &World{Seed: 9, Links: []LinkSpec{{RequestBytesPerSecond: 100e6}}}
	w.Nodes = []NodeSpec{originNode(Lognormal{40 * time.Millisecond, 0.5}, 0, 0)}
	dataset := w.addDataset(LayoutSpec{Samples: samples, SampleBytes: scenarioSample, SamplesPerChunk: perChunk}, false)
	s := w.stream(dataset, 1, time.Millisecond)
	s.Order = must(NewOrder(OrderSpec{Kind: kind, Seed: 1, Samples: samples, Window: 16 * perChunk}))
	s.Batch, s.Epochs, s.WarmUp = 32, 3, 2_000
	w.Jobs = []JobSpec{{Streams: []StreamSpec{s}}}
	return w
}

// ranksChunk is how large the chunks of RanksScenario are.
const ranksChunk = 8 << 20

// RanksScenario is eight jobs of four ranks on one node without a cache. Each job has a
// dataset in chunks of 8 MiB with so many samples each, which it reads in windows of four
// chunks, and each rank takes 100 MB/s, in batches of two chunks or 32 samples.
func RanksScenario(perChunk int64) *World {
	const chunks, jobs, ranks = 400, 8, 4
	w := &World{Seed: 10, From: seconds(5), Links: []LinkSpec{{RequestBytesPerSecond: 500e6}}}
	w.Nodes = []NodeSpec{originNode(Lognormal{40 * time.Millisecond, 0.5}, 0, 0)}
	size := ranksChunk / perChunk
	batch := min(32, 2*perChunk)
	for i := range uint64(jobs) {
		dataset := w.addDataset(LayoutSpec{Samples: chunks * perChunk, SampleBytes: size, SamplesPerChunk: perChunk}, false)
		job := JobSpec{}
		for rank := range int64(ranks) {
			s := w.stream(dataset, i, time.Duration(float64(size)/100e6*float64(time.Second)))
			s.Order = must(NewOrder(OrderSpec{
				Kind: Windowed, Seed: i, Samples: chunks * perChunk, Window: 4 * perChunk, Rank: rank, Ranks: ranks, Batch: batch,
			}))
			s.Batch, s.Epochs, s.WarmUp = batch, 3, s.Order.Len(0)/4
			job.Streams = append(job.Streams, s)
		}
		w.Jobs = append(w.Jobs, job)
	}
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
