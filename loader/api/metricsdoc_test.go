package api

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

const metricsPath = "../../docs/metrics.md"

// advice is what the reference says of a metric besides what the registry knows.
type advice struct {
	unit   string // where the name does not say it
	text   string
	query  string            // PromQL
	labels map[string]string // of labels whose values are not a short list
}

func advised() map[string]advice {
	all := advisedOnFlash()
	maps.Copy(all, map[string]advice{
		"stoker_build_info": {
			unit:   "always 1",
			text:   "Join it to see which release a change of behaviour came with.",
			query:  `count by (version) (stoker_build_info)`,
			labels: map[string]string{"version": "release", "revision": "revision of the source", "go_version": "Go release"},
		},
		"stoker_batches_total": {text: "Zero while sessions are open: trainers do not ask, or wait. See `stoker_wait_seconds_total`.", query: `sum(rate(stoker_batches_total[1m]))`},
		"stoker_samples_total": {text: "The node's speed.", query: `sum(rate(stoker_samples_total[1m]))`},
		"stoker_source_bytes_total": {
			text:  "`page_cache`: was in memory. `disk`: had to be waited for. A share of disk that stays high after the first epoch means that the dataset does not fit the memory that is left.",
			query: `sum(rate(stoker_source_bytes_total{route="disk"}[5m])) / sum(rate(stoker_source_bytes_total[5m]))`,
		},
		"stoker_oversized_batches_total": {text: "Should stay near zero: each costs memory of its own. Raise `session.ring_bytes_max`, or lower the batch size.", query: `rate(stoker_oversized_batches_total[5m]) / rate(stoker_batches_total[5m])`},
		"stoker_copied_batches_total":    {text: "The trainer holds more batches than the ring can spare. Drop references to old batches, or raise `session.slots`.", query: `rate(stoker_copied_batches_total[5m]) / rate(stoker_batches_total[5m])`},
		"stoker_wait_seconds_total": {
			text:  "The number to watch. Divided by the number of sessions it is the share of time in which trainers stood still; above 0.01, look at the causes.",
			query: `sum(rate(stoker_wait_seconds_total[5m])) / sum(stoker_sessions)`,
		},
		"stoker_stall_seconds_total": {
			text: "What to do about it: `disk`: faster storage, more `io.cold_reads`, larger samples or shards, or memory for the page cache. `index`: the index is on slow storage, see `data_dir`. " +
				"`order`: a defect, please report it. `ring`: the trainer keeps its batches; more `session.slots`. `wake`: the processors are overcommitted. `transform`: a lighter transform, more `transform_threads`, or more cores. " +
				"The causes may sum to less than `stoker_wait_seconds_total`: the rest could not be attributed. `stoker stalls` names the batches and files.",
			query: `sum by (cause) (rate(stoker_stall_seconds_total[5m]))`,
		},
		"stoker_sessions":              {text: "One for each rank. Near `session.sessions_max` new ones are refused."},
		"stoker_sessions_opened_total": {unit: "sessions", text: "A rate that stays high means that trainers start again and again, or open a session for each epoch.", query: `rate(stoker_sessions_opened_total[5m])`},
		"stoker_leases_ended_total": {
			unit:  "sessions",
			text:  "`close`: the trainer closed it. `eof`: its connection ended. `exit`: its process ended. `protocol`: it sent what makes no sense. `shutdown`: the daemon stopped. Many of `exit` are trainers that crash.",
			query: `increase(stoker_leases_ended_total{reason=~"exit|protocol"}[1h])`,
		},
		"stoker_ring_bytes": {text: "Bounded by `session.ring_bytes_total`."},
		"stoker_ring_slots": {
			text:  "Much `ready`: the daemon is ahead, as it should be. All `held`: the trainer keeps its batches. All `free`: the daemon cannot fill them in time, see the causes of stalls.",
			query: `sum by (state) (stoker_ring_slots)`,
		},
		"stoker_datasets":           {text: "A `detached` dataset has lost its directory; `stoker dataset ls` says why.", query: `stoker_datasets{state="detached"} > 0`},
		"stoker_datasets_by_format": {unit: "datasets"},
		"stoker_scans":              {text: "While `stoker dataset add` and `stoker index build` run."},
		"stoker_scan_bytes_total":   {text: "How fast an index is made.", query: `rate(stoker_scan_bytes_total[1m])`},
		"stoker_scan_samples_total": {query: `rate(stoker_scan_samples_total[1m])`},
		"stoker_errors_total": {
			text:  "The codes are those of the [API reference](api/index.html#Code). `corrupt` and `changed` name files in the daemon's log; both deserve an alert.",
			query: `increase(stoker_errors_total{code=~"corrupt|changed|internal"}[10m]) > 0`,
		},
		"stoker_session_refused_total": {unit: "connections and requests", text: "Clients that are not this user, or limits that are too low for the jobs on this node; the log says which.", query: `increase(stoker_session_refused_total[10m])`},
		"stoker_api_requests_total": {
			text:   "429 means that a client asks more often than `api.requests_per_second`.",
			query:  `sum by (door) (rate(stoker_api_requests_total{status="429"}[5m]))`,
			labels: map[string]string{"door": "`api`, `admin`, `tcp`", "status": "HTTP status"},
		},
		"stoker_hints":             {unit: "hints", text: "Announced ahead by `stoker hint`, `stoker.hint` and `stoker.prefetching`, and not over yet."},
		"stoker_hints_added_total": {unit: "hints", query: `rate(stoker_hints_added_total[5m])`},
		"stoker_hints_ended_total": {
			unit: "hints",
			text: "`deleted`: its client said so. `lease`: it was not renewed. `client`: the client's connection or process ended. `dataset`: the dataset was removed. `shutdown`: the daemon stopped. `failed`: it could not be begun. " +
				"Many of `lease` are clients that forget their hints.",
		},
		"stoker_hint_fetched_bytes_total": {text: "At most `prefetch.hints_bytes_max` for each client at a time, and four times as many for all."},
		"stoker_hint_unread_bytes_total": {
			text:  "A high share means that clients announce what they do not read, or read it past Stoker, which the daemon does not see.",
			query: `rate(stoker_hint_unread_bytes_total[1h]) / rate(stoker_hint_fetched_bytes_total[1h])`,
		},
		"stoker_prefetch_samples_total": {
			text: "Only where something is worth reading ahead: while all is in the page cache nothing is counted. Much `late`: the disk is slower than the trainers need, or other work keeps it busy. " +
				"Much `unforeseen`: `prefetch.window_bytes` is too small for what trainers read in the time that the disk takes.",
			query: `sum by (outcome) (rate(stoker_prefetch_samples_total[5m]))`,
		},
		"stoker_prefetch_bytes_total": {text: "Much `found` for long means that most of a dataset is cached, but not all.", query: `sum by (outcome) (rate(stoker_prefetch_bytes_total[5m]))`},
		"stoker_prefetch_wasted_bytes_total": {
			text:  "At most what was brought. Sessions that seek or end often, or windows that are larger than they need to be (`prefetch.epsilon`).",
			query: `stoker_prefetch_wasted_bytes_total / ignoring(outcome) stoker_prefetch_bytes_total{outcome="brought"}`,
		},
		"stoker_prefetch_fetches_total":  {unit: "reads", query: `rate(stoker_prefetch_fetches_total[5m])`},
		"stoker_prefetch_failures_total": {unit: "reads", text: "Files that are gone or have changed, or a disk that fails; the daemon's log says so when a session comes to them.", query: `increase(stoker_prefetch_failures_total[10m]) > 0`},
		"stoker_prefetch_used_bytes_total": {
			text:  "By what was brought: the accuracy.",
			query: `stoker_prefetch_used_bytes_total / ignoring(outcome) stoker_prefetch_bytes_total{outcome="brought"}`,
		},
		"stoker_prefetch_gone_samples_total": {
			text:  "Brought too early: the page cache is too small for what lies between, or others fill it. Less `prefetch.window_bytes`, or more memory.",
			query: `rate(stoker_prefetch_gone_samples_total[5m]) / ignoring(outcome) rate(stoker_prefetch_samples_total{outcome="on_time"}[5m])`,
		},
		"stoker_prefetch_job_share": {
			unit: "1, a share",
			text: "[What the figures mean](operations.md#how-well-reads-are-foreseen). Of the sessions that are open, and of those that `stoker stalls` still tells of. " +
				"The first 16 jobs have series of their own; all others are one, whose `job_id` is empty. Sessions without a job are in none.",
			query:  `stoker_prefetch_job_share{figure="accuracy"} < 0.9`,
			labels: map[string]string{"job_id": "what the clients call the job"},
		},
		"stoker_prefetch_job_seconds": {
			text:   "`early`: from being in the page cache to being read. `late`: from being asked for to being there. Jobs as for `stoker_prefetch_job_share`.",
			query:  `stoker_prefetch_job_seconds{figure="late"}`,
			labels: map[string]string{"job_id": "what the clients call the job"},
		},
		"stoker_prefetch_missed_reads_total": {unit: "samples", text: "What foresight did not prevent.", query: `rate(stoker_prefetch_missed_reads_total[5m])`},
		"stoker_prefetch_early_seconds_total": {
			text:  "By sample: how long what is read ahead waits for its use. It takes page cache for so long.",
			query: `rate(stoker_prefetch_early_seconds_total[5m]) / ignoring(outcome) rate(stoker_prefetch_samples_total{outcome="on_time"}[5m])`,
		},
		"stoker_prefetch_late_seconds_total": {query: `rate(stoker_prefetch_late_seconds_total[5m]) / ignoring(outcome) rate(stoker_prefetch_samples_total{outcome="late"}[5m])`},
		"stoker_prefetch_window_samples":     {text: "Zero where all that is read is in the page cache."},
		"stoker_trace_recordings":            {unit: "recordings", text: "Made by `stoker trace record`; at most four at once."},
		"stoker_trace_accesses_total":        {unit: "accesses", query: `rate(stoker_trace_accesses_total[1m])`},
		"stoker_trace_lost_samples_total":    {text: "The recorder's disk or processor is too slow for what is read here; the recording says how much it lacks. Record fewer datasets or sessions.", query: `increase(stoker_trace_lost_samples_total[10m]) > 0`},
		"stoker_process_pss_bytes":           {text: "Unlike `process_resident_memory_bytes` it counts pages that are shared with trainers once over all processes."},
	})
	return all
}

