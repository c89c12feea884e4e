package tar

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"
)

// difference is a way in which this package and the oracle may disagree.
type difference struct {
	name   string
	reason string
	// fits says whether an archive on which they disagree shows this difference.
	fits func(c *comparison) bool
	// examples are archives that show it, and nothing else.
	examples [][]byte
}

// weRefuse fits archives that the oracle reads and this package refuses with a fault.
func weRefuse(c *comparison, codes ...FaultCode) bool {
	if c.ours.err == nil || c.theirs.refuses() {
		return false
	}
	for _, code := range codes {
		if c.ours.fault.Code == code {
			return true
		}
	}
	return false
}

// differences are all that are accepted: the test below fails on any other.
var differences = []difference{
	{
		name: "silent end",
		reason: "Behind the first member, tarfile takes any block that it cannot use for the end of the archive. " +
			"Samples behind damage would vanish from a training set without a word; this package refuses the archive and says where.",
		fits: func(c *comparison) bool {
			return weRefuse(c, FaultGarbage, FaultTruncated, FaultHeader) &&
				(c.theirs.Stop == "InvalidHeaderError" || c.theirs.Stop == "TruncatedHeaderError") &&
				len(c.ours.samples) <= len(c.theirs.Samples) && c.ours.fault.Offset <= c.theirs.Offset
		},
		examples: [][]byte{
			append(new(archive).file("a.x", "1").data("garbage").b, archiveOf("b.x")...),
			new(archive).file("a.x", "1").file("b.x", "2").b[:2*blockBytes+100],
			new(archive).file("a.x", "1").member(header{name: "b.x", kind: '0', size: "1234567x"}, "").end(),
		},
	},
	{
		name: "unused fields",
		reason: "tarfile takes a header whose mode, owner, time or device number (or the size of a link) is no number for the end " +
			"of the archive, or refuses it. They mean nothing here and are not looked at.",
		fits: func(c *comparison) bool {
			return c.theirs.Stop == "InvalidHeaderError" && unusedFieldIsBad(c.archive, c.theirs.Offset)
		},
		examples: [][]byte{
			new(archive).file("a.x", "1").member(header{name: "b.x", kind: '0', change: func(h []byte) { copy(h[329:], "zzz") }}, "2").end(),
			new(archive).member(header{name: "b.x", kind: '0', change: func(h []byte) { copy(h[108:], "nobody") }}, "2").end(),
			new(archive).file("a.x", "1").member(header{name: "l", kind: '2', size: "?"}, "").file("b.x", "2").end(),
		},
	},
	{
		name: "numbers as Python writes them",
		reason: "tarfile reads sizes with Python's int: a sign, underscores, 0o and control characters as spaces. " +
			"No writer makes them; here they are damage, in PAX records too, where tarfile makes 0 of what int does not read.",
		fits: func(c *comparison) bool {
			return weRefuse(c, FaultHeader) && strings.Contains(c.ours.fault.What, "size") || weRefuse(c, FaultGarbage, FaultNoTar) && (c.theirs.Offset < 0 || c.theirs.Offset > c.ours.fault.Offset)
		},
		examples: [][]byte{
			new(archive).member(header{name: "a.x", kind: '0', size: "0o1"}, "1").end(),
			new(archive).member(header{name: "a.x", kind: '0', size: "+1"}, "1").end(),
			new(archive).member(header{name: "a.x", kind: '0', size: "\x1d1"}, "1").end(),
			new(archive).pax('x', "size=1_0").member(header{name: "a.x", kind: '0'}, "0123456789").end(),
			new(archive).pax('x', "size=?").member(header{name: "a.x", kind: '0'}, "").end(),
		},
	},
	{
		name: "strict PAX headers",
		reason: "Records that do not follow \"length key=value\\n\", two PAX headers or two long names for one member, more than 16 headers " +
			"or 1 MiB of one: tarfile guesses, and other readers guess differently.",
		fits: func(c *comparison) bool {
			return weRefuse(c, FaultHeader) && (strings.Contains(c.ours.fault.What, "PAX") || strings.Contains(c.ours.fault.What, "long name") ||
				strings.Contains(c.ours.fault.What, "headers"))
		},
		examples: [][]byte{
			new(archive).member(header{name: "p", kind: 'x'}, "12 path=b.x\x00").file("a.x", "1").end(),
			new(archive).member(header{name: "p", kind: 'x'}, "99 path=b.x\n").file("a.x", "1").end(),
			new(archive).pax('x', "path=b.x").pax('x', "path=c.x").file("a.x", "1").end(),
			new(archive).member(header{kind: 'L'}, "b.x\x00").member(header{kind: 'L'}, "c.x\x00").file("a.x", "1").end(),
			manyHeaders().file("a.x", "1").end(),
			new(archive).pax('x', "comment="+strings.Repeat("c", maxExtension)).file("a.x", "1").end(),
		},
	},
	{
		name: "global names and sizes",
		reason: "A global PAX header that gives all members one path, size or sparse map makes no sense, and would make it matter " +
			"where a scan begins; tarfile applies it (the size only to the data, not to where the next header is).",
		fits: func(c *comparison) bool {
			return weRefuse(c, FaultHeader) && strings.Contains(c.ours.fault.What, "global")
		},
		examples: [][]byte{
			new(archive).pax('g', "path=b.x").file("a.x", "1").end(),
			new(archive).pax('g', "size=0").file("a.x", "1").end(),
		},
	},
	{
		name: "strict sparse maps",
		reason: "Runs must lie one behind another within the member, add up to what is stored, and have a known version and a size. " +
			"tarfile reads other members' bytes, or makes up zeros, where they do not.",
		fits: func(c *comparison) bool {
			return weRefuse(c, FaultHeader) && (strings.Contains(c.ours.fault.What, "sparse") || strings.Contains(c.ours.fault.What, "GNU.sparse"))
		},
		examples: [][]byte{
			new(archive).pax('x', "GNU.sparse.size=8", "GNU.sparse.map=4,2,0,2").file("a.x", "1234").end(),
			new(archive).pax('x', "GNU.sparse.size=8", "GNU.sparse.map=0,2").file("a.x", "1234").end(),
			new(archive).pax('x', "GNU.sparse.size=2", "GNU.sparse.map=0,4").file("a.x", "1234").end(),
			new(archive).pax('x', "GNU.sparse.major=2", "GNU.sparse.minor=0", "GNU.sparse.realsize=2").file("a.x", "12").end(),
			new(archive).pax('x', "GNU.sparse.name=b.x").file("a.x", "12").end(),
			new(archive).pax('x', "GNU.sparse.size=2", "GNU.sparse.map=0,2").member(header{name: "a", kind: '5'}, "").end(),
		},
	},
	{
		name: "name of a sparse member",
		reason: "GNU tar writes GNU.sparse.name, and behind it, where the mangled name is long, that as path; tarfile takes the last of them, " +
			"GNU tar and this package the real name.",
		fits: func(c *comparison) bool { return bothRead(c) && bytes.Contains(c.archive, []byte("GNU.sparse.name=")) },
		examples: [][]byte{
			new(archive).pax('x', "GNU.sparse.size=2", "GNU.sparse.map=0,2", "GNU.sparse.name=b.x", "path=GNUSparseFile.1/b.x").file("c.x", "12").end(),
		},
	},
	{
		name: "size of a sparse member",
		reason: "The PAX record size of a sparse member is what is stored (GNU tar writes it above 8 GiB); tarfile mixes it up with the " +
			"expanded size, whichever comes last.",
		fits: func(c *comparison) bool {
			return bytes.Contains(c.archive, []byte("GNU.sparse.")) && bytes.Contains(c.archive, []byte(" size="))
		},
		examples: [][]byte{
			new(archive).pax('x', "GNU.sparse.size=8", "GNU.sparse.map=6,2", "size=2").file("c.x", "12").end(),
			new(archive).pax('x', "size=2", "GNU.sparse.size=1000", "GNU.sparse.map=6,2").file("c.x", "12").file("d.x", "1").end(),
		},
	},
	{
		name: "times are no prefix",
		reason: "GNU headers, and star's behind byte 131, keep times where POSIX headers keep a prefix of the name. " +
			"tarfile makes them part of it (GNU tar --incremental, python/cpython's tarfile.frombuf).",
		fits: func(c *comparison) bool {
			for at := 0; at+blockBytes <= len(c.archive); at += blockBytes {
				h := c.archive[at:]
				gnu := bytes.HasPrefix(h[magicField:], magicGNU) && h[prefixField] != 0
				if gnu || bytes.HasPrefix(h[starTrailer:], magicStar) && h[prefixField+starPrefix] != 0 {
					return true
				}
			}
			return false
		},
		examples: [][]byte{
			new(archive).member(header{name: "a.x", kind: '0', magic: string(magicGNU), prefix: "15300653666"}, "1").end(),
			new(archive).member(header{name: "a.x", kind: '0', prefix: strings.Repeat("p", starPrefix) + "15300653666", change: func(h []byte) {
				copy(h[starTrailer:], magicStar)
			}}, "1").end(),
		},
	},
	{
		name:   "capitals beyond ASCII",
		reason: "Of a suffix that is no UTF-8, webdataset lower-cases the letters beyond ASCII too; here only ASCII letters change.",
		fits: func(c *comparison) bool {
			return !utf8.Valid(c.archive) && strings.IndexFunc(string(c.archive), func(r rune) bool { return r > 127 && r != 0xfffd }) >= 0
		},
		examples: [][]byte{archiveOf("a.Ä\xff"), archiveOf("a.ä\xff", "a.Ä\xff")},
	},
	{
		name: "reserved suffixes",
		reason: "webdataset drops a sample that has a part __bad__, and Stoker gives batches a column __present__: an error " +
			"instead of a sample that is missing.",
		fits:     func(c *comparison) bool { return weRefuse(c, FaultReserved) },
		examples: [][]byte{archiveOf("a.__bad__"), archiveOf("a.x", "a.__present__")},
	},
	{
		name:     "parts of a sample",
		reason:   "More than 4096 parts of one sample come of names with the counter behind a dot; webdataset makes one endless sample.",
		fits:     func(c *comparison) bool { return weRefuse(c, FaultParts) },
		examples: [][]byte{endlessSample(MaxParts + 1)},
	},
	{
		name:     "long names",
		reason:   "A name has at most 4096 bytes, as paths on Linux have; keys are held in memory and shown to people.",
		fits:     func(c *comparison) bool { return weRefuse(c, FaultName) },
		examples: [][]byte{new(archive).member(header{kind: 'L'}, strings.Repeat("n", maxNameBytes)+".x\x00").file("a.x", "1").end()},
	},
	{
		name:   "unreadable hdrcharset",
		reason: "tarfile refuses a PAX header whose hdrcharset is no UTF-8; names are bytes here, and it is not looked at.",
		fits: func(c *comparison) bool {
			return c.ours.err == nil && strings.HasPrefix(c.theirs.Error, "UnicodeDecodeError") && bytes.Contains(c.archive, []byte("hdrcharset="))
		},
		examples: [][]byte{new(archive).pax('x', "hdrcharset=\xff").file("a.x", "1").end()},
	},
}

