package flash_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/flash"
	"github.com/stokerio/stoker/backend/flash/flashtest"
)

var update = flag.Bool("update", false, "write testdata anew; only together with a new FormatVersion")

// goldenManifest is format.json of the device whose segment is in testdata.
const goldenManifest = `{
  "format": "stoker-flash",
  "version": 1,
  "device": "000102030405060708090a0b0c0d0e0f",
  "span_bytes": 65536,
  "segment_spans": 2
}
`

const goldenSegment = "segments/00000000.seg"

// goldenChunks are what is in that segment, in the order in which it was stored.
func goldenChunks() (all []struct {
	chunk   backend.Chunk
	content []byte
}) {
	add := func(object string, content []byte) {
		c := backend.Chunk{ID: backend.ContentID(content), Size: int64(len(content))}
		if object != "" {
			c = backend.Chunk{Size: c.Size, Object: &backend.Object{Origin: "file:1:2", Name: []byte(object), Version: backend.Version{Size: c.Size, Tag: "v1"}}}
		}
		all = append(all, struct {
			chunk   backend.Chunk
			content []byte
		}{c, content})
	}
	add("", []byte("a chunk that was put"))
	add("", nil)
	add("train/0001.jpg", []byte("a copy of a file of an origin"))
	add("", bytes.Repeat([]byte("larger than a page; "), 500))
	return all
}

func goldenFiles(t *testing.T) *flashtest.Files {
	t.Helper()
	files := flashtest.New()
	if err := files.MakeDirectory("segments"); err != nil {
		t.Fatal(err)
	}
	writeFile(t, files, "format.json", []byte(goldenManifest))
	return files
}

func writeFile(t *testing.T, files *flashtest.Files, name string, content []byte) {
	t.Helper()
	f, err := files.Open(name, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close(), files.SyncDirectory("."), files.SyncDirectory("segments")); err != nil {
		t.Fatal(err)
	}
}

func goldenStore(t *testing.T, files *flashtest.Files) *flash.Store {
	t.Helper()
	return open(t, flash.Options{Devices: []flash.Device{{Path: "/golden", Files: files, LimitBytes: 1 << 21}}})
}

// part is a part of a segment, and what it is.
type part struct {
	at, bytes int
	what      string
}

// goldenParts are all of that segment that is not zero. See format.go.
func goldenParts() (all []part) {
	const head, span, ledger = 1 << 20, 64 << 10, 2 << 10
	at := 0
	field := func(bytes int, what string) {
		all = append(all, part{at, bytes, what})
		at += bytes
	}
	field(8, "header: magic")
	field(4, "version of the format")
	field(4, "CRC32C of what follows, up to 512")
	field(16, "device")
	field(4, "number of the segment")
	field(4, "spans")
	field(8, "bytes of a span")
	// Where chunks are: the span, the extent, the size of the extents.
	places := []struct{ span, extent, size int }{{0, 0, 4096}, {0, 1, 4096}, {0, 2, 4096}, {1, 0, 3 * 4096}}
	for i, c := range goldenChunks() {
		p := places[i]
		at = head + p.span*span + p.extent*p.size
		field(len(c.content), fmt.Sprintf("span %d, extent %d: chunk %s", p.span, p.extent, c.chunk.Identity()))
	}
	for i := range goldenChunks() {
		p := places[i]
		at = head + 2*span + p.span*ledger + p.extent*128
		field(4, fmt.Sprintf("record of span %d, extent %d: magic", p.span, p.extent))
		field(4, "CRC32C of what follows, of the device and of the place")
		field(32, "chunk")
		field(8, "sequence number")
		field(4, "extents of the span")
		field(4, "bytes of the chunk")
		field(1, "kind: 1 filled, 2 put")
		field(1, "blocks that are there")
		at += 6
		field(4, "CRC32C of block 0")
	}
	return all
}