// advisedOnFlash is the advice on the metrics of flash devices, which all have the label device.
func advisedOnFlash() map[string]advice {
	all := map[string]advice{
		"stoker_flash_device_state": {unit: "1 or 0", text: "It only gets worse until the daemon starts again. See [Flash](flash.md#when-something-fails).", query: `stoker_flash_device_state{state!="healthy"} > 0`},
		"stoker_flash_full":         {unit: "1 or 0", text: "Others took the room that the limit promises. Copies are dropped where chunks arrive; lower the limit, or free space.", query: `stoker_flash_full > 0`},
		"stoker_flash_limit_bytes":  {text: "As configured, or as `POST /v1/cache/limit` changed it."},
		"stoker_flash_segments":     {unit: "segments", text: "`retired` ones go when what is in them has moved. Some that stay, or more and more, are a device that fails.", query: `stoker_flash_segments{state="retired"} > 0`},
		"stoker_flash_room_bytes": {
			text: "`chunks`: their bytes. `padding`: extents are larger than their chunks. `free_extents`: of spans that take one size. `free_spans`: take any size. `busy`: being written, or dropped and not free yet. " +
				"`lost`: ends of spans, and spans of which nobody knows what they hold. `own`: headers and ledgers. The query is what fragmentation costs.",
			query: `sum by (instance, device) (stoker_flash_room_bytes{use=~"padding|free_extents|lost"}) / sum by (instance, device) (stoker_flash_limit_bytes)`,
		},
		"stoker_flash_chunks":               {unit: "chunks"},
		"stoker_flash_chunk_bytes":          {text: "Blocks that are not there yet are counted too.", query: `sum by (instance, device) (stoker_flash_chunk_bytes) / sum by (instance, device) (stoker_flash_limit_bytes)`},
		"stoker_flash_extents":              {unit: "extents", text: "Much `free` of sizes that no longer arrive is given up by and by.", labels: map[string]string{"up_to_bytes": "powers of two from `4096` to `8388608`", "state": "`busy`, `chunk`, `free`"}},
		"stoker_flash_reads_total":          {unit: "reads", query: `rate(stoker_flash_reads_total[1m])`},
		"stoker_flash_read_bytes_total":     {query: `rate(stoker_flash_read_bytes_total[1m])`},
		"stoker_flash_checked_bytes_total":  {text: "Each block is checked when it is first read after a start, and by the scrubber."},
		"stoker_flash_writes_total":         {unit: "writes", query: `rate(stoker_flash_writes_total[1m])`},
		"stoker_flash_written_bytes_total":  {text: "The query is the write amplification, at most: several records of one page cost one page.", query: `sum by (instance, device) (rate(stoker_flash_written_bytes_total[1h])) / sum by (instance, device) (rate(stoker_flash_written_bytes_total{part="payload"}[1h]))`},
		"stoker_flash_records_total":        {unit: "records"},
		"stoker_flash_evicted_chunks_total": {unit: "chunks", text: "Much of it all the time: more is brought than fits.", query: `rate(stoker_flash_evicted_chunks_total[5m])`},
		"stoker_flash_evicted_bytes_total":  {query: `rate(stoker_flash_evicted_bytes_total[5m]) / ignoring (part) rate(stoker_flash_written_bytes_total{part="payload"}[5m])`},
		"stoker_flash_errors_total":         {text: "Any deserves an alert: flash that fails once fails again. `sync` and `write`: the segment is retired, and a sync is never tried again.", query: `increase(stoker_flash_errors_total[10m]) > 0`},
		"stoker_flash_events_total": {
			unit:  "events",
			text:  "See [Flash](flash.md#when-something-fails) for what each means.",
			query: `increase(stoker_flash_events_total{kind=~"chunk_corrupt|chunk_unreadable|record_damaged|segment_damaged"}[1h]) > 0`,
		},
		"stoker_flash_sync_seconds":                  {text: "A device that grows slow here is full, worn, or shared.", query: `histogram_quantile(0.99, sum by (instance, device, le) (rate(stoker_flash_sync_seconds_bucket[5m])))`},
		"stoker_flash_scrub_share":                   {unit: "a part of 1"},
		"stoker_flash_scrub_speed_bytes":             {unit: "bytes a second", text: "See `flash.scrub_rate`."},
		"stoker_flash_scrub_passes_total":            {unit: "passes"},
		"stoker_flash_scrub_ended_timestamp_seconds": {unit: "seconds since 1970", text: "Old: `flash.scrub_rate` is too low for the device, or the daemon does not stay up.", query: `time() - stoker_flash_scrub_ended_timestamp_seconds > 14 * 86400`},
		"stoker_flash_scrub_bytes":                   {},
		"stoker_flash_scrub_findings":                {unit: "findings", text: "`corrupt_copies` were dropped. `corrupt_puts` and `unreadable` are blocks; the log names their chunks. `records` were written anew.", query: `stoker_flash_scrub_findings{finding=~"corrupt_puts|unreadable"} > 0`},
	}
	for name, about := range all {
		if about.labels == nil {
			about.labels = map[string]string{}
		}
		about.labels["device"] = "paths of `flash.devices`"
		all[name] = about
	}
	return all
}

