package api

import (
	"slices"
	"strings"
)

// Foresight says what was read ahead for a session into the page cache, or for all. Its
// counts cover the time in which that was worth anything: while all that a session reads
// is cached nothing is planned, and its samples are not counted here.
type Foresight struct {
	WindowSamples int64   `json:"window_samples"` // that may be read ahead now; 0: nothing needs to be
	Fetches       int64   `json:"fetches"`        // reads ahead that were begun
	Failed        int64   `json:"failed"`         // of them, those that failed; whoever reads the bytes learns why
	BroughtBytes  int64   `json:"brought_bytes"`  // read from the disk ahead
	FoundBytes    int64   `json:"found_bytes"`    // that a read ahead found in the page cache
	UsedBytes     int64   `json:"used_bytes"`     // of BroughtBytes, those of samples that were then read
	WastedBytes   int64   `json:"wasted_bytes"`   // of BroughtBytes, those that were not: after a seek, or when the session ended
	Samples       int64   `json:"samples"`        // that were read meanwhile
	OnTime        int64   `json:"on_time"`        // of them, those that were there when they were asked for
	Late          int64   `json:"late"`           // that were being read ahead, or about to be
	Unforeseen    int64   `json:"unforeseen"`     // that no window had come to
	Gone          int64   `json:"gone"`           // of OnTime, those that at least were gone again before they were read
	MissedReads   int64   `json:"missed_reads"`   // samples whose own reads had to wait for the disk
	EarlySeconds  float64 `json:"early_seconds"`  // for how long those on time had been there, all together
	LateSeconds   float64 `json:"late_seconds"`   // by how much the late ones were, all together

	// Shares, which follow from the counts. What waits in a window is neither used nor wasted yet.
	Accuracy   float64 `json:"accuracy"`   // UsedBytes of BroughtBytes; 1 if nothing was brought
	Coverage   float64 `json:"coverage"`   // OnTime and Late of Samples; 1 if there were none
	Timeliness float64 `json:"timeliness"` // OnTime of OnTime and Late; 1 if there were none
	Waste      float64 `json:"waste"`      // WastedBytes of BroughtBytes; 0 if nothing was brought
}

// Change adds what became of a part of f, and works its shares out anew.
func (f *Foresight) Change(from, to *Foresight) {
	f.WindowSamples += to.WindowSamples - from.WindowSamples
	f.Fetches += to.Fetches - from.Fetches
	f.Failed += to.Failed - from.Failed
	f.BroughtBytes += to.BroughtBytes - from.BroughtBytes
	f.FoundBytes += to.FoundBytes - from.FoundBytes
	f.UsedBytes += to.UsedBytes - from.UsedBytes
	f.WastedBytes += to.WastedBytes - from.WastedBytes
	f.Samples += to.Samples - from.Samples
	f.OnTime += to.OnTime - from.OnTime
	f.Late += to.Late - from.Late
	f.Unforeseen += to.Unforeseen - from.Unforeseen
	f.Gone += to.Gone - from.Gone
	f.MissedReads += to.MissedReads - from.MissedReads
	f.EarlySeconds += to.EarlySeconds - from.EarlySeconds
	f.LateSeconds += to.LateSeconds - from.LateSeconds
	f.Accuracy = shareOf(f.UsedBytes, f.BroughtBytes, 1)
	f.Coverage = shareOf(f.OnTime+f.Late, f.Samples, 1)
	f.Timeliness = shareOf(f.OnTime, f.OnTime+f.Late, 1)
	f.Waste = shareOf(f.WastedBytes, f.BroughtBytes, 0)
}

// shareOf is a part of a whole, or what is said where there is no whole.
func shareOf(part, whole int64, none float64) float64 {
	if whole <= 0 {
		return none
	}
	return float64(part) / float64(whole)
}

// GoneShare is how much of what was on time was gone again before it was read, at least.
func (f *Foresight) GoneShare() float64 { return shareOf(f.Gone, f.OnTime, 0) }

// LateShare is how much of what was read was late.
func (f *Foresight) LateShare() float64 { return shareOf(f.Late, f.Samples, 0) }

// EarlyMean is for how long a sample on time had been there, seconds.
func (f *Foresight) EarlyMean() float64 { return f.EarlySeconds / float64(max(1, f.OnTime)) }

