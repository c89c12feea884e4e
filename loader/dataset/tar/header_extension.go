package tar

import (
	"bytes"
	"math"
)

// extension is what the headers before a member's own say of it.
type extension struct {
	clean    bool  // nothing was read since reset
	start    int64 // of the first of them, -1 for none; a global header belongs to no member
	extended bool  // a PAX header came
	longName bool  // a GNU long name came
	named    bool  // Walker.name holds the member's name
	size     int64 // from a PAX header, -1 for none
	sparse   paxSparse
}

func (e *extension) reset() {
	if e.clean {
		return // most members have no such headers
	}
	runs := e.sparse.runs[:0]
	*e = extension{clean: true, start: -1, size: -1, sparse: paxSparse{size: -1, realSize: -1, runs: runs}}
}

// pending reports whether a header wants a member.
func (e *extension) pending() bool { return e.start >= 0 }

// extend reads the body of a header that is no member's own.
func (w *Walker) extend(kind byte, size int64) error {
	header := w.at
	w.ext.clean = false
	if size > maxExtension {
		return w.corrupt(FaultHeader, header, "", "a long name or PAX header has %d bytes, expected at most %d", size, maxExtension)
	}
	end := header + blockBytes + padded(size)
	body, err := w.src.view(header+blockBytes, int(padded(size)), w.ahead())
	if err != nil {
		return w.failed(err)
	}
	if int64(len(body)) < padded(size) {
		return w.corrupt(FaultTruncated, header, "", "a long name or PAX header of %d bytes ends at byte %d, the archive at byte %d: it is cut short", size, end, w.src.size)
	}
	w.at = end
	e := &w.ext
	if kind == typeGlobal {
		return w.globalRecords(body[:size], header)
	}
	if e.start < 0 {
		e.start = header
	}
	switch kind {
	case typeLongName:
		if e.longName {
			return w.corrupt(FaultHeader, header, "", "a second long name for one member")
		}
		e.longName = true
		return w.setName(text(body), header)
	case typeLongLink:
		return nil
	}
	if e.extended {
		return w.corrupt(FaultHeader, header, "", "a second PAX header for one member")
	}
	e.extended = true
	return w.extendedRecords(body[:size], header)
}

// setName keeps a name from before the member's header. The first of them holds, as
// with Python's tarfile.
func (w *Walker) setName(name []byte, header int64) error {
	if w.ext.named {
		return nil
	}
	if len(name) > maxNameBytes {
		return w.corrupt(FaultName, header, "", "the name has %d bytes, expected at most %d", len(name), maxNameBytes)
	}
	w.ext.named = true
	w.name = append(w.name[:0], name...)
	return nil
}

// record is one of a PAX header: "length key=value\n".
type record struct{ key, value []byte }

// nextRecord cuts a record off b.
func nextRecord(b []byte) (r record, rest []byte, ok bool) {
	n, digits := 0, 0
	for digits < len(b) && digits < 8 && b[digits] >= '0' && b[digits] <= '9' {
		n = 10*n + int(b[digits]-'0')
		digits++
	}
	if digits == 0 || digits == len(b) || b[digits] != ' ' || n <= digits+1 || n > len(b) || b[n-1] != '\n' {
		return record{}, nil, false
	}
	key, value, ok := bytes.Cut(b[digits+1:n-1], []byte{'='})
	return record{key, value}, b[n:], ok && len(key) > 0
}

// extendedRecords reads the PAX header of one member.
func (w *Walker) extendedRecords(b []byte, header int64) error {
	var path, sparseName []byte
	s := &w.ext.sparse
	for len(b) > 0 {
		r, rest, ok := nextRecord(b)
		if !ok {
			return w.badRecord(b, header)
		}
		b = rest
		switch string(r.key) {
		case "path":
			path = bytes.TrimRight(r.value, "/")
			if path == nil {
				path = []byte{}
			}
		case "size":
			if w.ext.size, ok = decimal(r.value); !ok {
				return w.badValue(r, header)
			}
		case "GNU.sparse.name":
			s.any, sparseName = true, r.value
		default:
			if key, found := bytes.CutPrefix(r.key, []byte("GNU.sparse.")); found && !s.record(string(key), r.value) {
				return w.badValue(r, header)
			}
		}
	}
	switch { // what GNU tar writes as path of a sparse member is no name of a file
	case sparseName != nil:
		return w.setName(sparseName, header)
	case path != nil:
		return w.setName(path, header)
	}
	return nil
}

// globalRecords reads a PAX header for all members that follow. What it may say of
// them that matters here makes no sense for more than one file; a walk that starts
// behind it must find the same members.
func (w *Walker) globalRecords(b []byte, header int64) error {
	for len(b) > 0 {
		r, rest, ok := nextRecord(b)
		if !ok {
			return w.badRecord(b, header)
		}
		b = rest
		if key := string(r.key); key == "path" || key == "size" || bytes.HasPrefix(r.key, []byte("GNU.sparse.")) {
			return w.corrupt(FaultHeader, header, "", "a global PAX header gives all members that follow the %s %.60q", key, r.value)
		}
	}
	return nil
}

func (w *Walker) badRecord(b []byte, header int64) error {
	return w.corrupt(FaultHeader, header, "", "%.40q in a PAX header is no record of the form \"length key=value\\n\"", b)
}

func (w *Walker) badValue(r record, header int64) error {
	return w.corrupt(FaultHeader, header, "", "the PAX record %q has the value %.60q", r.key, r.value)
}

// decimal reads a number of bytes as PAX headers have it.
func decimal(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 19 {
		return 0, false
	}
	n := uint64(0)
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + uint64(c-'0')
	}
	return int64(n), n <= math.MaxInt64
}
