package bench

// FlashFigures are the figures of Flash, in the order of its steps.
func FlashFigures() []FigureText { return flashFigures }

var flashFigures = []FigureText{
	{"sequential_share", "ratio", "rate of whole batches of 1 MiB pieces in their order by that of a bare loop, of pread or of io_uring, with as many reads under way, both past the page cache", atLeast(0.90)},
	{"sequential_share_read_at", "ratio", "the same where each piece is read by a call of its own", nil},
	{"sequential_share_pread", "ratio", "the same as batches where goroutines wait in pread(2) in place of io_uring", nil},
	{"sequential_share_page_cache", "ratio", "the same as batches through the page cache, which was emptied before: what flash.direct: false does", nil},
	{"sequential_device", "MB/s", "what the quicker bare loop reads", nil},
	{"shuffled_100k_share", "ratio", "rate of whole batches of 100 KiB pieces in random order by that of the bare loop; the worse of chunks of that size and of members of tar shards in chunks of 8 MiB", atLeast(0.85)},
	{"shuffled_100k_share_read_at", "ratio", "the same where each piece is read by a call of its own", nil},
	{"shuffled_100k_share_pread", "ratio", "the same as batches where goroutines wait in pread(2) in place of io_uring", nil},
	{"shuffled_100k_share_page_cache", "ratio", "the same as batches through the page cache", nil},
	{"shuffled_100k_device", "MB/s", "what the quicker bare loop reads", nil},
	{"shuffled_4k_share", "ratio", "the same with pieces of 4 KiB", atLeast(0.7)},
	{"shuffled_4k_share_read_at", "ratio", "the same where each piece is read by a call of its own", nil},
	{"shuffled_4k_share_pread", "ratio", "the same as batches where goroutines wait in pread(2) in place of io_uring", nil},
	{"shuffled_4k_share_page_cache", "ratio", "the same as batches through the page cache", nil},
	{"shuffled_4k_device", "MB/s", "what the quicker bare loop reads", nil},
	{"first_read_share", "ratio", "rate of the first reads after a start, whose bytes are checked, by that of later ones: chunks of 100 KiB", nil},
	{"fill_share", "ratio", "rate of filling chunks of 8 MiB until all are durable by that of a bare loop that writes as much to a file with its room and makes each 8 MiB durable; the quicker of O_DIRECT and the page cache", atLeast(0.8)},
	{"put_share", "ratio", "the same for puts, four at once", nil},
	{"fill_device", "MB/s", "what the bare loop writes", nil},
	{"put_p50_ms", "ms", "time of a put of 1 MiB, one after another: the median", nil},
	{"put_p99_ms", "ms", "the same: 99 of 100 take less", nil},
	{"write_amplification", "ratio", "bytes that the process had written by bytes of chunks, half of which came into the room of others; the worse of chunks of 1 MiB and of 8 MiB", atMost(1.05)},
	{"startup_s_1e6_chunks", "s", "time to open a directory of 10^6 chunks, nothing of which is in the page cache; the slowest of several chunk sizes", atMost(2)},
	{"pss_mb_1e6_chunks", "MiB", "memory of a process that has opened it and does nothing else; the most", atMost(128)},
	{"fragmentation_lost_share", "ratio", "room that neither holds chunks nor takes what comes next, after 24 simulated hours of arrivals at 95 % full; the worst of four mixes", atMost(0.05)},
}
