package dataset

import (
	"bytes"
	"context"
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
	links  LeftOut
}

// List lists an origin's objects once and keeps those that in matches. visit, which
// may be nil, sees every object, included or not, before it is judged; what it is
// given is borrowed. What the origin leaves out although in would take it, or files
// in it, counts in Skipped under the origin's reason. Temporary files live in dir, which is created if it is not
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
		return nil, FileError("create directory", dir, err)
	}
	l := &Listing{Skipped: map[string]int{}, sorter: newSorter(dir)}
	seen := int64(0)
	err := lister.Objects(ctx, func(o backend.Object) error {
		if seen++; seen%progressFiles == 0 {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			report(progress, Done{})
		}
		included := in.Match(o.Name)
		if visit != nil {
			if err := visit(&o, included); err != nil {
				return err
			}
		}
		return l.judge(&o, included)
	}, func(name []byte, reason string) {
		if l.links.Add(in, name) {
			l.Skipped[reason]++
		}
	})
	if err == nil && l.Files == 0 {
		err = NothingFound(in, seen, l.Seen, l.links)
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
			Detail: fmt.Sprintf("the origin says its size is %d", o.Version.Size), Remedy: "check the file system"}
	}
	if l.Files > 0 && o.Origin != l.Origin {
		return refused(string(o.Name), fmt.Sprintf("it is of origin %q, files before it of %q", o.Origin, l.Origin), "add each origin as a dataset of its own")
	}
	l.Origin = o.Origin
	l.Files++
	l.Bytes += o.Version.Size
	if l.Bytes < 0 {
		return refused(string(o.Name), "with it, the files' sizes add up to more than 2^63 bytes", "leave it out with --include")
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

// refused is the error for files that make no dataset.
func refused(object, detail, remedy string) error {
	return &backend.Error{Kind: backend.Invalid, Op: "index", Object: object, Detail: detail, Remedy: remedy}
}

// LeftOut counts what an origin left out of its listing although patterns would take
// it, or files in it.
type LeftOut struct {
	count int64
	first string
}

// Add counts a name as backend.Lister tells it, if in would take it.
func (l *LeftOut) Add(in *Include, name []byte) bool {
	directory, isDirectory := bytes.CutSuffix(name, []byte{'/'})
	if !in.Match(directory) && !(isDirectory && in.MatchBelow(directory)) {
		return false
	}
	if l.count++; l.count == 1 {
		l.first = string(name)
	}
	return true
}

// NothingFound is the error for an origin without a file of the dataset: seen files
// are there that the patterns do not take, among them examples (which may be empty).
func NothingFound(in *Include, seen int64, examples string, links LeftOut) error {
	e := &backend.Error{Kind: backend.NotFound, Op: "find", Object: "files of the dataset"}
	switch {
	case seen == 0 && links.count == 0:
		e.Detail = fmt.Sprintf("looked for %s; the directory holds no file at all", in)
		e.Remedy = "give the directory that holds the files"
	case seen == 0:
		e.Detail = fmt.Sprintf("looked for %s; the directory holds no file", in)
	case examples == "":
		e.Detail = fmt.Sprintf("looked for %s; saw %d other files", in, seen)
	default:
		e.Detail = fmt.Sprintf("looked for %s; saw %d other files, among them%s", in, seen, examples)
	}
	switch {
	case links.count > 0:
		e.Detail += fmt.Sprintf("; symbolic links left out because they lead out of the directory or nowhere: %d, such as %q", links.count, links.first)
		e.Remedy = "copy the files into the directory, or add the directory that holds them"
	case seen > 0:
		e.Remedy = "choose files with --include, or give the directory that holds them; hidden files are taken only by a pattern that names the dot"
	}
	return e
}

// Each calls visit for every file, in order; what visit is given is borrowed. It may
// be called once.
func (l *Listing) Each(ctx context.Context, progress Progress, visit func(r *Record) error) error {
	files, bytes := int64(0), int64(0)
	done := func() Done { return Done{Files: files, FilesTotal: l.Files, Bytes: bytes, BytesTotal: l.Bytes} }
	err := l.sorter.each(func(r *Record) error {
		if files%progressFiles == 0 {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			report(progress, done())
		}
		files++
		bytes += r.Version.Size
		return visit(r)
	})
	if err == nil {
		report(progress, done())
	}
	return err
}

// Close frees the listing's temporary file.
func (l *Listing) Close() { l.sorter.close() }

func report(progress Progress, done Done) {
	if progress != nil {
		progress(done)
	}
}

// ReadObject fills p with the object's bytes from offset, which it reads in chunks of
// backend.MaxChunkBytes. Errors: as backend.Store.ReadAt; OutOfRange if the object
// ends before offset+len(p).
func ReadObject(ctx context.Context, store backend.Store, o *backend.Object, p []byte, offset int64) error {
	size := o.Version.Size
	if offset < 0 || int64(len(p)) > size-offset {
		return &backend.Error{Kind: backend.OutOfRange, Op: "read", Object: string(o.Name),
			Detail: fmt.Sprintf("%d bytes from %d of %d", len(p), offset, size),
			Remedy: "the file is shorter than it says: write it again, or leave it out with --include"}
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