// LateMean is by how much a late sample was, seconds.
func (f *Foresight) LateMean() float64 { return f.LateSeconds / float64(max(1, f.Late)) }

// JobForesight is what was read ahead for the sessions of a job, all together.
type JobForesight struct {
	JobID     string    `json:"job_id"`
	Sessions  int64     `json:"sessions"` // of it that are told of, open or ended
	Foresight Foresight `json:"foresight"`
}

// JobsOf sums what was read ahead up by job, the job of the first session first. Sessions
// without a job, and those for which nothing is read ahead, are left out.
func JobsOf(sessions []SessionStalls) []JobForesight {
	var jobs []JobForesight
	for i := range sessions {
		s := &sessions[i]
		if s.JobID == "" || s.Foresight == nil {
			continue
		}
		id := strings.ToValidUTF8(s.JobID, "?") // the client's word
		at := slices.IndexFunc(jobs, func(j JobForesight) bool { return j.JobID == id })
		if at < 0 {
			at = len(jobs)
			jobs = append(jobs, JobForesight{JobID: id})
		}
		jobs[at].Sessions++
		jobs[at].Foresight.Change(&Foresight{}, s.Foresight)
	}
	return jobs
}

// JobsMeasured is how many jobs have metrics of their own. The clients choose their names,
// so a node of many must not make as many series; the others are one.
const JobsMeasured = 16

// eachJob calls emit for the jobs that have metrics of their own, and for the rest of them,
// which has no name: no job is called that.
func eachJob(jobs []JobForesight, emit func(job string, f *Foresight)) {
	for i := range jobs[:min(len(jobs), JobsMeasured)] {
		emit(jobs[i].JobID, &jobs[i].Foresight)
	}
	if len(jobs) <= JobsMeasured {
		return
	}
	var rest Foresight
	for i := range jobs[JobsMeasured:] {
		rest.Change(&Foresight{}, &jobs[JobsMeasured+i].Foresight)
	}
	emit("", &rest)
}

// jobMetrics are of the jobs that have sessions open.
func jobMetrics() []metric {
	return []metric{
		gauge("stoker_prefetch_job_share", "How well the jobs that are running were foreseen, as shares from 0 to 1.",
			func(s *Stats, emit func(float64, ...string)) {
				eachJob(s.Jobs, func(job string, f *Foresight) {
					emit(f.Accuracy, job, "accuracy")
					emit(f.Coverage, job, "coverage")
					emit(f.Timeliness, job, "timeliness")
					emit(f.Waste, job, "waste")
					emit(f.GoneShare(), job, "gone")
					emit(f.LateShare(), job, "late")
				})
			}, "job_id", "figure"),
		gauge("stoker_prefetch_job_seconds", "By how much samples of the jobs that are running were early or late, on average of those that were.",
			func(s *Stats, emit func(float64, ...string)) {
				eachJob(s.Jobs, func(job string, f *Foresight) {
					emit(f.EarlyMean(), job, "early")
					emit(f.LateMean(), job, "late")
				})
			}, "job_id", "figure"),
	}
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
		counter("stoker_prefetch_used_bytes_total", "Bytes that were brought from the disk ahead and then used.",
			func(s *Stats, emit func(float64, ...string)) { emit(float64(s.Foresight.UsedBytes)) }),
		counter("stoker_prefetch_wasted_bytes_total", "Bytes that were brought from the disk ahead and not used: after a seek, or when the session ended.",
			func(s *Stats, emit func(float64, ...string)) { emit(float64(s.Foresight.WastedBytes)) }),
		counter("stoker_prefetch_fetches_total", "Reads ahead that were begun.",
			func(s *Stats, emit func(float64, ...string)) { emit(float64(s.Foresight.Fetches)) }),
		counter("stoker_prefetch_failures_total", "Reads ahead that failed. The session that needs the bytes reads them itself, and says what is wrong.",
			func(s *Stats, emit func(float64, ...string)) { emit(float64(s.Foresight.Failed)) }),
		counter("stoker_prefetch_gone_samples_total", "Samples that were brought in time and gone from the page cache again before they were read, at least.",
			func(s *Stats, emit func(float64, ...string)) { emit(float64(s.Foresight.Gone)) }),
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
