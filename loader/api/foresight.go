package api

// Foresight says what was read ahead for a session into the page cache, or for all. Its
// counts cover the time in which that was worth anything: while all that a session reads
// is cached nothing is planned, and its samples are not counted here.
type Foresight struct {
	WindowSamples int64   `json:"window_samples"` // that may be read ahead now; 0: nothing needs to be
	Fetches       int64   `json:"fetches"`        // reads ahead that were begun
	Failed        int64   `json:"failed"`         // of them, those that failed; whoever reads the bytes learns why
	BroughtBytes  int64   `json:"brought_bytes"`  // read from the disk ahead
	FoundBytes    int64   `json:"found_bytes"`    // that a read ahead found in the page cache
	WastedBytes   int64   `json:"wasted_bytes"`   // read ahead and not used: after a seek, or when the session ended
	Samples       int64   `json:"samples"`        // that were read meanwhile
	OnTime        int64   `json:"on_time"`        // of them, those that were there when they were asked for
	Late          int64   `json:"late"`           // that were being read ahead, or about to be
	Unforeseen    int64   `json:"unforeseen"`     // that no window had come to
	MissedReads   int64   `json:"missed_reads"`   // samples whose own reads had to wait for the disk
	EarlySeconds  float64 `json:"early_seconds"`  // for how long those on time had been there, all together
	LateSeconds   float64 `json:"late_seconds"`   // by how much the late ones were, all together
}

func foresightMetrics() []metric {
	return []metric{
		counter("stoker_prefetch_samples_total", "Samples read while foresight was at work, by how well they were foreseen: on_time, late, or unforeseen where no window had come to them.",
			func(s *Stats, emit func(float64, ...string)) {
				emit(float64(s.Foresight.OnTime), "on_time")
				emit(float64(s.Foresight.Late), "late")
				emit(float64(s.Foresight.Unforeseen), "unforeseen")
			}, "outcome"),
		counter("stoker_prefetch_bytes_total", "Bytes that were read ahead: brought from the disk, or found in the page cache.",
			func(s *Stats, emit func(float64, ...string)) {
				emit(float64(s.Foresight.BroughtBytes), "brought")
				emit(float64(s.Foresight.FoundBytes), "found")
			}, "outcome"),
		counter("stoker_prefetch_wasted_bytes_total", "Bytes that were read ahead and not used: after a seek, or when the session ended.",
			func(s *Stats, emit func(float64, ...string)) { emit(float64(s.Foresight.WastedBytes)) }),
		counter("stoker_prefetch_fetches_total", "Reads ahead that were begun.",
			func(s *Stats, emit func(float64, ...string)) { emit(float64(s.Foresight.Fetches)) }),
		counter("stoker_prefetch_failures_total", "Reads ahead that failed. The session that needs the bytes reads them itself, and says what is wrong.",
			func(s *Stats, emit func(float64, ...string)) { emit(float64(s.Foresight.Failed)) }),
		counter("stoker_prefetch_missed_reads_total", "Samples whose own reads had to wait for the disk while foresight was at work.",
			func(s *Stats, emit func(float64, ...string)) { emit(float64(s.Foresight.MissedReads)) }),
		counter("stoker_prefetch_early_seconds_total", "For how long samples that were on time had been in the page cache.",
			func(s *Stats, emit func(float64, ...string)) { emit(s.Foresight.EarlySeconds) }),
		counter("stoker_prefetch_late_seconds_total", "By how much the late samples were late.",
			func(s *Stats, emit func(float64, ...string)) { emit(s.Foresight.LateSeconds) }),
		gauge("stoker_prefetch_window_samples", "Samples that may be read ahead for the open sessions.",
			func(s *Stats, emit func(float64, ...string)) { emit(float64(s.Foresight.WindowSamples)) }),
	}
}
