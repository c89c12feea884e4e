// Package raw makes a dataset of the files below a directory: one sample a file.
//
// Samples are numbered in the order of their paths by bytes, so that equal trees give
// equal numbers. Classes follow torchvision's ImageFolder: the first component of a
// file's path is its class, class names are sorted, and a label is an index into
// them. A file directly in the root has the label -1; if all files are there, the
// dataset has no classes. Empty files are samples of 0 bytes.
package raw

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
)

// Format is the name of this format.
const Format = "raw"

// maxClasses is how many top-level directories are taken for classes. More of them
// are a way to spread files, and their names would have to be read whenever the
// dataset is opened: all labels are -1 then.
const maxClasses = 1 << 18

// Options say what belongs to a dataset.
type Options struct {
	// Include are patterns as dataset.Include has them. None: every regular file that
	// is not hidden.
	Include []string `json:"include,omitempty"`
}

// Scan lists the origin's files once and writes their index to
// dataset.IndexPath(dir, Info.ID). No file is opened. The memory it takes does not
// depend on the number of files, but for 64 MiB of sort buffers and the names of up
// to 2^18 classes; temporary files in dir take as much room as the index.
//
// store, or one below it, must be a backend.Lister. progress may be nil.
// Errors: NotFound if no file matches, those of the origin, NoSpace and the like for
// dir, and the cause of ctx.
func Scan(ctx context.Context, store backend.Store, opts Options, dir string, progress dataset.Progress) (dataset.Info, error) {
	info, err := scan(ctx, store, opts, dir, progress)
	if err != nil {
		return dataset.Info{}, fmt.Errorf("scan raw files: %w", err)
	}
	return info, nil
}

func scan(ctx context.Context, store backend.Store, opts Options, dir string, progress dataset.Progress) (dataset.Info, error) {
	in, err := dataset.CompileInclude(opts.Include)
	if err != nil {
		return dataset.Info{}, err
	}
	classes := classSet{}
	files, err := dataset.List(ctx, store, in, dir, progress, func(o *backend.Object, included bool) error {
		if included {
			classes.add(o.Name)
		}
		return nil
	})
	if err != nil {
		return dataset.Info{}, err
	}
	defer files.Close()
	options, err := json.Marshal(opts)
	if err != nil {
		return dataset.Info{}, fmt.Errorf("encode options: %w", err)
	}
	w, err := dataset.Create(dir, files.Files)
	if err != nil {
		return dataset.Info{}, err
	}
	names := classes.assign()
	err = files.Each(ctx, progress, func(r *dataset.Record) error {
		r.Label = classes.label(r.Name)
		return w.Append(r)
	})
	if err != nil {
		w.Abort()
		return dataset.Info{}, err
	}
	meta, err := w.Commit(dataset.Meta{
		Origin:  files.Origin,
		Options: options,
		Info: dataset.Info{
			Format: Format, Samples: files.Files, Files: files.Files, Bytes: files.Bytes,
			Classes: names, Skipped: files.Skipped,
		},
	})
	return meta.Info, err
}

// classSet collects class names and then numbers them.
type classSet map[string]int32

// add notes the class of a file, if it has one.
func (c classSet) add(name []byte) {
	if class, ok := classOf(name); ok && len(c) <= maxClasses {
		if _, known := c[string(class)]; !known {
			c[string(class)] = -1
		}
	}
}

// assign gives the classes their labels and returns their names in that order.
func (c classSet) assign() []string {
	if len(c) > maxClasses {
		clear(c)
	}
	names := make([]string, 0, len(c))
	for name := range c {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		c[name] = int32(i)
	}
	return names
}

// label returns a file's label, -1 for none.
func (c classSet) label(name []byte) int32 {
	if class, ok := classOf(name); ok {
		if label, known := c[string(class)]; known {
			return label
		}
	}
	return -1
}

// classOf returns the first component of a path; false for a file in the root.
func classOf(name []byte) ([]byte, bool) {
	class, _, ok := bytes.Cut(name, []byte("/"))
	return class, ok
}
