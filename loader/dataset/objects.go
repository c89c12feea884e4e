package dataset

import "encoding/binary"

// ObjectTable finds the place of a file in Plan.Objects: a hash table with open
// addressing in the plan's own storage, so that it allocates nothing once that has
// grown. It is for Views whose samples share files.
//
// An entry is 8 bytes: u32 number of the file, u32 place+1 (0: free).
type ObjectTable struct {
	entries []byte
	mask    uint32
}

// NewObjectTable returns an empty table for up to n files. It is valid until the next
// one of the same plan.
func NewObjectTable(p *Plan, n int) ObjectTable {
	slots := 16
	for slots < 2*n {
		slots *= 2
	}
	if cap(p.table) < 8*slots {
		p.table = make([]byte, 8*slots)
	}
	t := ObjectTable{entries: p.table[:8*slots], mask: uint32(slots - 1)}
	clear(t.entries)
	return t
}

// Find returns the place of a file, and whether it was there; if not, it is noted at
// place next.
func (t ObjectTable) Find(file uint32, next int) (place int, found bool) {
	le := binary.LittleEndian
	for slot := file * 0x9E3779B1 & t.mask; ; slot = (slot + 1) & t.mask {
		e := t.entries[8*slot:][:8]
		used := le.Uint32(e[4:])
		if used == 0 {
			le.PutUint32(e, file)
			le.PutUint32(e[4:], uint32(next+1))
			return next, false
		}
		if le.Uint32(e) == file {
			return int(used - 1), true
		}
	}
}
