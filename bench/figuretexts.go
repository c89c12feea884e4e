package bench

import (
	"fmt"
	"slices"
)

// FigureText says what a figure is, for manuals.
type FigureText struct {
	Name, Unit, What string

	target *target
}

// Target is the bound that the figure is held against, "" for none.
func (f FigureText) Target() string { return f.target.text() }

// figureOfText makes the figure of that name, with its unit, target and text from texts.
// note says what is special in this run; "" is nothing.
func figureOfText(texts []FigureText, name string, s Spread, note string) Figure {
	i := slices.IndexFunc(texts, func(f FigureText) bool { return f.Name == name })
	if i < 0 {
		panic(fmt.Sprintf("bench: the figure %q has no text", name))
	}
	of := texts[i]
	text := of.What
	if note != "" {
		text += " (" + note + ")"
	}
	return figureOf(s, of.Unit, of.target, text)
}

// PrefetchFigures are the figures of Prefetch, in the order of its steps.
func PrefetchFigures() []FigureText { return prefetchFigures }

var prefetchFigures = []FigureText{
	{"cold_disk_stall_share", "ratio", "share of its time that a consumer waits which needs 80 % of what a bare loop reads of the same files, all of them out of the page cache; the worse of files and tar shards", atMost(0.02)},
	{"cold_disk_stall_share_without_foresight", "ratio", "the same with prefetch.enabled: false", nil},
	{"cold_disk_device", "MB/s", "what the bare loop reads: samples of 100 KB in random order, 32 under way, through an empty page cache", nil},

	{"depth_stall_share", "ratio", "share of its time that a job waits, under the worst of four laws of latency", atMost(stallGoal)},
	{"depth_waste_share", "ratio", "bytes fetched for nothing by bytes used, under the worst law", atMost(0.02)},
	{"depth_memory_ratio", "ratio", "mean depth of the window by the least fixed depth that stalls at most 0.01, which hindsight finds", atMost(1.3)},
	{"depth_stall_share_no_hedges", "ratio", "the stall share where no fetch is made a second time", nil},
	{"depth_memory_ratio_no_hedges", "ratio", "the memory ratio where no fetch is made a second time", nil},
	{"depth_stall_share_fixed_2", "ratio", "the stall share of a window of two batches, which is torch's default a worker", nil},
	{"depth_stall_share_mean", "ratio", "the stall share of a window as deep as the mean latency asks for", nil},

	{"budget_stall_share", "ratio", "share of its time that the worst of four jobs waits on a link of 1.1 times what they need", atMost(stallGoal)},
	{"budget_fairness", "ratio", "greatest distance of a job's rate from its max-min fair one on a link of 0.8 times what they need", atMost(0.05)},
	{"budget_fairness_unmanaged", "ratio", "the same with windows as deep as the mean latency asks for, where nobody divides the link: the quicker job has the deeper window", nil},
	{"budget_fairness_fixed", "ratio", "the same with windows of 128 samples: equal windows have equal parts of a link", nil},

	{"keep_hit_error", "ratio", "greatest distance of the hit ratio from the share of the dataset that the cache can hold", atMost(0.01)},
	{"keep_hit_ratio_25", "ratio", "hits with a cache of 25 % of the dataset", nil},
	{"keep_hit_ratio_50", "ratio", "hits with a cache of 50 % of the dataset", nil},
	{"keep_hit_ratio_75", "ratio", "hits with a cache of 75 % of the dataset", nil},
	{"keep_hit_ratio_90", "ratio", "hits with a cache of 90 % of the dataset", nil},
	{"keep_second_dataset_share", "ratio", "how near to its share of the cache a second dataset is after its first epoch; more than the share counts as less", atLeast(0.99)},

	{"weights_error", "ratio", "greatest distance of a job's rate from its weighted fair one: weights 1, 2 and 4 on a link of 0.8 times what the jobs need", atMost(0.05)},
	{"weights_error_unmanaged", "ratio", "the same with windows of 128 samples, where nobody divides the link", nil},
	{"reserve_used", "ratio", "what four jobs that want more take of what a reserve of a quarter of the link leaves them: less than 1 is lost", atLeast(0.95)},
	{"reserve_held", "ratio", "their rate in the busiest second by what the reserve leaves them: more than 1 is time that they made up for", atMost(1.05)},
	{"reserve_held_unmanaged", "ratio", "the same with windows of 128 samples: more than 1 takes of the reserve", nil},
	{"cache_99_stall_share", "ratio", "share of its time that a job waits whose cache holds 99 % of its dataset, after the first epoch", atMost(stallGoal)},
	{"cache_99_hit_ratio", "ratio", "hits of that job in the last of three epochs", atLeast(0.98)},
	{"cache_99_stall_share_fixed_2", "ratio", "the stall share with a window of two samples", nil},

	{"chunk_read_amplification", "ratio", "bytes moved by bytes needed where a chunk holds 64 samples and the order is shuffled in windows", atMost(1.05)},
	{"chunk_read_amplification_fixed", "ratio", "the same with a window of 128 samples", nil},
	{"chunk_stall_share", "ratio", "share of its time that the job waits in that world", atMost(stallGoal)},
	{"chunk_read_amplification_shuffled", "ratio", "bytes moved by bytes needed with the same chunks in a global shuffle, where a batch's samples lie in as many chunks: ranges alone would move 1, in more time", nil},
	{"chunk_stall_share_shuffled_fixed", "ratio", "share of its time that the job waits in that world with a window of 128 samples", nil},
	{"chunk_stall_share_shuffled", "ratio", "share of its time that the job waits in that world", atMost(stallGoal)},
	{"many_ranks_stall_share", "ratio", "share of its time that the worst of 32 ranks of 8 jobs waits: a sample a chunk of 8 MiB, windows of 1 GiB together", atMost(stallGoal)},
	{"many_ranks_stall_share_fixed_2", "ratio", "the same with windows of two samples", nil},
	{"many_ranks_stall_share_small", "ratio", "the stall share with 84 samples a chunk", atMost(stallGoal)},
	{"many_ranks_stall_share_small_even", "ratio", "the same with windows that divide the memory evenly, each sample a request of its own: 84 times as many requests, which cost nothing in this world", nil},
	{"many_ranks_stall_share_small_roomy", "ratio", "the stall share with 1.5 GiB: whole chunks stay until their last sample is taken", nil},

	{"plan_us_per_sample", "µs", "CPU time of planning, orders and places included: 10^8 samples, 8 jobs; the worse of 1 and 64 samples a chunk", atMost(2)},
	{"plan_bytes_per_chunk", "bytes", "memory of the planner, in that case", atMost(24)},
	{"plan_bytes_per_sample_torch_order", "bytes", "memory that torch's order takes more than Stoker's own: two streams of equal seeds, while they need this epoch and the next; to two decimals", atMost(8)},
	{"plan_p9999_call_us", "µs", "CPU time that 9,999 of 10,000 calls of the planner stay below; the slowest kind of call", nil},
	{"plan_worst_call_us", "µs", "CPU time of the longest of a million calls or more, which the machine's other work lengthens", nil},
}