// dump writes the parts of a file down; what is in none of them must be zero.
func dump(t *testing.T, content []byte) []byte {
	t.Helper()
	var text bytes.Buffer
	fmt.Fprintf(&text, "# A segment of the format of version %d, %d bytes: offset, bytes, what they are.\n# What is not named is zero. Written by TestFormat.\n", flash.FormatVersion, len(content))
	rest := bytes.Clone(content)
	for _, p := range goldenParts() {
		fmt.Fprintf(&text, "\n# %s\n", p.what)
		for i := 0; i < p.bytes; i += 32 {
			line := content[p.at+i : p.at+min(p.bytes, i+32)]
			fmt.Fprintf(&text, "%08x %x\n", p.at+i, line)
		}
		clear(rest[p.at : p.at+p.bytes])
	}
	for i, b := range rest {
		if b != 0 {
			t.Fatalf("the byte at %#x is in no part of the format: %02x", i, b)
		}
	}
	return text.Bytes()
}

// undump is the file that was written down.
func undump(t *testing.T, text []byte) []byte {
	t.Helper()
	var size int
	if _, err := fmt.Sscanf(string(text), "# A segment of the format of version 1, %d bytes:", &size); err != nil {
		t.Fatal(err)
	}
	content := make([]byte, size)
	for line := range strings.Lines(string(text)) {
		offset, digits, found := strings.Cut(strings.TrimSpace(line), " ")
		if !found || offset == "#" {
			continue
		}
		at, err := strconv.ParseInt(offset, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		p, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatal(err)
		}
		copy(content[at:], p)
	}
	return content
}

// What is written is byte for byte what it was since the format has its version.
func TestFormat(t *testing.T) {
	files := goldenFiles(t)
	s := goldenStore(t, files)
	for _, c := range goldenChunks() {
		var err error
		if c.chunk.Object == nil {
			_, err = s.Put(t.Context(), c.content)
		} else {
			err = s.Fill(t.Context(), c.chunk, c.content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join("testdata", fmt.Sprintf("segment-%d.txt", flash.FormatVersion))
	found := dump(t, files.Content(goldenSegment))
	if *update {
		if err := os.WriteFile(name, found, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(found, want) {
		t.Errorf("the format is not that of %s (-update writes it anew; then FormatVersion must change as well):\n%s", name, found)
	}
}

// What is in testdata is read: chunks that were stored by any program of this version.
func TestFormatIsRead(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", fmt.Sprintf("segment-%d.txt", flash.FormatVersion)))
	if err != nil {
		t.Fatal(err)
	}
	files := goldenFiles(t)
	writeFile(t, files, goldenSegment, undump(t, text))
	s := goldenStore(t, files)
	for i, c := range goldenChunks() {
		p := make([]byte, len(c.content))
		if err := s.ReadAt(t.Context(), c.chunk, p, 0); err != nil || !bytes.Equal(p, c.content) {
			t.Errorf("chunk %d: %q, %v", i, p, err)
		}
	}
}

func TestOtherVersionsAreRefused(t *testing.T) {
	for name, change := range map[string][2]string{
		"a later version":   {`"version": 1`, `"version": 2`},
		"another format":    {"stoker-flash", "other-flash"},
		"no device":         {"000102030405060708090a0b0c0d0e0f", "0001"},
		"no digits":         {"000102030405060708090a0b0c0d0e0f", "zz0102030405060708090a0b0c0d0e0f"},
		"a small span":      {"65536", "4096"},
		"an odd span":       {"65536", "65537"},
		"too many spans":    {`"segment_spans": 2`, `"segment_spans": 33`},
		"no spans":          {`"segment_spans": 2`, `"segment_spans": 0`},
		"cut in the middle": {"\"segment_spans\": 2\n}\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			files := flashtest.New()
			if err := files.MakeDirectory("segments"); err != nil {
				t.Fatal(err)
			}
			writeFile(t, files, "format.json", []byte(strings.Replace(goldenManifest, change[0], change[1], 1)))
			_, err := flash.Open(t.Context(), flash.Options{Devices: []flash.Device{{Path: "/golden", Files: files}}})
			if !errors.Is(err, flash.ErrNoDevice) {
				t.Errorf("open: %v", err)
			}
		})
	}
}
