package flash

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stokerio/stoker/backend"
)

// ScrubStats is how far the scrubber of a device is, over all stores that had the
// directory.
type ScrubStats struct {
	Running        bool          `json:"running"`
	BytesPerSecond int64         `json:"bytes_per_second"` // 0: it does not scrub
	Passes         int64         `json:"passes"`           // that came to the end
	Began          time.Time     `json:"began,omitzero"`   // the pass that goes on, or was interrupted
	Share          float64       `json:"share"`            // of it, that is behind it
	This           ScrubFindings `json:"this"`             // of that pass
	Ended          time.Time     `json:"ended,omitzero"`   // the last whole pass
	Last           ScrubFindings `json:"last"`             // of that pass
	Damaged        []ScrubDamage `json:"damaged"`          // found last, the newest first
}

// ScrubFindings is what a pass read and found.
type ScrubFindings struct {
	Chunks        int64 `json:"chunks"`
	Blocks        int64 `json:"blocks"`
	Bytes         int64 `json:"bytes"`
	CorruptCopies int64 `json:"corrupt_copies"` // that were filled; they were dropped
	CorruptPuts   int64 `json:"corrupt_puts"`   // blocks of chunks that were put
	Unreadable    int64 `json:"unreadable"`     // blocks that the device could not read
	Records       int64 `json:"records"`        // that were damaged; they were written anew
}

// String implements fmt.Stringer.
func (f ScrubFindings) String() string {
	var words []string
	for _, w := range []struct {
		n    int64
		what string
	}{{f.CorruptCopies, "corrupt copies"}, {f.CorruptPuts, "corrupt blocks of chunks that were put"}, {f.Unreadable, "unreadable blocks"}, {f.Records, "damaged records"}} {
		if w.n > 0 {
			words = append(words, fmt.Sprintf("%d %s", w.n, w.what))
		}
	}
	if len(words) == 0 {
		return "nothing is damaged"
	}
	return strings.Join(words, ", ")
}

// ScrubDamage is a block that was not what was stored.
type ScrubDamage struct {
	Chunk      backend.ChunkID `json:"chunk"`
	Put        bool            `json:"put"`
	Unreadable bool            `json:"unreadable"` // false: it is corrupt
	Segment    uint32          `json:"segment"`
	Block      int             `json:"block"`
	Found      time.Time       `json:"found"`
}

// scrubState is scrub.json: what a pass needs to go on, and what was found.
type scrubState struct {
	Format  string        `json:"format"` // scrubFormat
	Device  string        `json:"device"`
	Passes  int64         `json:"passes"`
	Began   time.Time     `json:"began,omitzero"` // zero: no pass goes on
	At      scrubPlace    `json:"at"`
	This    ScrubFindings `json:"this"`
	Ended   time.Time     `json:"ended,omitzero"`
	Last    ScrubFindings `json:"last"`
	Damaged []ScrubDamage `json:"damaged"`
}

// scrubPlace is the extent that is to be read next.
type scrubPlace struct {
	Segment uint32 `json:"segment"`
	Span    uint32 `json:"span"`
	Extent  uint32 `json:"extent"`
}

const (
	scrubFormat = "stoker-flash-scrub-1"
	scrubKept   = 64 // damages
)

func (s *scrubState) inPass() bool { return !s.Began.IsZero() }

// add keeps a damage, and forgets the oldest.
func (s *scrubState) add(d ScrubDamage) {
	s.Damaged = append(s.Damaged, d)
	s.Damaged = s.Damaged[max(0, len(s.Damaged)-scrubKept):]
}

// decodeScrub reads scrub.json. What is not as it was written is no loss: a pass begins.
func decodeScrub(text []byte, device deviceID) (s scrubState, err error) {
	if err := json.Unmarshal(text, &s); err != nil {
		return scrubState{}, err
	}
	if s.Format != scrubFormat || s.Device != hex.EncodeToString(device[:]) || len(s.Damaged) > scrubKept {
		return scrubState{}, errors.New("it is of another device or program")
	}
	return s, nil
}

// load reads how far the scrubber was.
func (b *scrubber) load() {
	d := b.device
	text, found, err := readSmall(d.files, scrubName)
	if found && err == nil {
		b.mu.state, err = decodeScrub(text, d.id)
	}
	if err != nil {
		d.store.event(Event{Kind: DeviceWarning, Device: d.path, Detail: scrubName + " cannot be read: scrubbing begins anew", Err: err})
	}
	b.mu.state.Format, b.mu.state.Device = scrubFormat, hex.EncodeToString(d.id[:])
	b.mu.saved = time.Now()
}

// save writes how far the scrubber is, if that is due or now is set.
func (b *scrubber) save(now bool) {
	d := b.device
	b.mu.Lock()
	if !b.mu.changed || !now && time.Since(b.mu.saved) < scrubSave || d.writable() != nil {
		b.mu.Unlock()
		return
	}
	text, err := json.Marshal(&b.mu.state)
	b.mu.saved, b.mu.changed = time.Now(), false
	b.mu.Unlock()
	if err == nil {
		err = replaceFile(d.files, scrubName, append(text, '\n'))
	}
	if err != nil && !b.mu.refused { // only the scrubber's goroutine is here
		b.mu.refused = true
		d.store.event(Event{Kind: DeviceWarning, Device: d.path, Detail: scrubName + " cannot be written: scrubbing begins anew when the store is opened again", Err: err})
	}
}

// stats is how far the scrubber is.
func (b *scrubber) stats() ScrubStats {
	speed := b.bytesPerSecond()
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &b.mu.state
	all := ScrubStats{
		Running: b.mu.running, BytesPerSecond: speed, Passes: s.Passes, Began: s.Began, This: s.This, Ended: s.Ended, Last: s.Last,
		Damaged: append([]ScrubDamage{}, s.Damaged...),
	}
	slices.Reverse(all.Damaged)
	if segments := *b.device.segments.Load(); s.inPass() && len(segments) > 0 {
		all.Share = min(1, (float64(s.At.Segment)+float64(s.At.Span)/maxSegmentSpans)/float64(len(segments)))
	}
	return all
}
