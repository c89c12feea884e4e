package loader

import (
	"errors"
	"slices"
	"time"

	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/prefetch"
)

// driver is the goroutine that owns the planner.
type driver struct {
	*foresight
	closing chan struct{} // closed by foresight.close
	planner *prefetch.Planner
	all     []*foreseen // that have begun and not been released
	streams map[prefetch.StreamID]*foreseen
	layouts map[dataset.View]*sharedLayout
	jobs    map[string]*sharedJob
	news    []*foreseen // being applied
	ended   []ended
	next    task // being begun
	timer   *time.Timer
}

// sharedLayout is a dataset of the planner and how many streams read it.
type sharedLayout struct {
	id      prefetch.DatasetID
	streams int
}

// sharedJob is a job of the planner and how many streams it has.
type sharedJob struct {
	id      prefetch.JobID
	streams int
}

func (d *driver) init(f *foresight) {
	d.foresight, d.closing = f, make(chan struct{})
	d.planner = prefetch.New(f.options.planned())
	d.streams, d.layouts, d.jobs = map[prefetch.StreamID]*foreseen{}, map[dataset.View]*sharedLayout{}, map[string]*sharedJob{}
}

// leastSleep keeps the driver from spinning where the planner wakes it too early.
const leastSleep = time.Millisecond

// run drives the planner until close.
func (d *driver) run() {
	defer close(d.stopped)
	d.timer = time.NewTimer(time.Hour)
	defer d.timer.Stop()
	for {
		d.apply()
		d.plan()
		wake := d.planner.Wake(d.now())
		for _, x := range d.all {
			if x.timed && !x.over {
				wake = min(wake, x.wake)
			}
		}
		sleep := time.Hour
		if wake != prefetch.Never {
			sleep = min(sleep, max(leastSleep, wake.Sub(d.now())))
		}
		d.timer.Reset(sleep)
		select {
		case <-d.wake:
		case <-d.timer.C:
		case <-d.closing:
			d.shut()
			return
		}
	}
}

// apply tells the planner what is new.
func (d *driver) apply() {
	d.mu.Lock()
	d.news, d.mu.news = d.mu.news, d.news[:0]
	d.ended, d.mu.done = d.mu.done, d.ended[:0]
	for _, x := range d.news {
		x.listed = false
		x.over = x.over || x.ended && !x.begun // it came and went
	}
	d.mu.Unlock()
	for i := range d.ended {
		d.finish(&d.ended[i])
	}
	clear(d.ended)
	now := d.now()
	for _, x := range d.news {
		d.turn(x, now)
	}
	clear(d.news)
	for _, x := range d.all {
		if x.timed {
			d.turn(x, now)
		}
	}
	d.all = slices.DeleteFunc(d.all, d.released)
}

// turn gives a reader its turn.
func (d *driver) turn(x *foreseen, now prefetch.Time) {
	if !x.begun {
		x.begun = true
		d.all = append(d.all, x)
		if !x.over {
			d.begin(x, now)
		}
	}
	if x.over {
		return
	}
	d.mu.Lock()
	over := x.ended
	d.mu.Unlock()
	if !over {
		x.wake, over = x.turn(now)
		x.timed = x.timed || x.wake != prefetch.Never
	}
	if over {
		d.end(x, now)
	}
}

func (d *driver) begin(x *foreseen, now prefetch.Time) {
	var err error
	if x.stream, err = x.reader.begin(d.planner, now); err != nil {
		x.over = true
		d.log.Warn("nothing is read ahead", "for", x.name, "error", err)
		return
	}
	d.streams[x.stream] = x
}

func (d *driver) end(x *foreseen, now prefetch.Time) {
	x.over = true
	delete(d.streams, x.stream)
	if err := x.reader.end(now); err != nil {
		d.log.Error("end reading ahead", "for", x.name, "error", err)
	}
}

// released releases what a reader holds once it is over and nothing is under way for it.
func (d *driver) released(x *foreseen) bool {
	if !x.over || x.flights > 0 {
		return false
	}
	x.release()
	return true
}

// finish tells the planner of a fetch that has ended.
func (d *driver) finish(e *ended) {
	e.to.flights--
	e.to.done(&e.fetch, &e.result)
	d.planner.Done(e.at, e.fetch.ID, e.result)
}

// plan begins what the planner wants begun.
func (d *driver) plan() {
	t := &d.next
	for {
		ok, err := d.planner.Next(d.now(), &t.fetch)
		switch {
		case err != nil: // said once; the stream is not planned for any more
			d.broken(err)
			continue
		case !ok:
			*t = task{}
			return
		}
		t.to, t.begun = d.streams[t.fetch.Stream], d.now()
		if t.to == nil || !t.to.admits(&t.fetch) {
			d.planner.Done(t.begun, t.fetch.ID, prefetch.Result{Source: t.fetch.Source, Err: errNotAdmitted})
			continue
		}
		t.to.flights++
		if !d.give(*t) {
			d.finish(&ended{task: *t, at: t.begun, result: prefetch.Result{Source: t.fetch.Source, Err: errNotAdmitted}})
		}
	}
}

// broken says that nothing more is planned for a stream. A reader that never seeks ends.
func (d *driver) broken(err error) {
	var stream *prefetch.StreamError
	if !errors.As(err, &stream) || d.streams[stream.Stream] == nil {
		d.log.Error("plan what is read ahead", "error", err)
		return
	}
	x := d.streams[stream.Stream]
	d.log.Warn("nothing more is read ahead until it seeks", "for", x.name, "error", stream.Err)
	if x.fail(stream.Err) {
		d.end(x, d.now())
		d.poke()
	}
}

// layout returns the planner's number of a View's dataset, for one stream more.
func (d *driver) layout(view dataset.View, now prefetch.Time) (prefetch.DatasetID, error) {
	l := d.layouts[view]
	if l == nil {
		id, err := d.planner.AddDataset(now, prefetch.Dataset{Layout: newLayout(view)})
		if err != nil {
			return 0, err
		}
		l = &sharedLayout{id: id}
		d.layouts[view] = l
	}
	l.streams++
	return l.id, nil
}

// leaveLayout is for one stream less.
func (d *driver) leaveLayout(view dataset.View, now prefetch.Time) error {
	l := d.layouts[view]
	if l.streams--; l.streams > 0 {
		return nil
	}
	delete(d.layouts, view)
	return d.planner.EndDataset(now, l.id)
}

// job returns the planner's number of a job, for one stream more.
func (d *driver) job(name string, now prefetch.Time) prefetch.JobID {
	j := d.jobs[name]
	if j == nil {
		j = &sharedJob{id: d.planner.AddJob(now, 1)}
		d.jobs[name] = j
	}
	j.streams++
	return j.id
}

// leaveJob is for one stream less.
func (d *driver) leaveJob(name string, now prefetch.Time) error {
	j := d.jobs[name]
	if j.streams--; j.streams > 0 {
		return nil
	}
	delete(d.jobs, name)
	return d.planner.EndJob(now, j.id)
}

// shut waits for the workers and releases everything. Nothing can be added any more.
func (d *driver) shut() {
	for _, x := range d.all {
		x.cancel()
	}
	d.mu.Lock()
	for d.mu.workers > 0 {
		d.mu.idle.Wait()
	}
	news := d.mu.news
	d.mu.Unlock()
	for _, x := range news {
		if !x.begun {
			d.all = append(d.all, x)
		}
	}
	for _, x := range d.all {
		x.cancel()
		if x.begun && !x.over {
			d.end(x, d.now())
		}
		x.release()
	}
	d.all = nil
}
