package tar

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/zeebo/blake3"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/seekable"
)

// maxExpandedMember is what one sparse member may expand to. Samples are read as a
// whole, so more than this would not be read anyway.
const maxExpandedMember = 1 << 30

// sparsePart is a sparse member that is to be expanded.
type sparsePart struct {
	Size int64       // expanded
	Runs []SparseRun // ascending, within Size; their Data is in the archive
}

// expandSparse writes the expanded parts one after another into one seekable file in
// dir, unless an earlier scan has left it there, and returns the object that holds
// them and where each begins. src reads the archive, at any offset; o is the shard,
// for which the file is named.
//
// Errors: Invalid for a part that expands to more than 1 GiB, or a shard to more than
// 1 TiB; those of src, and NoSpace and the like for dir.
func expandSparse(ctx context.Context, src Source, parts []sparsePart, dir string, o *backend.Object) (backend.Object, []int64, error) {
	offsets, total := make([]int64, len(parts)), int64(0)
	for i := range parts {
		size := parts[i].Size
		if size > maxExpandedMember || size > maxUnpacked-total {
			return backend.Object{}, nil, &backend.Error{
				Kind: backend.Invalid, Op: "expand sparse member", Object: string(o.Name),
				Detail: fmt.Sprintf("it expands to %d bytes, after %d of others; at most %d are expanded of one, and %d of a shard", size, total, maxExpandedMember, int64(maxUnpacked)),
				Remedy: "write the archive again without --sparse, or without members that are mostly holes",
			}
		}
		offsets[i] = total
		total += size
	}
	name := seekable.NameOf("expanded "+identity(parts), o)
	expanded, found, err := findSeekable(ctx, nil, o, dir, name)
	if err != nil || found && expanded.Version.Size == total {
		return expanded, offsets, err
	}
	w, err := seekable.Create(dir)
	if err != nil {
		return backend.Object{}, nil, err
	}
	e := expander{ctx: ctx, src: src, to: w, buffer: make([]byte, unpackBytes)}
	for i := range parts {
		if err := e.expand(&parts[i]); err != nil {
			w.Abort()
			return backend.Object{}, nil, err
		}
	}
	expanded, err = w.Finish(name, o)
	return expanded, offsets, err
}

// identity tells lists of parts apart: which are expanded depends on what a scan
// leaves out.
func identity(parts []sparsePart) string {
	h := blake3.New()
	var b []byte
	for i := range parts {
		b = binary.LittleEndian.AppendUint64(b[:0], uint64(parts[i].Size))
		for _, r := range parts[i].Runs {
			b = binary.LittleEndian.AppendUint64(b, uint64(r.Offset))
			b = binary.LittleEndian.AppendUint64(b, uint64(r.Length))
			b = binary.LittleEndian.AppendUint64(b, uint64(r.Data))
		}
		h.Write(binary.LittleEndian.AppendUint64(b, uint64(len(parts[i].Runs))))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// expander writes expanded members.
type expander struct {
	ctx    context.Context //nolint:containedctx // of the one call that it lives for
	src    Source
	to     *seekable.Writer
	buffer []byte
}

func (e *expander) expand(part *sparsePart) error {
	at := int64(0)
	for _, r := range part.Runs {
		if r.Offset < at || r.Length < 0 || r.Offset > part.Size || r.Length > part.Size-r.Offset {
			return fmt.Errorf("expand sparse member: run of %d bytes at %d after %d of %d", r.Length, r.Offset, at, part.Size)
		}
		if err := e.holes(r.Offset - at); err != nil {
			return err
		}
		if err := e.copy(r.Data, r.Length); err != nil {
			return err
		}
		at = r.Offset + r.Length
	}
	return e.holes(part.Size - at)
}

// holes writes n zeros.
func (e *expander) holes(n int64) error {
	clear(e.buffer[:min(n, int64(len(e.buffer)))])
	return e.write(n, func([]byte, int64) error { return nil })
}

// copy writes n bytes of the archive from off.
func (e *expander) copy(off, n int64) error {
	return e.write(n, func(p []byte, done int64) error { return e.src.ReadAt(p, off+done) })
}

// write writes n bytes, each piece of the buffer after fill has filled it.
func (e *expander) write(n int64, fill func(p []byte, done int64) error) error {
	for done := int64(0); done < n; {
		if e.ctx.Err() != nil {
			return fmt.Errorf("expand sparse member: %w", context.Cause(e.ctx))
		}
		p := e.buffer[:min(n-done, int64(len(e.buffer)))]
		if err := fill(p, done); err != nil {
			return err
		}
		if _, err := e.to.Write(p); err != nil {
			return err
		}
		done += int64(len(p))
	}
	return nil
}
