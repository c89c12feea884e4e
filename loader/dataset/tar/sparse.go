package tar

import "bytes"

// maxRuns bounds the runs of one sparse member: what fits into a map of 1 MiB in the
// shortest of the forms.
const maxRuns = 1 << 17

// What is kept of sparse members at once: a run takes 24 bytes of memory, and in an
// archive that is compressed well next to nothing.
const (
	maxSampleRuns = 1 << 18 // 6 MiB, as much as two members may have
	maxShardRuns  = 1 << 20 // 24 MiB
)

// paxSparse is what PAX headers say of a sparse member. GNU tar has written them in
// three ways:
//
//   - 0.0: GNU.sparse.size, and for each run GNU.sparse.offset and GNU.sparse.numbytes
//   - 0.1: GNU.sparse.size, and all runs in GNU.sparse.map, "offset,length,offset,..."
//   - 1.0: GNU.sparse.realsize, and the runs as lines of text before the data: how
//     many, then offset and length of each, padded to whole blocks
type paxSparse struct {
	any          bool
	major, minor byte  // digits, 0 for none
	size         int64 // GNU.sparse.size, -1 for none
	realSize     int64 // GNU.sparse.realsize, -1 for none
	runs         []SparseRun
	mapped       bool // the runs come from GNU.sparse.map
	open         bool // 0.0: a run has its offset and lacks its length
}

// record takes a record GNU.sparse.key; it says false for a value that makes no sense.
func (s *paxSparse) record(key string, value []byte) bool {
	s.any = true
	n, ok := decimal(value)
	switch key {
	case "size":
		s.size = n
	case "realsize":
		s.realSize = n
	case "major":
		s.major = first(value)
		return ok && len(value) == 1
	case "minor":
		s.minor = first(value)
		return ok && len(value) == 1
	case "offset":
		if s.open || s.mapped || len(s.runs) == maxRuns {
			return false
		}
		s.runs, s.open = append(s.runs, SparseRun{Offset: n}), true
	case "numbytes":
		if !s.open {
			return false
		}
		s.runs[len(s.runs)-1].Length, s.open = n, false
	case "map":
		if len(s.runs) > 0 {
			return false
		}
		s.mapped = true
		return s.parseMap(value)
	default: // numblocks says what the map shows, others are not known
		return true
	}
	return ok
}

// expanded says how many bytes the member has when expanded, and whether its map
// comes before its data; false where the records contradict each other.
func (s *paxSparse) expanded() (size int64, inData, ok bool) {
	switch {
	case s.major == 0 && s.minor == 0, s.major == '0' && s.minor != 0:
		return s.size, false, s.size >= 0 && s.realSize < 0 && !s.open
	case s.major == '1' && s.minor == '0':
		return s.realSize, true, s.realSize >= 0 && s.size < 0 && len(s.runs) == 0
	}
	return 0, false, false
}

// parseMap reads "offset,length,offset,length".
func (s *paxSparse) parseMap(b []byte) bool {
	for more := true; more; {
		var offset, length []byte
		var pair bool
		offset, b, pair = bytes.Cut(b, []byte{','})
		if !pair {
			return false
		}
		length, b, more = bytes.Cut(b, []byte{','})
		o, okOffset := decimal(offset)
		n, okLength := decimal(length)
		if !okOffset || !okLength || len(s.runs) == maxRuns {
			return false
		}
		s.runs = append(s.runs, SparseRun{Offset: o, Length: n})
	}
	return true
}

// expand reads the runs of the sparse member that w.member is about to be.
func (w *Walker) expand(h *[blockBytes]byte) error {
	m, s := &w.member, &w.ext.sparse
	w.ext.clean = false
	if !m.Regular || m.Type == typeSparse && s.any {
		return w.badSparse("its headers say that it is sparse in two ways, or that a member without data is")
	}
	if m.Type == typeSparse {
		if err := w.headerRuns(h); err != nil {
			return err
		}
		return w.placeRuns()
	}
	size, inData, ok := s.expanded()
	if !ok {
		return w.badSparse("its PAX header gives it no size, a version that is not known, or half a run")
	}
	m.Size, w.runs = size, append(w.runs[:0], s.runs...)
	if inData {
		if err := w.dataRuns(); err != nil {
			return err
		}
	}
	return w.placeRuns()
}

func (w *Walker) badSparse(what string) error {
	return w.corrupt(FaultHeader, w.member.Header, string(w.member.Name), "sparse member: %s", what)
}

