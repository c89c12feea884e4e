package dataset

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/stokerio/stoker/backend"
)

// Reasons for which a scan leaves files out, keys of Info.Skipped.
const (
	SkippedHidden      = "hidden"       // a name or directory begins with a dot
	SkippedNotIncluded = "not included" // no include pattern matches
)

// progressFiles is how many files pass between two calls of a Progress.
const progressFiles = 1000

// Listing is the files of an origin that belong to a dataset, in the order of their
// paths by bytes. Its memory is bounded (see sorter): the rest waits in a file.
type Listing struct {
	Origin  string         // backend.Object.Origin of all files
	Files   int64          // that belong to the dataset
	Bytes   int64          // of these files
	Skipped map[string]int // files left out, by reason
	Seen    string         // a few of the files that were left out, for error messages

	sorter *sorter
}

// List lists an origin's objects once and keeps those that in matches. visit, which
// may be nil, sees every object, included or not, before it is judged; what it is
// given is borrowed. Temporary files live in dir, which is created if it is not
// there. The caller closes the Listing.
//
// Errors: Permission or Unavailable of the origin or of dir, NotFound if no file is
// included, the cause of ctx.
func List(ctx context.Context, store backend.Store, in *Include, dir string, progress Progress,
	visit func(o *backend.Object, included bool) error) (*Listing, error) {
	lister, ok := backend.As[backend.Lister](store)
	if !ok {
		return nil, fmt.Errorf("list files: %T has no list of objects", store)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fileError("create directory", dir, err)
	}
	l := &Listing{Skipped: map[string]int{}, sorter: newSorter(dir)}
	seen := int64(0)
	err := lister.Objects(ctx, func(o backend.Object) error {
		if seen++; seen%progressFiles == 0 {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			report(progress, 0, 0, 0)
		}
		included := in.Match(o.Name)
		if visit != nil {
			if err := visit(&o, included); err != nil {
				return err
			}
		}
		return l.judge(&o, included)
	})
	if err == nil && l.Files == 0 {
		err = l.nothing(in, seen)
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("list files: %w", err)
	}
	return l, nil
}

// judge keeps or leaves out one object.
func (l *Listing) judge(o *backend.Object, included bool) error {
	if !included {
		reason := reasonFor(o.Name)
		if len(l.Skipped) == 0 || len(l.Seen) < 200 && l.Skipped[reason] < 3 {
			l.Seen += fmt.Sprintf(" %.60q", o.Name)
		}
		l.Skipped[reason]++
		return nil
	}
	if o.Version.Size < 0 {
		return &backend.Error{Kind: backend.Corrupt, Op: "list", Object: string(o.Name),
			Detail: fmt.Sprintf("the origin says its size is %d", o.Version.Size)}
	}
	if l.Files > 0 && o.Origin != l.Origin {
		return fmt.Errorf("%q is of origin %q, files before it of %q", o.Name, o.Origin, l.Origin)
	}
	l.Origin = o.Origin
	l.Files++
	l.Bytes += o.Version.Size
	if l.Bytes < 0 {
		return errors.New("the files' sizes add up to more than 2^63 bytes")
	}
	return l.sorter.add(&Record{Name: o.Name, Version: o.Version, Label: -1})
}

// reasonFor says why a file that is not included is left out.
func reasonFor(name []byte) string {
	if Hidden(name) {
		return SkippedHidden
	}
	return SkippedNotIncluded
}

// Unskip takes back that a file was left out as not included, for a format that uses
// it after all or has a better reason.
func (l *Listing) Unskip(name []byte) {
	reason := reasonFor(name)
	if l.Skipped[reason]--; l.Skipped[reason] <= 0 {
		delete(l.Skipped, reason)
	}
}

// nothing is the error for an origin without a file of the dataset.
func (l *Listing) nothing(in *Include, seen int64) error {
	detail := fmt.Sprintf("looked for %s; the directory holds no file at all", in)
	if seen > 0 {
		detail = fmt.Sprintf("looked for %s; saw %d other files, among them%s", in, seen, l.Seen)
	}
	return &backend.Error{Kind: backend.NotFound, Op: "find", Object: "files of the dataset", Detail: detail}
}

// Each calls visit for every file, in order; what visit is given is borrowed. It may
// be called once.
func (l *Listing) Each(ctx context.Context, progress Progress, visit func(r *Record) error) error {
	files, bytes := int64(0), int64(0)
	err := l.sorter.each(func(r *Record) error {
		if files%progressFiles == 0 {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			report(progress, files, l.Files, bytes)
		}
		files++
		bytes += r.Version.Size
		return visit(r)
	})
	if err == nil {
		report(progress, files, l.Files, bytes)
	}
	return err
}

// Close frees the listing's temporary file.
func (l *Listing) Close() { l.sorter.close() }

func report(progress Progress, filesDone, filesTotal, bytesDone int64) {
	if progress != nil {
		progress(filesDone, filesTotal, bytesDone)
	}
}

// ReadObject fills p with the object's bytes from offset, which it reads in chunks of
// backend.MaxChunkBytes. Errors: as backend.Store.ReadAt; OutOfRange if the object
// ends before offset+len(p).
func ReadObject(ctx context.Context, store backend.Store, o *backend.Object, p []byte, offset int64) error {
	size := o.Version.Size
	if offset < 0 || int64(len(p)) > size-offset {
		return &backend.Error{Kind: backend.OutOfRange, Op: "read", Object: string(o.Name),
			Detail: fmt.Sprintf("%d bytes from %d of %d", len(p), offset, size)}
	}
	for len(p) > 0 {
		start := offset - offset%backend.MaxChunkBytes
		c := backend.Chunk{Object: o, Start: start, Size: min(backend.MaxChunkBytes, size-start)}
		n := min(int64(len(p)), start+c.Size-offset)
		if err := store.ReadAt(ctx, c, p[:n], offset-start); err != nil {
			return err
		}
		p, offset = p[n:], offset+n
	}
	return nil
}
