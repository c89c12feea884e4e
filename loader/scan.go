package loader

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/zeebo/blake3"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/loader/dataset/formats"
	"github.com/stokerio/stoker/shm"
)

// scanned is how a dataset was scanned, so that it can be scanned again.
type scanned struct {
	Include []string `json:"include,omitempty"`
	DType   string   `json:"dtype,omitempty"`
	Bad     string   `json:"bad,omitempty"`
}

func (s *scanned) options(format string) formats.Options {
	return formats.Options{Format: format, Include: s.Include, DType: dataset.DType(s.DType), Bad: s.Bad}
}

// scan indexes what lies in a's directory and completes its description. old, which
// may be nil, is the index that the new one replaces.
func (r *registry) scan(ctx context.Context, a *attached, name, format string, owner uint32, old *dataset.Index, progress dataset.Progress) error {
	if err := checkFormat(format); err != nil {
		return err
	}
	directory := filepath.Join(r.directory, name)
	for _, path := range []string{directory, r.scans} {
		if err := os.MkdirAll(path, 0o700); err != nil {
			return fmt.Errorf("make the directory of the index: %w", err)
		}
	}
	options := a.scanned.options(format)
	options.Reuse, options.Journal = old, r.journal(a, name)
	info, saw, err := formats.Scan(ctx, a.store, options, directory, progress)
	if err != nil {
		err = errors.Join(err, dataset.RemoveTemporary(directory))
		_ = os.Remove(directory) // stays if it holds the dataset's earlier index
		return scanFailure("dataset "+name, err)
	}
	a.indexPath = dataset.IndexPath(directory, info.ID)
	if err := r.openIndex(a); err != nil {
		return err
	}
	a.info = shm.DatasetInfo{
		Name: name, Format: info.Format, Path: a.store.Path(), State: stateReady, OwnerUID: owner, AddedAt: addedNow(),
		IndexID: info.ID, Samples: info.Samples, Tokens: info.Tokens, DType: string(info.DType), Files: info.Files,
		Bytes: info.Bytes, Classes: info.Classes, Skipped: info.Skipped, Saw: saw,
		Archives: info.Archives, Indexes: info.Indexes, IndexPath: a.indexPath,
	}
	for _, part := range info.Parts {
		a.info.Parts = append(a.info.Parts, shm.PartInfo(part))
	}
	return nil
}

// checkFormat refuses what is no format's name.
func checkFormat(format string) error {
	if format == "" || format == formats.Auto || slices.Contains(formats.Names(), format) {
		return nil
	}
	return invalid("format", format, "use auto, "+strings.Join(formats.Names(), ", "))
}

// journal is where a scan notes what it has done. The next scan of the same directory
// for the same dataset finds it again, whatever its options: each shard in it stands
// for itself.
func (r *registry) journal(a *attached, name string) string {
	sum := blake3.Sum256(fmt.Appendf(nil, "%s %s", a.store.Origin(), name))
	return filepath.Join(r.scans, hex.EncodeToString(sum[:16])+".journal")
}

// journalAge is how long what an interrupted scan has found out is kept.
const journalAge = 7 * 24 * time.Hour

// removeOldJournals removes what scans that were never taken up again have left.
func (r *registry) removeOldJournals() {
	entries, err := os.ReadDir(r.scans)
	if err != nil {
		return // there is none yet
	}
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && time.Since(info.ModTime()) > journalAge {
			_ = os.Remove(filepath.Join(r.scans, entry.Name())) // found again at the next start
		}
	}
}

// scanFailure tells what the client can mend (patterns, element types, mixed
// files: errors without a kind) from what went wrong here.
func scanFailure(where string, err error) error {
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
	return &shm.Failure{Code: string(kind), Where: where, What: strings.Replace(err.Error(), " ("+remedy+")", "", 1), Remedy: remedy}
}