func bothRead(c *comparison) bool { return c.ours.err == nil && !c.theirs.refuses() }

// unusedFieldIsBad says whether a whole header's checksum is right and a number that
// this package does not look at is none.
func unusedFieldIsBad(archive []byte, offset int64) bool {
	if offset < 0 || offset+blockBytes > int64(len(archive)) {
		return false
	}
	h := [blockBytes]byte(archive[offset:])
	if !checksumOK(&h) {
		return false
	}
	fields := [][2]int{{100, 8}, {108, 8}, {116, 8}, {136, 12}, {329, 8}, {337, 8}}
	if !hasData(h[typeField]) || nameIsDirectory(&h) {
		fields = append(fields, [2]int{sizeField, numberBytes})
	}
	for _, f := range fields {
		field := h[f[0] : f[0]+f[1]]
		// Python reads ASCII only, and marks of base 256 only whole.
		if _, ok := number(field); !ok {
			return field[0] != 0x80 && field[0] != 0xff
		}
	}
	return false
}

func manyHeaders() *archive {
	var a archive
	for range maxChain + 1 {
		a.member(header{kind: 'K'}, "link")
	}
	return &a
}

func endlessSample(parts int) []byte {
	var a archive
	for i := range parts {
		a.header(header{name: "img." + string(rune('a'+i/676%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i%26)) + ".jpg", kind: '0'}, 0)
	}
	return a.end()
}

