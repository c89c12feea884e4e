package trace

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/stokerio/stoker/prefetch"
)

// progressStep is after how many reads progress is told.
const progressStep = 1 << 16

// Tally counts accesses that found their chunk, and those that did not. Bytes are
// those asked for.
type Tally struct {
	Hits      int64 `json:"hits"`
	Misses    int64 `json:"misses"`
	HitBytes  int64 `json:"hit_bytes"`
	MissBytes int64 `json:"miss_bytes"`
}

// HitRatio is the share of accesses that were hits, 0 of none.
func (t Tally) HitRatio() float64 { return Share(t.Hits, t.Hits+t.Misses) }

// ByteRatio is the share of bytes that were hits, 0 of none.
func (t Tally) ByteRatio() float64 { return Share(t.HitBytes, t.HitBytes+t.MissBytes) }

// Share is some as a share of all, 0 of none.
func Share(some, all int64) float64 {
	if all == 0 {
		return 0
	}
	return float64(some) / float64(all)
}

// Sources counts what a recorded run read from where.
type Sources struct {
	AccessesOf [prefetch.Sources]int64
	BytesOf    [prefetch.Sources]int64
	Waited     time.Duration // all waits together
	Waits      int64         // accesses that were waited for
}

func (s *Sources) add(a *Access) {
	s.AccessesOf[a.Source]++
	s.BytesOf[a.Source] += a.Bytes
	s.Waited += min(a.Waited, 1<<62-s.Waited) // stands still before it overflows
	if a.Waited > 0 {
		s.Waits++
	}
}

// Tally is what was resident, beside all else.
func (s *Sources) Tally() Tally {
	t := Tally{Hits: s.AccessesOf[prefetch.Resident], HitBytes: s.BytesOf[prefetch.Resident]}
	for source := prefetch.Resident + 1; source < prefetch.Sources; source++ {
		t.Misses += s.AccessesOf[source]
		t.MissBytes += s.BytesOf[source]
	}
	return t
}

// SessionSummary is what a session of the trace did.
type SessionSummary struct {
	Session
	Reads   int64
	Samples int64
	Epochs  int64 // that it read something of
	Sources

	epoch int64 // of its last read, less the one before its first
}

// Summary is what is in a trace.
type Summary struct {
	Header
	Datasets []Dataset
	Sessions []SessionSummary
	Reads    int64
	Samples  int64
	Accesses int64
	Length   time.Duration // until the last read
	Bytes    int64         // of the trace itself
	Torn     string        // why it stops early; empty if it does not
	Cut      bool          // it may go on, and no more was asked for
	Lost     Lost          // what could not be recorded
	Sources
}

// Summarize reads a trace, in the memory of one block. A torn end is no error. The
// progress, which may be nil, is told how many bytes were read.
func Summarize(in io.Reader, progress func(bytes int64) error) (Summary, error) {
	r, err := NewReader(in)
	if err != nil {
		return Summary{}, err
	}
	return SummarizeReads(r, progress, func(read *Read) (int, error) { return len(read.Accesses), nil })
}

// SummarizeReads reads a trace until take returns an error, which is io.EOF to end it
// without one. take says how many accesses of a read count.
func SummarizeReads(r *Reader, progress func(bytes int64) error, take func(*Read) (int, error)) (Summary, error) {
	s := Summary{Header: r.Header()}
	for {
		read, err := r.Next()
		var problem *Error
		if errors.As(err, &problem) && problem.Problem == Torn {
			s.Torn = fmt.Sprintf("at byte %d: %s", problem.Offset, problem.Detail)
			err = io.EOF
		}
		if err == nil {
			err = s.take(r, read, take)
		}
		if err == nil && progress != nil && s.Reads%progressStep == 1 {
			err = progress(r.Offset())
		}
		if err != nil {
			s.Datasets = slices.Clone(r.Datasets())
			s.define(r.Sessions())
			s.Bytes, s.Lost = r.Offset(), r.Lost()
			if err == io.EOF {
				err = nil
			}
			return s, err
		}
	}
}

// take counts one read. The error is io.EOF after the last that counts.
func (s *Summary) take(r *Reader, read *Read, take func(*Read) (int, error)) error {
	n, err := take(read)
	if err != nil && err != io.EOF {
		return err
	}
	s.Cut = err == io.EOF
	read.Accesses = read.Accesses[:n]
	s.define(r.Sessions())
	session, samples := &s.Sessions[read.Session], read.Samples()
	if session.Reads == 0 || session.epoch != read.Epoch {
		session.Epochs++
	}
	session.epoch = read.Epoch
	session.Reads++
	session.Samples += samples
	s.Reads++
	s.Samples += samples
	s.Accesses += int64(len(read.Accesses))
	s.Length = read.At
	for i := range read.Accesses {
		s.add(&read.Accesses[i])
		session.add(&read.Accesses[i])
	}
	return err
}

// define adds sessions that are new.
func (s *Summary) define(sessions []Session) {
	for _, session := range sessions[len(s.Sessions):] {
		s.Sessions = append(s.Sessions, SessionSummary{Session: session})
	}
}
