package api

import (
	"bytes"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttpadaptor"
)

// newRegistry holds every metric of one server. Values are read from the node
// when they are asked for, never kept twice.
func newRegistry(node Node, requests *requestCounter) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		newNodeCollector(node),
		requests,
		newMemoryCollector(),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return registry
}

func scrapeHandler(registry *prometheus.Registry, logger *slog.Logger) fasthttp.RequestHandler {
	return fasthttpadaptor.NewFastHTTPHandler(promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog:      slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
		ErrorHandling: promhttp.ContinueOnError,
	}))
}

// metric is one family of the node's metrics and how to read it from a snapshot.
type metric struct {
	description *prometheus.Desc
	kind        prometheus.ValueType
	read        func(s *Stats, emit func(value float64, label ...string))
}

// nodeCollector exports Node.Stats.
type nodeCollector struct {
	node    Node
	build   *prometheus.Desc
	metrics []metric
	syncs   *prometheus.Desc // a histogram, which metric is not for
}

func newNodeCollector(node Node) *nodeCollector {
	return &nodeCollector{
		node: node,
		build: prometheus.NewDesc("stoker_build_info", "Which stokerd this is; always 1.",
			[]string{"version", "revision", "go_version"}, nil),
		metrics: slices.Concat(trafficMetrics(), sessionMetrics(), datasetMetrics(), hintMetrics(), foresightMetrics(), jobMetrics(), traceMetrics(), flashMetrics()),
		syncs:   newSyncHistogram(),
	}
}

func counter(name, help string, read func(*Stats, func(float64, ...string)), labels ...string) metric {
	return metric{prometheus.NewDesc(name, help, labels, nil), prometheus.CounterValue, read}
}

func gauge(name, help string, read func(*Stats, func(float64, ...string)), labels ...string) metric {
	return metric{prometheus.NewDesc(name, help, labels, nil), prometheus.GaugeValue, read}
}

func trafficMetrics() []metric {
	return []metric{
		counter("stoker_batches_total", "Batches delivered to trainers.",
			func(s *Stats, emit func(float64, ...string)) { emit(float64(s.Traffic.Batches)) }),
		counter("stoker_samples_total", "Samples delivered to trainers.",
			func(s *Stats, emit func(float64, ...string)) { emit(float64(s.Traffic.Samples)) }),
		counter("stoker_source_bytes_total", "Source bytes read for batches, by the route they came.",
			func(s *Stats, emit func(float64, ...string)) {
				emit(float64(s.Traffic.PageCacheBytes), "page_cache")
				emit(float64(s.Traffic.DiskBytes), "disk")
			}, "route"),
		counter("stoker_oversized_batches_total", "Batches larger than a slot, delivered in memory of their own.",
			func(s *Stats, emit func(float64, ...string)) { emit(float64(s.Traffic.OversizedBatches)) }),
		counter("stoker_copied_batches_total", "Batches copied because the trainer kept too many.",
			func(s *Stats, emit func(float64, ...string)) { emit(float64(s.Traffic.CopiedBatches)) }),
		counter("stoker_wait_seconds_total", "Time that trainers waited for batches.",
			func(s *Stats, emit func(float64, ...string)) { emit(s.Stall.TotalSeconds) }),
		counter("stoker_stall_seconds_total", "Time that trainers waited for batches, by what they waited on.",
			func(s *Stats, emit func(float64, ...string)) {
				emit(s.Stall.DiskSeconds, "disk")
				emit(s.Stall.IndexSeconds, "index")
				emit(s.Stall.OrderSeconds, "order")
				emit(s.Stall.RingSeconds, "ring")
				emit(s.Stall.WakeSeconds, "wake")
				emit(s.Stall.TransformSeconds, "transform")
			}, "cause"),
	}
}

func sessionMetrics() []metric {
	return []metric{
		gauge("stoker_sessions", "Sessions open.",
			func(s *Stats, emit func(float64, ...string)) { emit(float64(s.SessionsOpen)) }),
		counter("stoker_sessions_opened_total", "Sessions opened.",
			func(s *Stats, emit func(float64, ...string)) { emit(float64(s.SessionsOpened)) }),
		counter("stoker_leases_ended_total", "Sessions ended, by what ended their lease.",
			func(s *Stats, emit func(float64, ...string)) { emitKnown(LeaseReasons(), s.LeasesEnded, emit) }, "reason"),
		gauge("stoker_ring_bytes", "Memory of all rings.",
			func(s *Stats, emit func(float64, ...string)) { emit(float64(s.Rings.Bytes)) }),
		gauge("stoker_ring_slots", "Slots of all rings: ready = filled and not yet taken, held = with the trainer, free = the rest.",
			func(s *Stats, emit func(float64, ...string)) {
				emit(float64(s.Rings.Ready), "ready")
				emit(float64(s.Rings.Held), "held")
				emit(float64(max(s.Rings.Slots-s.Rings.Ready-s.Rings.Held, 0)), "free")
			}, "state"),
		counter("stoker_errors_total", "Errors sent over the session socket, by code.",
			func(s *Stats, emit func(float64, ...string)) {
				var codes []string
				for _, code := range Codes() {
					codes = append(codes, string(code))
				}
				emitKnown(codes, s.Errors, emit)
			}, "code"),
		counter("stoker_session_refused_total", "Connections and requests of the session socket refused for limits or rights.",
			func(s *Stats, emit func(float64, ...string)) { emit(float64(s.Refused)) }),
	}
}

