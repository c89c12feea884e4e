package flash

import (
	"context"
	"runtime/pprof"
	"sync"
)

// readers are goroutines that wait for a device. Their number bounds the reads in flight.
type readers struct {
	device *device
	once   sync.Once
	jobs   chan job // closed by stop, when no call is in progress
	group  sync.WaitGroup
}

// job is a run that a goroutine makes.
type job struct {
	gather *gather
	number int32
}

func (s *readers) init(d *device) {
	s.device, s.jobs = d, make(chan job, d.store.options.Reads) // so that none of them waits for the next
}

// start starts the goroutines: within a call, so that stop, which is called when there are
// none any more, sees all of them. A device whose reads are all cached has none.
func (s *readers) start() {
	labels := pprof.WithLabels(context.Background(), pprof.Labels("stoker", "flash-read", "device", s.device.path))
	for range s.device.store.options.Reads {
		s.group.Go(func() {
			pprof.SetGoroutineLabels(labels)
			for j := range s.jobs {
				j.gather.runs[j.number].readWhole()
				j.gather.landed <- j.number
			}
		})
	}
}

// read has a run made; false if the call's context ends before anybody has time for it.
func (s *readers) read(g *gather, number int32) bool {
	s.once.Do(s.start)
	select {
	case s.jobs <- job{g, number}:
		return true
	case <-g.ctx.Done():
		return false
	}
}

func (s *readers) stop() {
	close(s.jobs)
	s.group.Wait()
}
