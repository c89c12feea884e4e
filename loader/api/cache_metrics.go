package api

import (
	"math/bits"
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// perDevice reads a family with the label "device" first: a path of the configuration.
func perDevice(read func(d *CacheDevice, emit func(float64, ...string))) func(*Stats, func(float64, ...string)) {
	return func(s *Stats, emit func(float64, ...string)) {
		for i := range s.Flash {
			d := &s.Flash[i]
			read(d, func(value float64, labels ...string) { emit(value, slices.Insert(labels, 0, d.Path)...) })
		}
	}
}

func flashMetrics() []metric {
	return slices.Concat(flashStateMetrics(), flashRoomMetrics(), flashTrafficMetrics(), flashFaultMetrics(), flashScrubMetrics())
}

func flashStateMetrics() []metric {
	return []metric{
		gauge("stoker_flash_device_state", "Whether a device is in this state, 1 or 0: healthy, read_only where nothing more is written, or failed.",
			perDevice(func(d *CacheDevice, emit func(float64, ...string)) {
				for _, state := range CacheStates() {
					emit(truth(d.State == state), state)
				}
			}), "device", "state"),
		gauge("stoker_flash_full", "Whether the device's file system has less room than the limit, 1 or 0.",
			perDevice(func(d *CacheDevice, emit func(float64, ...string)) { emit(truth(d.Full)) }), "device"),
		gauge("stoker_flash_limit_bytes", "What the files of a device may take.",
			perDevice(func(d *CacheDevice, emit func(float64, ...string)) { emit(float64(d.LimitBytes)) }), "device"),
		gauge("stoker_flash_segments", "Segments, by state: nothing more is written to those that are retired.",
			perDevice(func(d *CacheDevice, emit func(float64, ...string)) {
				emit(float64(d.Segments-d.Retired), "used")
				emit(float64(d.Retired), "retired")
			}), "device", "state"),
	}
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func flashRoomMetrics() []metric {
	return []metric{
		gauge("stoker_flash_room_bytes", "What the files of a device take, by what for.",
			perDevice(func(d *CacheDevice, emit func(float64, ...string)) {
				emit(float64(d.Room.ChunkBytes), "chunks")
				emit(float64(d.Room.PaddingBytes), "padding")
				emit(float64(d.Room.FreeExtentBytes), "free_extents")
				emit(float64(d.Room.FreeSpanBytes), "free_spans")
				emit(float64(d.Room.BusyBytes), "busy")
				emit(float64(d.Room.LostBytes), "lost")
				emit(float64(d.Room.OwnBytes), "own")
			}), "device", "use"),
		gauge("stoker_flash_chunks", "Chunks on a device: put ones are kept until they are deleted, filled ones are copies.",
			perDevice(func(d *CacheDevice, emit func(float64, ...string)) {
				emit(float64(d.Put.Chunks), "put")
				emit(float64(d.Filled.Chunks), "filled")
			}), "device", "kind"),
		gauge("stoker_flash_chunk_bytes", "Bytes of the chunks on a device.",
			perDevice(func(d *CacheDevice, emit func(float64, ...string)) {
				emit(float64(d.Put.Bytes), "put")
				emit(float64(d.Filled.Bytes), "filled")
			}), "device", "kind"),
		gauge("stoker_flash_extents", "Extents of a device's size classes up to so many bytes, and more than half as many: with a chunk, free, or busy between the two.",
			perDevice(emitExtents), "device", "up_to_bytes", "state"),
	}
}

// emitExtents adds classes up by powers of two: there are some hundred of them.
func emitExtents(d *CacheDevice, emit func(float64, ...string)) {
	type extents struct{ all, free, chunks int64 }
	var sums [64]extents
	for _, c := range d.Classes {
		sum := &sums[bits.Len64(uint64(max(c.ExtentBytes, 1)-1))]
		sum.all, sum.free, sum.chunks = sum.all+c.Extents, sum.free+c.Free, sum.chunks+c.Chunks
	}
	for power, sum := range sums {
		if sum.all == 0 {
			continue
		}
		upTo := strconv.FormatUint(1<<power, 10)
		emit(float64(sum.chunks), upTo, "chunk")
		emit(float64(sum.free), upTo, "free")
		emit(float64(max(0, sum.all-sum.free-sum.chunks)), upTo, "busy")
	}
}

func flashTrafficMetrics() []metric {
	return []metric{
		counter("stoker_flash_reads_total", "Reads of a device's files.",
			perDevice(func(d *CacheDevice, emit func(float64, ...string)) { emit(float64(d.Reads.Reads)) }), "device"),
		counter("stoker_flash_read_bytes_total", "Bytes read of a device's files, those in the page cache included.",
			perDevice(func(d *CacheDevice, emit func(float64, ...string)) { emit(float64(d.Reads.Bytes)) }), "device"),
		counter("stoker_flash_checked_bytes_total", "Bytes whose CRC32C was compared, by reads or by the scrubber.",
			perDevice(func(d *CacheDevice, emit func(float64, ...string)) { emit(float64(d.Reads.CheckedBytes)) }), "device"),
		counter("stoker_flash_writes_total", "Writes of chunks, or of blocks of them.",
			perDevice(func(d *CacheDevice, emit func(float64, ...string)) { emit(float64(d.Writes.Writes)) }), "device"),
		counter("stoker_flash_written_bytes_total", "Bytes written to a device's files, by what of: payload, padding up to the next page, or records, of which each is counted as a page.",
			perDevice(func(d *CacheDevice, emit func(float64, ...string)) {
				emit(float64(d.Writes.PayloadBytes), "payload")
				emit(float64(d.Writes.PaddingBytes), "padding")
				emit(float64(d.Writes.RecordBytes), "records")
			}), "device", "part"),
		counter("stoker_flash_records_total", "Records written.",
			perDevice(func(d *CacheDevice, emit func(float64, ...string)) { emit(float64(d.Writes.Records)) }), "device"),
		counter("stoker_flash_evicted_chunks_total", "Copies that were dropped, to make room or because somebody asked for it.",
			perDevice(func(d *CacheDevice, emit func(float64, ...string)) { emit(float64(d.EvictedTotal)) }), "device"),
		counter("stoker_flash_evicted_bytes_total", "Bytes of the copies that were dropped.",
			perDevice(func(d *CacheDevice, emit func(float64, ...string)) { emit(float64(d.EvictedBytes)) }), "device"),
	}
}

func flashFaultMetrics() []metric {
	return []metric{
		counter("stoker_flash_errors_total", "Errors of a device, by what failed.",
			perDevice(func(d *CacheDevice, emit func(float64, ...string)) { emitKnown(CacheSteps(), d.Errors, emit) }), "device", "step"),
		counter("stoker_flash_events_total", "Events of a device, by kind. The log and /v1/cache have the last ones.",
			perDevice(func(d *CacheDevice, emit func(float64, ...string)) { emitKnown(CacheEventKinds(), d.Events, emit) }), "device", "kind"),
	}
}

func flashScrubMetrics() []metric {
	return []metric{
		gauge("stoker_flash_scrub_share", "Share of the pass of the scrubber that is behind it; 0 between two.",
			perDevice(func(d *CacheDevice, emit func(float64, ...string)) { emit(d.Scrub.Share) }), "device"),
		gauge("stoker_flash_scrub_speed_bytes", "How much the scrubber may read in a second; 0: it is off.",
			perDevice(func(d *CacheDevice, emit func(float64, ...string)) { emit(float64(d.Scrub.BytesPerSecond)) }), "device"),
		counter("stoker_flash_scrub_passes_total", "Passes of the scrubber that came to their end, over all daemons that had the device.",
			perDevice(func(d *CacheDevice, emit func(float64, ...string)) { emit(float64(d.Scrub.Passes)) }), "device"),
		gauge("stoker_flash_scrub_ended_timestamp_seconds", "When the last whole pass of the scrubber ended; absent before.",
			perDevice(func(d *CacheDevice, emit func(float64, ...string)) {
				if d.Scrub.Ended != nil {
					emit(float64(d.Scrub.Ended.UnixMilli()) / 1000)
				}
			}), "device"),
		gauge("stoker_flash_scrub_bytes", "Bytes that the scrubber read, in the pass that goes on and in the last whole one.",
			perDevice(func(d *CacheDevice, emit func(float64, ...string)) {
				emit(float64(d.Scrub.This.Bytes), "this")
				emit(float64(d.Scrub.Last.Bytes), "last")
			}), "device", "pass"),
		gauge("stoker_flash_scrub_findings", "What the scrubber found, in the pass that goes on and in the last whole one.",
			perDevice(func(d *CacheDevice, emit func(float64, ...string)) {
				for pass, f := range map[string]*CacheFindings{"this": &d.Scrub.This, "last": &d.Scrub.Last} {
					emit(float64(f.CorruptCopies), pass, "corrupt_copies")
					emit(float64(f.CorruptPuts), pass, "corrupt_puts")
					emit(float64(f.Unreadable), pass, "unreadable")
					emit(float64(f.Records), pass, "records")
				}
			}), "device", "pass", "finding"),
	}
}

func newSyncHistogram() *prometheus.Desc {
	return prometheus.NewDesc("stoker_flash_sync_seconds", "How long it took to make what was written to a segment durable.", []string{"device"}, nil)
}

// collectSyncs makes histograms of the devices' latencies.
func collectSyncs(of *prometheus.Desc, devices []CacheDevice, out chan<- prometheus.Metric) {
	for i := range devices {
		l := &devices[i].Syncs
		buckets, below := make(map[float64]uint64, len(l.UpTo)), uint64(0)
		for b, bound := range l.UpTo {
			below += uint64(l.Buckets[b])
			buckets[bound] = below
		}
		out <- prometheus.MustNewConstHistogram(of, uint64(l.Count), l.SumSeconds, buckets, devices[i].Path)
	}
}
