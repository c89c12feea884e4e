package tar

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/stokerio/stoker/backend"
)

// maxWindow is the most memory that a compressed stream may ask for to look back to:
// what `xz -9` (64 MiB) and `zstd --ultra -22` (128 MiB) need.
const maxWindow = 128 << 20

// magics are the first bytes of what archives are compressed with. Of bzip2 the first
// block's (or, of nothing, the end's) is looked at as well, as "BZh9" could begin the
// name of a member.
var magics = []struct{ kind, first, tenth string }{
	{kindGzip, "\x1f\x8b\x08", ""},
	{kindBzip2, "BZh", "1AY&SY"},
	{kindBzip2, "BZh", "\x17\x72\x45\x38\x50\x90"},
	{kindXZ, "\xfd7zXZ\x00", ""},
	{kindZstd, "\x28\xb5\x2f\xfd", ""},
}

// strangers are formats that archives come in too, and that are not read.
var strangers = []struct{ name, first string }{
	{"lzma (the format before xz)", "\x5d\x00\x00"},
	{"lzip", "LZIP\x01"},
	{"lz4", "\x04\x22\x4d\x18"},
	{"compress", "\x1f\x9d"},
	{"zip", "PK\x03\x04"},
	{"7z", "7z\xbc\xaf\x27\x1c"},
}

// archiveKind says what the archive that in reads is compressed with. What is not
// known is taken for a plain archive: the Walker says what is wrong with it.
func archiveKind(in backend.Reader, o *backend.Object) (string, error) {
	b := make([]byte, min(16, o.Version.Size))
	if err := in.ReadAt(b, 0); err != nil {
		return "", err
	}
	for _, m := range magics {
		if bytes.HasPrefix(b, []byte(m.first)) && (m.tenth == "" || len(b) >= 10 && string(b[4:10]) == m.tenth) {
			return m.kind, nil
		}
	}
	if len(b) >= 4 && b[0]&0xf0 == 0x50 && string(b[1:4]) == "\x2a\x4d\x18" {
		return kindZstd, nil // a frame to be skipped, which parallel compressors put first
	}
	for _, s := range strangers {
		if bytes.HasPrefix(b, []byte(s.first)) {
			return "", &backend.Error{
				Kind: backend.Invalid, Op: "open archive", Object: string(o.Name),
				Detail: "it is compressed with " + s.name + "; archives are read plain or compressed with gzip, bzip2, xz or zstd",
				Remedy: "write it again as a plain tar archive",
			}
		}
	}
	return kindTar, nil
}

// compressed is an object that is read front to back.
type compressed struct {
	in     backend.Reader
	object *backend.Object
	at     int64 // of the next byte to read
	err    error // of the origin
	buffer *bufio.Reader
}

func newCompressed(in backend.Reader, o *backend.Object) *compressed {
	c := &compressed{in: in, object: o}
	c.buffer = bufio.NewReaderSize(c, 256<<10)
	return c
}

// Read implements io.Reader below the buffer.
func (c *compressed) Read(p []byte) (int, error) {
	n := min(int64(len(p)), c.object.Version.Size-c.at)
	if n == 0 {
		return 0, io.EOF
	}
	if err := c.in.ReadAt(p[:n], c.at); err != nil {
		c.err = err
		return 0, err
	}
	c.at += n
	return int(n), nil
}

// consumed is how many compressed bytes have been used.
func (c *compressed) consumed() int64 { return c.at - int64(c.buffer.Buffered()) }

// decompress returns the stream of what c decompresses to. It ends with io.EOF where
// c does; all other errors are complete.
func (c *compressed) decompress(kind string) (io.Reader, error) {
	var stream io.Reader
	var err error
	switch kind {
	case kindGzip:
		stream = &gzipStream{from: c.buffer}
	case kindBzip2:
		stream = bzip2.NewReader(c.buffer)
	case kindXZ:
		stream = &xzStream{from: c.buffer}
	case kindZstd:
		// One goroutine, this one: several shards are unpacked at once.
		stream, err = zstd.NewReader(c.buffer, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecodeBuffersBelow(0))
	default:
		err = fmt.Errorf("no stream of kind %q", kind)
	}
	if err != nil {
		return nil, c.explain(kind, err)
	}
	return &explained{c, kind, stream}, nil
}

