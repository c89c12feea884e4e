package loader

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/loader/dataset/formats"
	"github.com/stokerio/stoker/loader/dataset/raw"
	"github.com/stokerio/stoker/loader/dataset/tokens"
	"github.com/stokerio/stoker/shm"
)

// scan indexes what lies in a's directory and completes its description.
func (r *registry) scan(ctx context.Context, a *attached, request shm.DatasetAdd, owner uint32, progress dataset.Progress) error {
	if f := request.Format; f != formats.Auto && f != raw.Format && f != tokens.Format {
		return invalid("format", f, fmt.Sprintf("use %q, %q or %q", formats.Auto, raw.Format, tokens.Format))
	}
	directory := filepath.Join(r.directory, request.Name)
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return fmt.Errorf("make the directory of the index: %w", err)
	}
	options := formats.Options{Format: request.Format, Include: request.Include, DType: dataset.DType(request.DType)}
	info, saw, err := formats.Scan(ctx, a.store, options, directory, progress)
	if err != nil {
		err = errors.Join(err, dataset.RemoveTemporary(directory))
		_ = os.Remove(directory) // stays if it holds the dataset's earlier index
		return scanFailure(request.Name, err)
	}
	a.indexPath = dataset.IndexPath(directory, info.ID)
	if a.index, err = dataset.OpenIndex(a.indexPath); err != nil {
		return err
	}
	a.info = shm.DatasetInfo{
		Name: request.Name, Format: info.Format, Path: a.store.Path(), State: stateReady, OwnerUID: owner, AddedAt: addedNow(),
		IndexID: info.ID, Samples: info.Samples, Tokens: info.Tokens, DType: string(info.DType), Files: info.Files,
		Bytes: info.Bytes, Classes: info.Classes, Skipped: info.Skipped, Saw: saw,
	}
	return nil
}

// scanFailure tells what the client can mend (patterns, element types, mixed
// files: errors without a kind) from what went wrong here.
func scanFailure(name string, err error) error {
	var system syscall.Errno
	kind := backend.KindOf(err)
	remedy := backend.RemedyOf(err)
	switch {
	case remedy != "":
	case kind == backend.Corrupt || kind == backend.NotFound || kind == backend.OutOfRange:
		remedy = "look at the file, leave it out with --include, or say what it is with --format and --dtype"
	case kind == "" && !errors.As(err, &system) && !errors.Is(err, context.Canceled):
		kind, remedy = "invalid", "see `stoker dataset add --help`"
	default:
		return err
	}
	if kind == "" {
		kind = "invalid"
	}
	return &shm.Failure{Code: string(kind), Where: "dataset " + name, What: strings.Replace(err.Error(), " ("+remedy+")", "", 1), Remedy: remedy}
}