// The reference is made of the registry, so that no metric is missing in it.
func TestMetricsReferenceIsGeneratedFromTheRegistry(t *testing.T) {
	families, err := documentedRegistry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	out.WriteString(metricsIntroduction)
	all := advised()
	for _, family := range families {
		about, ok := all[family.GetName()]
		if !ok {
			t.Errorf("%s: give advised a word about it", family.GetName())
		}
		delete(all, family.GetName())
		if about.unit == "" && unitOf(family.GetName()) == "" {
			t.Errorf("%s: give advised its unit", family.GetName())
		}
		writeMetric(&out, family, about)
	}
	for name := range all {
		t.Errorf("%s is advised on, and there is none", name)
	}
	wantGenerated(t, metricsPath, out.String())
}

// documentedRegistry holds our own metrics; those of Go and of the process are
// their collectors'.
func documentedRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	requests := newRequestCounter()
	requests.count("api", 200)
	registry.MustRegister(newNodeCollector(newFakeNode()), requests, newMemoryCollector())
	return registry
}

const metricsIntroduction = `<!-- Generated: go test ./loader/api -run Generated -update -->
# Metrics

Every stokerd serves its metrics to Prometheus at ` + "`/metrics`" + `: on api.sock, and on TCP if
` + "`api.listen`" + ` is set (with ` + "`api.token_file`" + ` under that token). Watching has a rate limit of its
own, so no other client can crowd a scrape out.

` + "```yaml" + `
scrape_configs:
  - job_name: stoker
    static_configs:
      - targets: ["127.0.0.1:9595"]
    # with api.token_file:
    authorization:
      credentials_file: /etc/prometheus/stoker-token
` + "```" + `

Counters count from the daemon's start and include sessions that have ended. All sizes
are bytes, all times seconds. Label values are fixed lists, whatever clients send. Besides
the metrics below there are those of the Go runtime (` + "`go_*`" + `) and of the process
(` + "`process_*`" + `), as every program with Prometheus' Go library has them.
`