// placeRuns checks that the runs lie one behind another within the member, and gives
// them their places in the archive. Runs of no bytes are dropped.
func (w *Walker) placeRuns() error {
	m, at, data := &w.member, int64(0), w.member.Data
	kept := w.runs[:0]
	for _, r := range w.runs {
		if r.Offset < at || r.Offset > m.Size || r.Length > m.Size-r.Offset {
			return w.badSparse("a run of it lies before the one before or behind its end")
		}
		at = r.Offset + r.Length
		if r.Length > 0 {
			r.Data = data
			kept = append(kept, r)
			data += r.Length
		}
	}
	w.runs = kept
	if data-m.Data != m.Stored {
		return w.badSparse("its runs have another length than its data")
	}
	if len(w.runs) == 0 { // nothing but zeros: a run of no bytes at the end, as GNU tar has it
		w.runs = append(w.runs, SparseRun{Offset: m.Size, Data: m.Data})
	}
	m.Sparse = w.runs
	return nil
}

// headerRuns reads the runs of a member of type S: four in the header, 21 in each
// block that follows as long as a byte says so.
func (w *Walker) headerRuns(h *[blockBytes]byte) error {
	m := &w.member
	size, ok := number(h[sparseSizeField : sparseSizeField+numberBytes])
	if !ok || size < 0 || size > maxSize {
		return w.badSparse("its header gives it no size")
	}
	m.Size, w.runs = size, w.runs[:0]
	more := h[sparseMoreField] != 0
	ok = w.entries(h[sparseField:], sparseInHeader)
	for at := m.Data; more && ok; at += blockBytes {
		b, err := w.src.view(at, blockBytes, w.ahead())
		if err != nil {
			return w.failed(err)
		}
		if len(b) < blockBytes {
			return w.truncated(m, at+blockBytes)
		}
		more = b[sparseBlockMore] != 0
		ok = w.entries(b, sparseInBlock)
		m.Data = at + blockBytes
	}
	if !ok {
		return w.badSparse("a run's offset or length is no number, or there are too many runs")
	}
	return nil
}

// entries reads runs of 12 bytes offset and 12 bytes length, some of which may be empty.
func (w *Walker) entries(b []byte, n int) bool {
	for ; n > 0; n, b = n-1, b[sparseEntryBytes:] {
		if b[0] == 0 && b[numberBytes] == 0 {
			continue
		}
		offset, okOffset := number(b[:numberBytes])
		length, okLength := number(b[numberBytes:sparseEntryBytes])
		if !okOffset || !okLength || offset < 0 || length < 0 || len(w.runs) == maxRuns {
			return false
		}
		w.runs = append(w.runs, SparseRun{Offset: offset, Length: length})
	}
	return true
}

// dataRuns reads the lines of numbers before the data of a member of version 1.0.
func (w *Walker) dataRuns() error {
	m := &w.member
	text := lines{w: w, at: m.Data, end: m.Data + padded(m.Stored)}
	count, err := text.number()
	if err != nil {
		return err
	}
	for range count {
		offset, err := text.number()
		if err != nil {
			return err
		}
		length, err := text.number()
		if err != nil {
			return err
		}
		if len(w.runs) == maxRuns {
			return w.badSparse("it has too many runs")
		}
		w.runs = append(w.runs, SparseRun{Offset: offset, Length: length})
	}
	m.Stored -= padded(text.at - m.Data)
	m.Data = m.Data + padded(text.at-m.Data)
	if m.Stored < 0 {
		return w.badSparse("its map is longer than its data")
	}
	return nil
}

// lines reads decimal numbers, each a line, from an archive.
type lines struct {
	w       *Walker
	at, end int64
}

func (l *lines) number() (int64, error) {
	n, digits := int64(0), 0
	for {
		if l.at >= l.end {
			return 0, l.w.badSparse("its data end within its map")
		}
		b, err := l.w.src.view(l.at, 1, l.w.ahead())
		if err != nil {
			return 0, l.w.failed(err)
		}
		if len(b) == 0 {
			return 0, l.w.truncated(&l.w.member, l.end)
		}
		l.at++
		switch c := b[0]; {
		case c == '\n' && digits > 0:
			return n, nil
		case c < '0' || c > '9' || digits == 18:
			return 0, l.w.badSparse("its map holds something else than numbers of up to 18 digits, each a line")
		default:
			n, digits = 10*n+int64(c-'0'), digits+1
		}
	}
}

// first returns the first byte, 0 for none.
func first(b []byte) byte {
	if len(b) == 0 {
		return 0
	}
	return b[0]
}
