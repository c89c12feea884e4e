package sim

import (
	"errors"
	"time"

	"github.com/stokerio/stoker/prefetch"
)

// Decider decides for one node: prefetch.Planner is one. The methods mean what its
// documentation says; these are the ones that a simulated driver calls.
type Decider interface {
	AddDataset(now prefetch.Time, d prefetch.Dataset) (prefetch.DatasetID, error)
	EndDataset(now prefetch.Time, id prefetch.DatasetID) error
	AddJob(now prefetch.Time, weight float64) prefetch.JobID
	EndJob(now prefetch.Time, id prefetch.JobID) error
	AddStream(now prefetch.Time, s prefetch.Stream) (prefetch.StreamID, error)
	EndStream(now prefetch.Time, id prefetch.StreamID) error
	Seek(now prefetch.Time, id prefetch.StreamID, epoch, place int64) error
	Consumed(now prefetch.Time, id prefetch.StreamID, epoch, place int64, waited time.Duration)
	Missed(now prefetch.Time, id prefetch.StreamID, samples, missing int64, took ...time.Duration)
	Next(now prefetch.Time, f *prefetch.Fetch) (bool, error)
	Done(now prefetch.Time, id prefetch.FetchID, r prefetch.Result)
	Wake(now prefetch.Time) prefetch.Time
	Drop(now prefetch.Time) (c prefetch.Chunk, ok bool)
	Evicted(now prefetch.Time, c prefetch.Chunk)
	Access(now prefetch.Time, c prefetch.Chunk, bytes int64) (keep bool)
}

// ErrFailed is how a request ends that its source refuses (SourceSpec.FailShare).
var ErrFailed = errors.New("sim: the source failed")
