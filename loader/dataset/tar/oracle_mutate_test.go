package tar

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// seedArchives are what mutations start from: small archives with all that a reader
// must know, and what other programs wrote.
func seedArchives(t testing.TB) [][]byte {
	all := [][]byte{
		archiveOf("a.jpg", "a.cls", "b.jpg", "b.cls", "dir/c.jpg", "dir/.hidden", "x", "__m__/y.z", "A.JPG"),
		archiveOf("a.x", "b.x", "a.x"),
		archiveOf("a.x", "a.X"),
		new(archive).pax('g', "comment=all").pax('x', "path=long/name.x", "mtime=1.5").file("short", "12").file("b.x", "3").end(),
		new(archive).member(header{kind: 'L', magic: string(magicGNU)}, "long/name.x\x00").file("short.x", "12").
			member(header{kind: 'K'}, "target\x00").member(header{name: "l", kind: '2', size: "00000000777"}, "").file("b.x", "3").end(),
		new(archive).pax('x', "GNU.sparse.size=2000", "GNU.sparse.numblocks=1", "GNU.sparse.offset=600", "GNU.sparse.numbytes=5", "GNU.sparse.offset=2000", "GNU.sparse.numbytes=0").
			file("a.x", "12345").file("b.x", "3").end(),
		new(archive).pax('x', "GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=a.x", "GNU.sparse.realsize=2000").
			file("m/a.x", "2\n600\n5\n2000\n0\n"+string(make([]byte, blockBytes-15))+"12345").file("b.x", "3").end(),
		oldSparse(2000, 600, 5, 2000, 0),
		new(archive).file("a.x", "").member(header{name: "dir/", kind: '0'}, "").member(header{name: "dir/", kind: 0}, "").member(header{name: "what.x", kind: 'Q'}, "data").
			member(header{name: "c.x", kind: '7'}, "cont").member(header{name: "d.x", kind: 0}, "old").member(header{name: "l.x", kind: '1'}, "").end(),
		new(archive).member(header{name: "n.x", kind: '0', prefix: "p/q"}, "1").member(header{name: "a.x", kind: '0', size: "\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02"}, "12").end(),
		append(new(archive).file("a.x", "1").b, make([]byte, blockBytes)...),
		new(archive).file("a.x", "1").b,
		append(archiveOf("a.x"), archiveOf("b.x")...),
	}
	for _, b := range golden(t) {
		if len(b) <= 16<<10 {
			all = append(all, b)
		}
	}
	return all
}

// oldSparse is an archive with a member of type S of that size and runs, each an
// offset and a length.
func oldSparse(size int, runs ...int) []byte {
	stored := 0
	for i := 1; i < len(runs); i += 2 {
		stored += runs[i]
	}
	var a archive
	a.header(header{name: "a.x", kind: 'S', magic: string(magicGNU), change: func(h []byte) {
		octal(h[sparseSizeField:], size)
		for i, n := range runs[:min(len(runs), 2*sparseInHeader)] {
			octal(h[sparseField+numberBytes*i:], n)
		}
		if len(runs) > 2*sparseInHeader {
			h[sparseMoreField] = 1
		}
	}}, stored)
	for rest := runs[min(len(runs), 2*sparseInHeader):]; len(rest) > 0; {
		var block [blockBytes]byte
		n := min(len(rest), 2*sparseInBlock)
		for i, r := range rest[:n] {
			octal(block[numberBytes*i:], r)
		}
		if rest = rest[n:]; len(rest) > 0 {
			block[sparseBlockMore] = 1
		}
		a.b = append(a.b, block[:]...)
	}
	return a.data(string(bytes.Repeat([]byte("s"), stored))).file("b.x", "3").end()
}

// octal writes a number as headers have it.
func octal(b []byte, n int) {
	for i := numberBytes - 2; i >= 0; i-- {
		b[i] = byte('0' + n&7)
		n >>= 3
	}
}

// mutate changes a few things in an archive; half of the time headers keep right
// checksums, or nothing behind them would ever be reached.
func mutate(r *rand.Rand, seed []byte) []byte {
	b := bytes.Clone(seed)
	repair := r.IntN(2) == 0
	for range 1 + r.IntN(3) {
		if len(b) == 0 {
			break
		}
		at := r.IntN(len(b))
		block := at &^ (blockBytes - 1)
		switch r.IntN(10) {
		case 0:
			b = b[:at]
		case 1:
			b = b[:block]
		case 2: // a block less
			b = append(b[:block:block], b[min(block+blockBytes, len(b)):]...)
		case 3: // a block twice
			b = append(b[:min(block+blockBytes, len(b)):min(block+blockBytes, len(b))], b[block:]...)
		case 4: // zeros
			b = append(b[:block:block], append(make([]byte, blockBytes), b[block:]...)...)
		case 5: // a field
			fields := [...]int{0, 3, sizeField, sizeField + 9, sizeField + 10, typeField, magicField, prefixField, sparseField + 11, sparseMoreField, sparseSizeField + 10}
			if i := block + fields[r.IntN(len(fields))]; i < len(b) {
				interesting := []byte("\x00\x00\xff\x80 0127SxgLKX./_A-+9\n=")
				b[i] = interesting[r.IntN(len(interesting))]
			}
		case 6: // a digit or letter in text
			if i := bytes.IndexAny(b[at:], "0123456789=./"); i >= 0 {
				b[at+i] = "0123456789=./\n"[r.IntN(14)]
			}
		default:
			b[at] = byte(r.IntN(256))
		}
		if repair {
			repairSums(seed, b)
		}
	}
	return b
}

// repairSums gives the blocks of b that are changed headers of the seed a checksum
// that fits.
func repairSums(seed, b []byte) {
	for at := 0; at+blockBytes <= len(b) && at+blockBytes <= len(seed); at += blockBytes {
		old := [blockBytes]byte(seed[at:])
		if !isZero(old[:]) && checksumOK(&old) && !bytes.Equal(old[:], b[at:at+blockBytes]) && !isZero(b[at:at+blockBytes]) {
			sum(b[at : at+blockBytes])
		}
	}
}