// listedFor is the version of Python that every example shows its difference with.
const listedFor = "3.11."

// explain returns the differences that an archive shows, if it shows any.
func explain(c *comparison) []string {
	var names []string
	for _, d := range differences {
		if d.fits(c) {
			names = append(names, d.name)
		}
	}
	return names
}

func TestDifferencesFromTheOracleAreThoseListed(t *testing.T) {
	o := startOracle(t)
	for _, d := range differences {
		if d.reason == "" || len(d.examples) == 0 {
			t.Errorf("%s: no reason or no example", d.name)
		}
		for i, example := range d.examples {
			c := o.compare(t, example)
			if c.equal() && !strings.HasPrefix(c.theirs.Python, listedFor) {
				continue // another version may have repaired it
			}
			if c.equal() {
				t.Errorf("%s: example %d is no difference: ours %v, %v", d.name, i, c.ours.samples, c.ours.err)
			} else if !d.fits(&c) {
				t.Errorf("%s: example %d does not fit: ours %v, %v; theirs %+v", d.name, i, c.ours.samples, c.ours.err, c.theirs)
			}
		}
	}
	for _, names := range [][]string{{"a.Ä"}, {"a.ä", "a.Ä"}, {"a.ΣΑΣ", "a.Σ.x"}, {"a.İ"}, {"a.ẞ", "a.ß"}, {"\xff.Ä"}} { // capitals beyond ASCII
		if c := o.compare(t, archiveOf(names...)); !c.equal() {
			t.Errorf("%q: ours %v, %v; theirs %+v", names, c.ours.samples, c.ours.err, c.theirs)
		}
	}
	for name, archive := range golden(t) {
		check(t, o, name, archive)
	}
	seed := rand.New(rand.NewPCG(1, 2))
	seeds := seedArchives(t)
	for i := range 4000 {
		check(t, o, "generated", mutate(seed, seeds[i%len(seeds)]))
		if t.Failed() {
			return
		}
	}
}

// check fails if there is a difference that is not listed.
func check(t *testing.T, o *oracle, name string, archive []byte) {
	t.Helper()
	if tooLarge(archive) {
		return
	}
	c := o.compare(t, archive)
	if !c.equal() && len(explain(&c)) == 0 {
		t.Errorf("%s: a difference that is not listed:\nours %v, %v\ntheirs %v, %+v\narchive %q", name,
			c.ours.samples, c.ours.err, c.theirs.found(), c.theirs, bytes.ReplaceAll(archive, []byte("\x00"), nil))
	}
}

// tooLarge says whether the oracle would expand a sparse member to more than a test
// should.
func tooLarge(archive []byte) bool {
	w := NewWalker(&memory{b: archive})
	for {
		m, err := w.Next()
		if err != nil {
			return false
		}
		if m.Sparse != nil && m.Size > maxExpanded {
			return true
		}
	}
}