func datasetMetrics() []metric {
	return []metric{
		gauge("stoker_datasets", "Datasets known, by state.",
			func(s *Stats, emit func(float64, ...string)) {
				emitKnown([]string{DatasetReady, DatasetDetached}, s.Datasets, emit)
			}, "state"),
		gauge("stoker_datasets_by_format", "Datasets known, by format.",
			func(s *Stats, emit func(float64, ...string)) { emitKnown(Formats(), s.Formats, emit) }, "format"),
		gauge("stoker_scans", "Datasets that are being indexed.",
			func(s *Stats, emit func(float64, ...string)) { emit(float64(s.ScansRunning)) }),
		counter("stoker_scan_bytes_total", "Source bytes that scans for an index have gone through, read or skipped.",
			func(s *Stats, emit func(float64, ...string)) { emit(float64(s.ScanBytes)) }),
		counter("stoker_scan_samples_total", "Samples that scans for an index have found.",
			func(s *Stats, emit func(float64, ...string)) { emit(float64(s.ScanSamples)) }),
	}
}

// emitKnown emits one value for each known label, zero included, and the rest
// together as "other": the number of series never depends on what clients send.
func emitKnown(known []string, values map[string]int64, emit func(float64, ...string)) {
	other := int64(0)
	for label, value := range values {
		if !slices.Contains(known, label) {
			other += value
		}
	}
	for _, label := range known {
		emit(float64(values[label]), label)
	}
	if other != 0 {
		emit(float64(other), "other")
	}
}

// Describe implements prometheus.Collector.
func (c *nodeCollector) Describe(out chan<- *prometheus.Desc) {
	out <- c.build
	for _, m := range c.metrics {
		out <- m.description
	}
	out <- c.syncs
}

// Collect implements prometheus.Collector.
func (c *nodeCollector) Collect(out chan<- prometheus.Metric) {
	version := c.node.Version()
	out <- prometheus.MustNewConstMetric(c.build, prometheus.GaugeValue, 1, version.Version, version.Revision, version.Go)
	stats := c.node.Stats()
	for _, m := range c.metrics {
		m.read(&stats, func(value float64, labels ...string) {
			out <- prometheus.MustNewConstMetric(m.description, m.kind, value, labels...)
		})
	}
	collectSyncs(c.syncs, stats.Flash, out)
}

// requestCounter counts answers by door and status. Both label sets are bounded
// by this package.
type requestCounter struct {
	description *prometheus.Desc
	mu          struct {
		sync.Mutex
		answers map[requestKey]int64
	}
}

type requestKey struct {
	door   string
	status int
}

func newRequestCounter() *requestCounter {
	r := &requestCounter{description: prometheus.NewDesc("stoker_api_requests_total",
		"Requests answered by the HTTP API.", []string{"door", "status"}, nil)}
	r.mu.answers = map[requestKey]int64{}
	return r
}

func (r *requestCounter) count(door string, status int) {
	r.mu.Lock()
	r.mu.answers[requestKey{door, status}]++
	r.mu.Unlock()
}

// Describe implements prometheus.Collector.
func (r *requestCounter) Describe(out chan<- *prometheus.Desc) { out <- r.description }

// Collect implements prometheus.Collector.
func (r *requestCounter) Collect(out chan<- prometheus.Metric) {
	r.mu.Lock()
	answers := maps.Clone(r.mu.answers)
	r.mu.Unlock()
	for key, number := range answers {
		out <- prometheus.MustNewConstMetric(r.description, prometheus.CounterValue, float64(number), key.door, strconv.Itoa(key.status))
	}
}

// memoryCollector exports the process's proportional set size: unlike resident
// memory it counts pages shared with trainers once over all processes.
type memoryCollector struct{ description *prometheus.Desc }

func newMemoryCollector() memoryCollector {
	return memoryCollector{prometheus.NewDesc("stoker_process_pss_bytes",
		"Proportional set size of the daemon, rings included.", nil, nil)}
}

// Describe implements prometheus.Collector.
func (m memoryCollector) Describe(out chan<- *prometheus.Desc) { out <- m.description }

// Collect implements prometheus.Collector. Without /proc it exports nothing.
func (m memoryCollector) Collect(out chan<- prometheus.Metric) {
	text, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		return
	}
	if pss, ok := parsePSS(text); ok {
		out <- prometheus.MustNewConstMetric(m.description, prometheus.GaugeValue, float64(pss))
	}
}

// parsePSS reads the line "Pss: N kB" of smaps_rollup (proc(5)) as bytes.
func parsePSS(text []byte) (int64, bool) {
	for line := range bytes.Lines(text) {
		fields := bytes.Fields(line)
		if len(fields) == 3 && string(fields[0]) == "Pss:" && string(fields[2]) == "kB" {
			kilobytes, err := strconv.ParseInt(string(fields[1]), 10, 64)
			return kilobytes << 10, err == nil
		}
	}
	return 0, false
}
