package api

import (
	"fmt"
	"testing"
)

func TestJobsAreTheSumsOfTheirSessions(t *testing.T) {
	first := Foresight{BroughtBytes: 100, UsedBytes: 80, WastedBytes: 20, Samples: 10, OnTime: 6, Late: 3, Unforeseen: 1, Gone: 3, EarlySeconds: 3, LateSeconds: 0.3}
	second := Foresight{BroughtBytes: 300, UsedBytes: 120, WastedBytes: 100, Samples: 10, OnTime: 6, Late: 0, Unforeseen: 4}
	jobs := JobsOf([]SessionStalls{
		{JobID: "b", Foresight: &first}, {Foresight: &first}, {JobID: "c"}, {JobID: "\xff", Foresight: &first}, {JobID: "b", Foresight: &second}, {JobID: "\xfe", Foresight: &first},
	})
	if len(jobs) != 2 || jobs[0].JobID != "b" || jobs[0].Sessions != 2 || jobs[1].JobID != "?" || jobs[1].Sessions != 2 {
		t.Fatalf("jobs %+v", jobs)
	}
	f := &jobs[0].Foresight
	got := []float64{f.Accuracy, f.Waste, f.Coverage, f.Timeliness, f.GoneShare(), f.LateShare(), f.EarlyMean(), f.LateMean()}
	if want := []float64{0.5, 0.3, 0.75, 0.8, 0.25, 0.15, 0.25, 0.1}; fmt.Sprintf("%.6g", got) != fmt.Sprintf("%.6g", want) {
		t.Errorf("shares %g, want %g", got, want)
	}
}

func TestNoNumberOfJobsMakesMoreSeries(t *testing.T) {
	var jobs []JobForesight
	for i := range JobsMeasured + 5 {
		jobs = append(jobs, JobForesight{JobID: fmt.Sprint("job ", i), Sessions: 1, Foresight: Foresight{Samples: 1, Late: 1}})
	}
	for count, want := range map[int]int{0: 0, 1: 1, JobsMeasured: JobsMeasured, JobsMeasured + 5: JobsMeasured + 1} {
		seen, samples := map[string]bool{}, int64(0)
		eachJob(jobs[:count], func(job string, f *Foresight) {
			seen[job] = true
			samples += f.Samples
		})
		if len(seen) != want || samples != int64(count) {
			t.Errorf("%d jobs: %d series of %d samples, want %d", count, len(seen), samples, want)
		}
	}
}
