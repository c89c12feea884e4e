package main

import (
	"time"

	"github.com/stokerio/stoker/loader/api"
)

// sight is what one look at the daemon showed.
type sight struct {
	at       time.Time
	daemon   api.Version
	sessions []api.Session
}

// frame is what happened between two looks: one object of `stoker top --json`.
type frame struct {
	At       time.Time   `json:"at"`
	Seconds  float64     `json:"seconds"` // between the two looks
	Daemon   api.Version `json:"daemon"`
	Totals   activity    `json:"totals"`
	Sessions []running   `json:"sessions"`
}

// running is one session and what it did.
type running struct {
	api.Session
	Activity activity `json:"activity"`
}

// activity is how fast a session, or all of them together, went.
type activity struct {
	Seconds                 float64 `json:"seconds"` // that it is measured over; 0: not known yet
	BatchesPerSecond        float64 `json:"batches_per_second"`
	SamplesPerSecond        float64 `json:"samples_per_second"`
	PageCacheBytesPerSecond float64 `json:"page_cache_bytes_per_second"`
	DiskBytesPerSecond      float64 `json:"disk_bytes_per_second"`
	// StallShares are shares of the time; of several sessions their mean.
	StallShares stallShares `json:"stall_shares"`
}

// stallShares are the shares of a time, 0 to 1, that a trainer waited.
type stallShares struct {
	Total     float64 `json:"total"`
	Disk      float64 `json:"disk"`
	Index     float64 `json:"index"`
	Order     float64 `json:"order"`
	Ring      float64 `json:"ring"`
	Wake      float64 `json:"wake"`
	Transform float64 `json:"transform"`
	Other     float64 `json:"other"`
}

func (a activity) bytesPerSecond() float64 { return a.PageCacheBytesPerSecond + a.DiskBytesPerSecond }

// compare tells what happened from one look to the next. A session that began in
// between is measured from its beginning.
func compare(before, now sight) frame {
	f := frame{At: now.at, Seconds: now.at.Sub(before.at).Seconds(), Daemon: now.daemon, Sessions: []running{}}
	known := map[string]api.Session{}
	if before.daemon.PID == now.daemon.PID { // else the counters are another daemon's
		for _, s := range before.sessions {
			known[s.ID] = s
		}
	}
	measured := 0.0
	for _, s := range now.sessions {
		then, begin := known[s.ID], before.at
		if then.ID == "" {
			begin = s.StartedAt
		}
		r := running{Session: s, Activity: activityOf(then, s, now.at.Sub(begin).Seconds())}
		f.Sessions = append(f.Sessions, r)
		if r.Activity.Seconds > 0 {
			measured++
			f.Totals.add(r.Activity)
		}
	}
	if measured > 0 {
		f.Totals.StallShares = f.Totals.StallShares.times(1 / measured)
	}
	f.Totals.Seconds = f.Seconds
	return f
}

// activityOf measures one session from then to now.
func activityOf(then, now api.Session, seconds float64) activity {
	if seconds <= 0 {
		return activity{}
	}
	per := func(count int64) float64 { return float64(max(count, 0)) / seconds }
	return activity{
		Seconds:                 seconds,
		BatchesPerSecond:        per(now.Traffic.Batches - then.Traffic.Batches),
		SamplesPerSecond:        per(now.Traffic.Samples - then.Traffic.Samples),
		PageCacheBytesPerSecond: per(now.Traffic.PageCacheBytes - then.Traffic.PageCacheBytes),
		DiskBytesPerSecond:      per(now.Traffic.DiskBytes - then.Traffic.DiskBytes),
		StallShares:             sharesOf(then.Stall, now.Stall, seconds),
	}
}

// sharesOf divides a time. A wait counts when it ends, so that a time can hold
// waits that began before it: shares are scaled to at most the whole.
func sharesOf(then, now api.Stall, seconds float64) stallShares {
	part := func(then, now float64) float64 { return max(now-then, 0) / seconds }
	s := stallShares{
		Disk:      part(then.DiskSeconds, now.DiskSeconds),
		Index:     part(then.IndexSeconds, now.IndexSeconds),
		Order:     part(then.OrderSeconds, now.OrderSeconds),
		Ring:      part(then.RingSeconds, now.RingSeconds),
		Wake:      part(then.WakeSeconds, now.WakeSeconds),
		Transform: part(then.TransformSeconds, now.TransformSeconds),
	}
	causes := s.Disk + s.Index + s.Order + s.Ring + s.Wake + s.Transform
	s.Total = max(part(then.TotalSeconds, now.TotalSeconds), causes)
	s.Other = s.Total - causes
	if s.Total > 1 {
		s = s.times(1 / s.Total)
	}
	return s
}

func (s stallShares) times(factor float64) stallShares {
	return stallShares{
		s.Total * factor, s.Disk * factor, s.Index * factor, s.Order * factor, s.Ring * factor, s.Wake * factor,
		s.Transform * factor, s.Other * factor,
	}
}

func (a *activity) add(b activity) {
	a.BatchesPerSecond += b.BatchesPerSecond
	a.SamplesPerSecond += b.SamplesPerSecond
	a.PageCacheBytesPerSecond += b.PageCacheBytesPerSecond
	a.DiskBytesPerSecond += b.DiskBytesPerSecond
	s, t := &a.StallShares, b.StallShares
	*s = stallShares{
		s.Total + t.Total, s.Disk + t.Disk, s.Index + t.Index, s.Order + t.Order, s.Ring + t.Ring, s.Wake + t.Wake,
		s.Transform + t.Transform, s.Other + t.Other,
	}
}
