package loader

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/object"
	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/loader/dataset/formats"
	"github.com/stokerio/stoker/loader/dataset/tar"
	"github.com/stokerio/stoker/loader/dataset/tokens"
	"github.com/stokerio/stoker/shm"
)

// The states of a dataset.
const (
	stateReady    = "ready"
	stateDetached = "detached"
)

// attached is one dataset, open: its directory and its index. It closes when it
// was retired (removed or replaced) and nobody holds it any more.
type attached struct {
	info      shm.DatasetInfo
	store     *object.Dir    // nil while detached
	bytes     backend.Store  // store, or what serves the seekable forms of archives beside it
	index     *dataset.Index // nil while detached
	indexPath string
	scanned   scanned
	seekable  []string // names of the files that hold seekable forms of archives

	mu struct {
		sync.Mutex
		holders int
		watches int // of them, those that do not keep the dataset from being removed
		retired bool
		views   map[string]dataset.View // by cut
	}
}

func (a *attached) hold() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.holders++
}

func (a *attached) held() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.holders > 0
}

// inUse says whether somebody holds it whom a removal would hurt.
func (a *attached) inUse() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.holders > a.mu.watches
}

// watch makes one hold one that does not keep the dataset from being removed. unwatch
// releases it.
func (a *attached) watch() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.watches++
}

func (a *attached) unwatch() {
	a.mu.Lock()
	a.mu.watches--
	a.mu.Unlock()
	a.release()
}

// isRetired says whether it was removed or replaced.
func (a *attached) isRetired() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.retired
}

// release undoes one hold.
func (a *attached) release() {
	a.mu.Lock()
	a.mu.holders--
	last := a.mu.retired && a.mu.holders == 0
	a.mu.Unlock()
	if last {
		_ = a.closeNow() // nothing was written through it; there is nobody left to tell
	}
}

// retire closes the dataset as soon as nobody holds it.
func (a *attached) retire(log *slog.Logger) {
	a.mu.Lock()
	idle := a.mu.holders == 0 && !a.mu.retired
	a.mu.retired = true
	a.mu.Unlock()
	if !idle {
		return
	}
	if err := a.closeNow(); err != nil {
		log.Warn("close dataset", "dataset", a.info.Name, "error", err)
	}
}

func (a *attached) closeNow() error {
	var err error
	if a.index != nil {
		err = a.index.Close()
	}
	switch {
	case a.bytes != nil:
		err = errors.Join(err, a.bytes.Close()) // and with it the store below it
	case a.store != nil:
		err = errors.Join(err, a.store.Close())
	}
	return err
}

// files are the names of what the dataset has beside its record.
func (a *attached) files() []string {
	return append(slices.Clone(a.seekable), filepath.Base(a.indexPath))
}

// maxViews bounds the views remembered for one dataset.
const maxViews = 16

// cut is a client's choice of what a sample is: for tokens its length, for tar its
// columns.
type cut struct {
	blockSize int64
	columns   []shm.SelectColumn
	missing   string
}

func (c *cut) key() string { return fmt.Sprintf("%d %q %q", c.blockSize, c.columns, c.missing) }

func (c *cut) options() formats.ViewOptions {
	options := formats.ViewOptions{BlockSize: c.blockSize, Missing: c.missing}
	for _, column := range c.columns {
		options.Select = append(options.Select, dataset.Select(column))
	}
	return options
}

// view returns the dataset cut into samples.
func (a *attached) view(c cut) (dataset.View, error) {
	if err := a.check(&c); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	key := c.key()
	if v, ok := a.mu.views[key]; ok {
		return v, nil
	}
	v, err := formats.Open(a.index, c.options())
	if err != nil {
		return nil, a.viewFailure(&c, err)
	}
	if v.Len() == 0 {
		return nil, &shm.Failure{
			Code: "invalid", Where: "dataset " + a.info.Name, What: "the dataset has no samples",
			Remedy: "for tokens, choose a block_size below the number of tokens in a file",
		}
	}
	if len(a.mu.views) >= maxViews {
		clear(a.mu.views)
	}
	if a.mu.views == nil {
		a.mu.views = map[string]dataset.View{}
	}
	a.mu.views[key] = v
	return v, nil
}

// viewFailure says whose mistake it is that there is no such view.
func (a *attached) viewFailure(c *cut, err error) error {
	remedy := backend.RemedyOf(err)
	what := strings.Replace(err.Error(), " ("+remedy+")", "", 1)
	switch kind := backend.KindOf(err); {
	case kind == backend.OutOfRange && remedy != "":
		what = fmt.Sprintf("block_size %d leaves no sample: %s", c.blockSize, what)
	case kind != backend.Invalid:
		return err
	}
	return &shm.Failure{Code: "invalid", Where: "dataset " + a.info.Name, What: what, Remedy: remedy}
}

// check refuses choices that the dataset's format does not have.
func (a *attached) check(c *cut) error {
	if err := a.checkBlockSize(c.blockSize); err != nil {
		return err
	}
	if a.info.Format != tar.Format && (len(c.columns) > 0 || c.missing != "") {
		return &shm.Failure{
			Code: "invalid", Where: "dataset " + a.info.Name,
			What:   fmt.Sprintf("select and missing choose parts of samples; the dataset's format is %s, whose samples have none", a.info.Format),
			Remedy: "leave select and missing out",
		}
	}
	return nil
}

func (a *attached) checkBlockSize(blockSize int64) error {
	where := "dataset " + a.info.Name
	switch {
	case a.info.Format == tokens.Format && blockSize < 1:
		return &shm.Failure{
			Code: "invalid", Where: where, What: fmt.Sprintf("block_size is %d; a dataset of tokens needs one of at least 1", blockSize),
			Remedy: "pass block_size, the context length of the model",
		}
	case a.info.Format != tokens.Format && blockSize != 0:
		return &shm.Failure{
			Code: "invalid", Where: where, What: fmt.Sprintf("block_size is %d; the dataset's format is %s, not tokens", blockSize, a.info.Format),
			Remedy: "leave block_size out",
		}
	}
	return nil
}

// reopen opens a record's directory by its path, if it is still the same one. The
// descriptor that the client passed is gone with the daemon that had it.
func reopen(rec record) (int, error) {
	fd, err := unix.Open(rec.Info.Path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", rec.Info.Path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return -1, errors.Join(fmt.Errorf("stat %s: %w", rec.Info.Path, err), unix.Close(fd))
	}
	if st.Dev != rec.Device || st.Ino != rec.Inode {
		return -1, errors.Join(fmt.Errorf("%s is another directory now: device %d inode %d, expected %d and %d",
			rec.Info.Path, st.Dev, st.Ino, rec.Device, rec.Inode), unix.Close(fd))
	}
	return fd, nil
}

// writeDurably replaces a file so that a crash leaves the old or the new content.
func writeDurably(path string, content []byte) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	_, err = file.Write(content)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err = os.Rename(file.Name(), path); err != nil {
		return err
	}
	return dataset.SyncDirectory(filepath.Dir(path))
}

// removeOthers removes every file of a dataset's directory but those named:
// indexes of earlier scans. What cannot be removed is found again next time.
func removeOthers(directory string, keep ...string) {
	entries, err := os.ReadDir(directory)
	if err != nil {
		return
	}
	for _, entry := range entries {
		kept := false
		for _, name := range keep {
			kept = kept || entry.Name() == name
		}
		if !kept {
			_ = os.Remove(filepath.Join(directory, entry.Name()))
		}
	}
}
