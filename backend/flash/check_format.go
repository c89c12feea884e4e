package flash

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// smallBytes is how much of a small file is read.
const smallBytes = 64 << 10

// readFull reads p at off; what the file ends before is no error, but fewer bytes.
func readFull(f io.ReaderAt, p []byte, off int64) (int, error) {
	n, err := f.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// shape is what all segments of a device have in common.
type shape struct {
	device    deviceID
	spanBytes int64
}

// checkFormat finds out what the device is: by format.json, else by its segments.
func (k *checker) checkFormat() error {
	text, found, err := readSmall(k.files, manifestName)
	if err != nil {
		return err
	}
	m, id, err := decodeManifest(text)
	if found && err != nil && isOfOtherVersion(text) {
		return fmt.Errorf("%w; check it with a program of that version", err)
	}
	told, spans, ok := k.toldBySegments()
	damaged := err != nil
	if !damaged {
		agrees := func(f *checkedFile) bool { return f.header.device == id && f.header.spanBytes == m.SpanBytes }
		damaged = ok && !slices.ContainsFunc(k.opened, agrees)
	}
	if !damaged {
		k.is(id, m.SpanBytes, m.SegmentSpans)
		return nil
	}
	if !ok {
		return fmt.Errorf("%s is damaged or lost, and no segment says what it was: %w", manifestName, orNotThere(err, found))
	}
	k.is(told.device, told.spanBytes, spans)
	detail := "it says another thing than every segment"
	switch {
	case !found:
		detail = "it is not there"
	case err != nil:
		detail = err.Error()
	}
	again := manifest{Format: manifestFormat, Version: FormatVersion, Device: hex.EncodeToString(k.id[:]), SpanBytes: told.spanBytes, SegmentSpans: spans}
	return k.found(Finding{Kind: FoundFormat, File: k.files.Path(manifestName), Offset: -1, Detail: detail + "; the segments tell what it was"},
		func() error { return replaceFile(k.files, manifestName, again.encode()) })
}

// is fixes what the device is.
func (k *checker) is(id deviceID, spanBytes int64, spans int) {
	k.id, k.geometry = id, newGeometry(spanBytes, spans)
	k.report.Device = hex.EncodeToString(id[:])
}

func orNotThere(err error, found bool) error {
	if !found {
		return errors.New("it is not there")
	}
	return err
}

// isOfOtherVersion reports whether a format.json is whole, and another program's.
func isOfOtherVersion(text []byte) bool {
	var m manifest
	return json.Unmarshal(text, &m) == nil && m.Format == manifestFormat && m.Version > FormatVersion
}

// toldBySegments is the shape that most segments have, and of how many spans the largest
// of these is.
func (k *checker) toldBySegments() (most shape, spans int, ok bool) {
	count := map[shape]int{}
	for _, f := range k.opened {
		if f.headerErr != nil || !geometryIsSane(f.header.spanBytes, int(f.header.spans)) {
			continue
		}
		x := shape{f.header.device, f.header.spanBytes}
		if count[x]++; count[x] > count[most] {
			most, ok = x, true
		}
	}
	for _, f := range k.opened {
		if f.headerErr == nil && f.header.device == most.device && f.header.spanBytes == most.spanBytes {
			spans = max(spans, int(f.header.spans))
		}
	}
	return most, spans, ok
}
