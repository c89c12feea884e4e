package flashtest

import "slices"

// ranges are the parts of a file that take room: in order, apart from one another, in
// whole pages.
type ranges []pageRange

// pageRange is [from, to) in bytes.
type pageRange struct{ from, to int64 }

func (r ranges) bytes() (n int64) {
	for _, one := range r {
		n += one.to - one.from
	}
	return n
}

// with is r and the pages of [off, off+n).
func (r ranges) with(off, n int64) ranges {
	add := pageRange{off &^ (pageBytes - 1), (off + n + pageBytes - 1) &^ (pageBytes - 1)}
	first := slices.IndexFunc(r, func(one pageRange) bool { return one.to >= add.from })
	if first < 0 {
		return append(slices.Clone(r), add)
	}
	last := first
	for last < len(r) && r[last].from <= add.to {
		add.from, add.to = min(add.from, r[last].from), max(add.to, r[last].to)
		last++
	}
	return slices.Concat(r[:first], ranges{add}, r[last:])
}

// covers reports whether [off, off+n) takes no room more.
func (r ranges) covers(off, n int64) bool {
	at, found := slices.BinarySearchFunc(r, off, func(one pageRange, off int64) int {
		switch {
		case one.to <= off:
			return -1
		case one.from > off:
			return 1
		}
		return 0
	})
	return found && off+n <= r[at].to
}

// take gives a file room for [off, off+n), if there is as much. The lock is held.
func (f *Files) take(n *node, off, bytes int64) bool {
	if bytes == 0 || n.room.covers(off, bytes) {
		return true
	}
	room := n.room.with(off, bytes)
	more := room.bytes() - n.room.bytes()
	if f.capacity > 0 && f.taken+more > f.capacity {
		return false
	}
	n.room = room
	f.taken += more
	return true
}