// CompareFigures are the figures of Compare, case by case.
func CompareFigures() []FigureText { return compareFigures }

var compareFigures = []FigureText{
	{"raw_share_of_bare_loop", "ratio", "Stoker's speed on 100 KB files by that of a bare loop of open, pread and close with as many threads", atLeast(0.85)},
	{"raw_share_of_consumed_bare_loop", "ratio", "the same by a bare loop whose batches somebody touches", nil},
	{"raw_vs_best_workers", "ratio", "the same by the fastest DataLoader with workers", atLeast(4)},
	{"raw_vs_zero_workers", "ratio", "the same by DataLoader without workers and with its default collate", atLeast(1.2)},
	{"raw_vs_best_zero_workers", "ratio", "the same by DataLoader without workers that reads straight into the batch", nil},
	{"raw_vs_handmade_ring", "ratio", "the same by a shared ring made by hand in DataLoader's workers", nil},
	{"raw_cpu_s_per_gb", "CPU s/GB", "CPU time of daemon and trainer, without touching the bytes", atMost(0.30)},
	{"raw_cpu_vs_best_workers", "ratio", "that by the CPU time of the fastest DataLoader with workers", atMost(0.25)},
	{"raw_share_of_bare_loop_as_read", "ratio", "share of the bare loop with files that came back from the device, in small pages", nil},
	{"raw_vs_best_workers_as_read", "ratio", "speed by the fastest DataLoader with workers, with such files", nil},
	{"raw_cpu_s_per_gb_as_read", "CPU s/GB", "CPU time with such files", nil},
	{"raw_cpu_vs_best_workers_as_read", "ratio", "CPU time by the fastest DataLoader with workers, with such files", nil},

	{"tokens_share_of_bare_loop", "ratio", "Stoker's speed on rows of 2049 tokens by that of a bare loop of preads", atLeast(0.70)},
	{"tokens_share_of_consumed_bare_loop", "ratio", "the same by a bare loop whose batches somebody touches", nil},
	{"tokens_vs_memmap", "ratio", "the same by nanoGPT's get_batch, equal dtype", atLeast(4)},
	{"tokens_vs_memmap_kept", "ratio", "the same by get_batch with one map for all batches", nil},
	{"tokens_int64_vs_memmap_int64", "ratio", "the same as int64, by get_batch as it stands", nil},
	{"tokens_vs_best_workers", "ratio", "the same by the fastest DataLoader with workers", nil},

	{"tar_share_of_bare_loop", "ratio", "Stoker's speed on 100 KB members of tar shards by that of a bare loop of preads", atLeast(0.85)},
	{"tar_share_of_consumed_bare_loop", "ratio", "the same by a bare loop whose batches somebody touches", nil},
	{"tar_vs_tarfile_workers", "ratio", "the same by the fastest tarfile reader with workers", atLeast(4)},
	{"tar_vs_tarfile", "ratio", "the same by the fastest tarfile reader, with workers or without", nil},
	{"tar_vs_webdataset", "ratio", "the same by the fastest webdataset with workers", atLeast(4)},
	{"tar_vs_webdataset_any", "ratio", "the same by the fastest webdataset, with workers or without", nil},
	{"tar_cpu_s_per_gb", "CPU s/GB", "CPU time of daemon and trainer, without touching the bytes", atMost(0.30)},
	{"tar_4k_share_of_bare_loop", "ratio", "Stoker's speed on 4 KiB members by that of a bare loop of preads", atLeast(0.6)},
	{"tar_4k_share_of_consumed_bare_loop", "ratio", "the same by a bare loop whose batches somebody touches", nil},
	{"tar_4k_vs_tarfile_workers", "ratio", "the same by the fastest tarfile reader with workers", nil},
	{"tar_4k_vs_tarfile", "ratio", "the same by the fastest tarfile reader, with workers or without", nil},
	{"tar_4k_vs_webdataset", "ratio", "the same by the fastest webdataset with workers", nil},
	{"tar_4k_vs_webdataset_any", "ratio", "the same by the fastest webdataset, with workers or without", nil},
	{"tar_4k_cpu_s_per_gb", "CPU s/GB", "CPU time of daemon and trainer, without touching the bytes", nil},

	{"index_scan_share", "ratio", "speed of a scan of tar shards, to the finished index, by bare preads of the pages that hold the headers: the worse of the members of 100 KB and of 4 KiB, and of these only", atLeast(0.80)},
	{"index_scan_share_100k", "ratio", "the same for the members of 100 KB", nil},
	{"index_scan_share_4k", "ratio", "the same for the members of 4 KiB", nil},
	{"index_scan_share_1e6", "ratio", "the same for 10^6 members of 16 bytes. It is below 0.8, and no target holds it there: several headers share a page, so that few reads bring much to parse", nil},
	{"index_vs_tarfile", "ratio", "how often the index of 10^6 tiny members is made while Python's tarfile lists them", atLeast(10)},
	{"index_1e6_s", "s", "time for that index", nil},
	{"lint_vs_scan", "ratio", "time of dataset lint by that of the scan: the worst of the three sets", atMost(2)},
	{"lint_vs_scan_100k", "ratio", "the same for the members of 100 KB", nil},
	{"lint_vs_scan_4k", "ratio", "the same for the members of 4 KiB", nil},
	{"lint_vs_scan_1e6", "ratio", "the same for the tiny members", nil},

	{"first_batch_ms_1e4", "ms", "from Dataset(...) to the first batch in a new process: 10^4 files", atMost(100)},
	{"first_batch_ms_1e7", "ms", "the same with 10^7 rows of tokens", atMost(100)},
	{"first_batch_ms_tar", "ms", "the same with 262,144 members of tar shards", nil},
	{"open_1e8_ms", "ms", "the same with 10^8 rows of tokens", atMost(1000)},
	{"open_1e8_daemon_ms", "ms", "the daemon's answer to open, with 10^8 rows", atMost(1000)},
	{"order_bytes_1e8", "bytes", "heap of a session on 10^8 rows more than of one on 10^7", atMost(64 << 10)},
	{"daemon_pss_mb", "MiB", "memory of the daemon while it serves files: its bound is 64 MiB, the ring, and 16 bytes a sample", nil},
	{"tar_4k_daemon_pss_mb", "MiB", "the same while it serves small members", nil},
	{"daemon_pss_growth_mb", "MiB", "growth of the daemon's memory over 10^6 small batches", atMost(4)},
	{"go_allocs_per_batch", "allocations", "allocations of the daemon a batch", atMost(0.05)},
	{"small_batches_per_s", "batches/s", "batches of 8 rows of 16 tokens", nil},
}
