package loader

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/object"
	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/loader/dataset/formats"
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
	index     *dataset.Index // nil while detached
	indexPath string

	mu struct {
		sync.Mutex
		holders int
		retired bool
		views   map[int64]dataset.View // by block size
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
	if a.store != nil {
		err = errors.Join(err, a.store.Close())
	}
	return err
}

// maxViews bounds the block sizes remembered for one dataset.
const maxViews = 16

// view returns the dataset cut into samples. blockSize is for tokens only.
func (a *attached) view(blockSize int64) (dataset.View, error) {
	if err := a.checkBlockSize(blockSize); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if v, ok := a.mu.views[blockSize]; ok {
		return v, nil
	}
	v, err := formats.Open(a.index, formats.ViewOptions{BlockSize: blockSize})
	if remedy := backend.RemedyOf(err); backend.KindOf(err) == backend.OutOfRange && remedy != "" {
		return nil, &shm.Failure{
			Code: "invalid", Where: "dataset " + a.info.Name,
			What:   fmt.Sprintf("block_size %d leaves no sample: %s", blockSize, strings.Replace(err.Error(), " ("+remedy+")", "", 1)),
			Remedy: remedy,
		}
	}
	if err != nil {
		return nil, err
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
		a.mu.views = map[int64]dataset.View{}
	}
	a.mu.views[blockSize] = v
	return v, nil
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
	return syncDirectory(filepath.Dir(path))
}

func syncDirectory(path string) error {
	directory, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(directory.Sync(), directory.Close())
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