// explained completes a stream's errors.
type explained struct {
	*compressed
	kind   string
	stream io.Reader
}

func (e *explained) Read(p []byte) (int, error) {
	n, err := e.stream.Read(p)
	if err != nil && err != io.EOF {
		err = e.explain(e.kind, err)
	}
	return n, err
}

const remedyRewrite = "copy or write the archive again"

// What follows the end of compressed data without being more of them. Behind zstd and
// bzip2, what is shorter than their magic is taken for a stream that is cut short.
var (
	errBehind            = errors.New("something else follows")
	errBehindBzip2 error = bzip2.StructuralError("bad magic value in continuation file")
)

// explain says what a decompressor's error means and where it was.
func (c *compressed) explain(kind string, err error) error {
	if c.err != nil {
		return c.err
	}
	e := &backend.Error{Kind: backend.Corrupt, Op: "unpack", Object: string(c.object.Name), Err: err, Remedy: remedyRewrite}
	where := fmt.Sprintf("%s stream at compressed byte %d of %d", kind, c.consumed(), c.object.Version.Size)
	var refused *unsupported
	switch {
	case errors.As(err, &refused):
		e.Kind, e.Detail, e.Remedy = backend.Invalid, where, refused.remedy
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		e.Kind, e.Remedy = backend.Invalid, "compress it again without --long, or with at most --long=27"
		e.Detail = fmt.Sprintf("%s: it asks for a window of more than %d MiB", where, maxWindow>>20)
	case errors.Is(err, zstd.ErrUnknownDictionary):
		e.Kind, e.Detail, e.Remedy = backend.Invalid, where, "compress it again without a dictionary"
	case errors.Is(err, errBehind), errors.Is(err, zstd.ErrMagicMismatch), errors.Is(err, errBehindBzip2): // the first magic was right
		e.Detail = where + ": garbage behind the end of the compressed data"
	case errors.Is(err, io.ErrUnexpectedEOF):
		e.Detail = where + ": it ends within its data: it is cut short"
	default:
		e.Detail = where
	}
	return e
}

// unsupported is what a stream may say and still not be read.
type unsupported struct{ what, remedy string }

func (u *unsupported) Error() string { return u.what }

// tooLarge is the error for an archive that decompresses to more than it may.
func (c *compressed) tooLarge(total int64) error {
	return &backend.Error{
		Kind: backend.Invalid, Op: "unpack", Object: string(c.object.Name),
		Detail: fmt.Sprintf("%d compressed bytes stand for more than %d; at most %d are unpacked for each byte, and %d in all",
			c.consumed(), total-unpackBytes, maxRatio, int64(maxUnpacked)),
		Remedy: "store such an archive plain, in shards of at most a few GB",
	}
}

// gzipStream reads the members of a gzip file one after another. As Python's gzip
// module does, it takes zeros behind a member for padding, and refuses everything else.
type gzipStream struct {
	from   *bufio.Reader
	reader *gzip.Reader
	inside bool // a member
}

func (g *gzipStream) Read(p []byte) (int, error) {
	for {
		if !g.inside {
			if err := g.next(); err != nil {
				return 0, err
			}
		}
		n, err := g.reader.Read(p)
		if err == io.EOF {
			g.inside, err = false, nil
		}
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
	}
}

// next begins the next member.
func (g *gzipStream) next() error {
	var err error
	if g.reader == nil {
		g.reader, err = gzip.NewReader(g.from)
	} else {
		if err := skipZeros(g.from); err != nil {
			return err
		}
		if b, _ := g.from.Peek(2); !strings.HasPrefix("\x1f\x8b", string(b)) {
			return errBehind // or the origin's error, which explain prefers
		}
		err = g.reader.Reset(g.from)
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF // there is at least one byte of it
	}
	if err != nil {
		return err
	}
	g.reader.Multistream(false)
	g.inside = true
	return nil
}

// skipZeros goes to the next byte that is not zero; io.EOF if there is none.
func skipZeros(r *bufio.Reader) error {
	for {
		b, err := r.ReadByte()
		if err != nil {
			return err
		}
		if b != 0 {
			return r.UnreadByte()
		}
	}
}