func writeMetric(out *strings.Builder, family *dto.MetricFamily, about advice) {
	name := family.GetName()
	fmt.Fprintf(out, "\n## %s\n\n%s, %s. %s\n", name, strings.ToLower(family.GetType().String()), cmp.Or(about.unit, unitOf(name)), family.GetHelp())
	if labels := labelsOf(family); len(labels) > 0 {
		out.WriteString("\n| label | values |\n|---|---|\n")
		for _, label := range slices.Sorted(maps.Keys(labels)) {
			fmt.Fprintf(out, "| `%s` | %s |\n", label, cmp.Or(about.labels[label], strings.Join(labels[label], ", ")))
		}
	}
	if about.text != "" {
		fmt.Fprintf(out, "\n%s\n", about.text)
	}
	if about.query != "" {
		fmt.Fprintf(out, "\n```promql\n%s\n```\n", about.query)
	}
}

// labelsOf are the labels of a family with the values that were gathered.
func labelsOf(family *dto.MetricFamily) map[string][]string {
	labels := map[string][]string{}
	for _, series := range family.GetMetric() {
		for _, label := range series.GetLabel() {
			value := "`" + label.GetValue() + "`"
			if !slices.Contains(labels[label.GetName()], value) {
				labels[label.GetName()] = append(labels[label.GetName()], value)
			}
		}
	}
	return labels
}

// unitOf reads the unit off a name, as Prometheus' conventions have it.
func unitOf(name string) string {
	name = strings.TrimSuffix(name, "_total")
	for _, unit := range []string{"bytes", "seconds", "samples", "batches", "sessions", "slots", "datasets", "scans", "errors", "requests"} {
		if strings.HasSuffix(name, "_"+unit) {
			return unit
		}
	}
	return ""
}
