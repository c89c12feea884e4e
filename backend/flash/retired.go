package flash

import (
	"errors"
	"io/fs"
)

// retiredMark is what is behind a segment's name in the name of an empty file that says that
// a write or a sync of the segment failed. What the page cache has of it then may not be on
// flash, and nothing tells: no later sync does. So a store that is opened again does not
// write to the segment either, and does not rely on what it has; what was put moves.
const retiredMark = ".retired"

// mark makes that a segment is retired known to the stores to come.
func (d *device) mark(s *segment) {
	f, err := d.files.Open(s.name+retiredMark, true)
	switch {
	case errors.Is(err, fs.ErrExist):
		return
	case err == nil:
		err = errors.Join(f.Close(), d.files.SyncDirectory(segmentsFolder))
	}
	if err != nil {
		d.store.event(Event{Kind: DeviceWarning, Device: d.path, Segment: s.path(), Err: err, Detail: "it cannot be marked as retired: if this process ends before it is emptied, remove the file before the next one begins"})
	}
}

// unmark removes the mark of a segment that is not there any more; no error if it has none.
func (d *device) unmark(name string) error {
	err := d.files.Remove(name + retiredMark)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
