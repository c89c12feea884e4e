package flash

import (
	"context"
	"log/slog"

	"github.com/stokerio/stoker/backend"
)

// EventKind says what happened.
type EventKind string

// The kinds of events.
const (
	DeviceWarning   EventKind = "device_warning"   // it works, but not as flash should; Detail says why
	DeviceFull      EventKind = "device_full"      // the file system has less room than the limit
	DeviceReadOnly  EventKind = "device_read_only" // nothing more is written there; what it has is read
	DeviceFailed    EventKind = "device_failed"    // it is left out
	SegmentRetired  EventKind = "segment_retired"  // a sync or a write failed: nothing more is written there
	SegmentDamaged  EventKind = "segment_damaged"  // it is not what it was; Detail says what is lost
	RecordDamaged   EventKind = "record_damaged"   // the record of an extent: its chunk is lost
	ChunkCorrupt    EventKind = "chunk_corrupt"    // a block is not what was stored
	ChunkUnreadable EventKind = "chunk_unreadable" // the device could not read it
	ScrubDone       EventKind = "scrub_done"
)

// Event is something that somebody should know.
type Event struct {
	Kind    EventKind
	Device  string // path
	Segment string // path; empty: not of one
	Chunk   backend.ChunkID
	Block   int // of a corrupt chunk
	Detail  string
	Err     error
}

// event tells of one.
func (s *Store) event(e Event) {
	s.events.add(eventKey{e.Device, e.Kind})
	level := slog.LevelWarn
	if e.Kind == ScrubDone {
		level = slog.LevelInfo
	}
	attributes := []any{"event", string(e.Kind), "device", e.Device}
	if e.Segment != "" {
		attributes = append(attributes, "segment", e.Segment)
	}
	if e.Chunk != (backend.ChunkID{}) {
		attributes = append(attributes, "chunk", e.Chunk.String(), "block", e.Block)
	}
	if e.Detail != "" {
		attributes = append(attributes, "detail", e.Detail)
	}
	if e.Err != nil {
		attributes = append(attributes, "error", e.Err.Error())
	}
	s.options.Logger.Log(context.Background(), level, "flash", attributes...)
	s.options.Event(e)
}
