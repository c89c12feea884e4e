package tar

import "io"

// window is the part of an archive that is in memory.
type window struct {
	src    Source    // or
	stream io.Reader // which has no size until it ends
	size   int64     // -1: not known yet

	buf  []byte // bytes [base, base+len(buf)) of the archive
	base int64

	// Where members are large, what is read at a header is as much as headers that lie
	// close together have needed so far: one block, or those of a PAX header, its text
	// and the header proper, or those of a short member and of the next. Most of what a
	// read in the page cache costs is bringing the bytes nearer.
	span int
	last int64 // offset of the last read
}

// view returns the n bytes from off, or fewer at the end of the archive. They are
// valid until the next call. Where it must read it takes ahead bytes if there are
// that many. Offsets do not decrease, except after Walker.WalkRange.
func (v *window) view(off int64, n, ahead int) ([]byte, error) {
	at := off - v.base
	if at < 0 || at+int64(n) > int64(len(v.buf)) {
		if needed := off + int64(n) - v.last; off >= v.last && needed <= pageBytes {
			v.span = max(v.span, int(needed))
		}
		v.last = off
		if err := v.move(off, max(n, ahead)); err != nil {
			return nil, err
		}
		at = 0
	}
	return v.buf[at:min(at+int64(n), int64(len(v.buf)))], nil
}

// move makes the window begin at off and hold n bytes, or what there is.
func (v *window) move(off int64, n int) error {
	kept := 0 // at the front, of what is there already
	if at := off - v.base; at >= 0 && at < int64(len(v.buf)) {
		kept = copy(v.buf, v.buf[at:])
	} else if v.stream != nil {
		if err := v.discard(off); err != nil {
			return err
		}
	}
	v.base = off
	v.buf = v.buf[:kept]
	if v.size >= 0 {
		n = int(min(int64(n), max(v.size-off, int64(kept))))
	}
	if cap(v.buf) < n {
		size := pageBytes
		if n > pageBytes {
			size = max(n, windowBytes)
		}
		v.buf = append(make([]byte, 0, size), v.buf...)
	}
	if n == kept {
		return nil
	}
	if v.stream == nil {
		if err := v.src.ReadAt(v.buf[kept:n], off+int64(kept)); err != nil {
			return err
		}
		v.buf = v.buf[:n]
		return nil
	}
	got, err := io.ReadFull(v.stream, v.buf[kept:n])
	v.buf = v.buf[:kept+got]
	return v.ended(err)
}

// discard reads a stream up to off.
func (v *window) discard(off int64) error {
	at := v.base + int64(len(v.buf))
	v.buf = v.buf[:0]
	n, err := io.CopyN(io.Discard, v.stream, off-at)
	v.base = at + n
	return v.ended(err)
}

// ended notes the size of a stream that has come to its end.
func (v *window) ended(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		v.size = v.base + int64(len(v.buf))
		return nil
	}
	return err
}
