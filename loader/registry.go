package loader

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stokerio/stoker/backend/object"
	"github.com/stokerio/stoker/backend/seekable"
	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/loader/dataset/tar"
	"github.com/stokerio/stoker/shm"
)

// namePattern is what a dataset may be called: it becomes a directory's name.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// recordName is the file that describes a dataset within its directory.
const recordName = "dataset.json"

// record is a dataset as kept on disk.
type record struct {
	Version int             `json:"version"`
	Info    shm.DatasetInfo `json:"info"`
	Device  uint64          `json:"device"` // of the directory; with Inode: that it is still the same one
	Inode   uint64          `json:"inode"`
	Scan    scanned         `json:"scan"`
	Index   string          `json:"index"` // file name of the sample index
}

const recordVersion = 1

// registry keeps the node's datasets: on disk under directory, and open.
type registry struct {
	directory string
	scans     string // directory of the journals of scans
	object    object.Options
	log       *slog.Logger

	mu struct {
		sync.Mutex
		datasets map[string]*attached
		adding   map[string]bool
	}

	// pool is where archives in seekable form are decompressed; it is made when the
	// first dataset needs it.
	pool      func() (*seekable.Pool, error)
	closePool func() error
}

// openRegistry opens every dataset that is kept under directory. One that cannot
// be opened is kept as detached, with the reason.
func openRegistry(directory string, options object.Options, log *slog.Logger) (*registry, error) {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of datasets: %w", err)
	}
	entries, err := os.ReadDir(directory)
	if err != nil {
		return nil, fmt.Errorf("list datasets: %w", err)
	}
	r := &registry{directory: directory, scans: filepath.Join(filepath.Dir(directory), "scans"), object: options, log: log}
	r.removeOldJournals()
	r.mu.datasets, r.mu.adding = map[string]*attached{}, map[string]bool{}
	r.preparePool()
	for _, entry := range entries {
		if !entry.IsDir() || !namePattern.MatchString(entry.Name()) {
			continue
		}
		a, err := r.load(entry.Name())
		if errors.Is(err, fs.ErrNotExist) {
			log.Info("remove what an interrupted `dataset add` left", "dataset", entry.Name())
			err = os.RemoveAll(filepath.Join(directory, entry.Name()))
		}
		if err != nil {
			log.Error("dataset record unreadable; left alone", "dataset", entry.Name(), "error", err)
		}
		if a != nil {
			r.mu.datasets[entry.Name()] = a
		}
	}
	return r, nil
}

// preparePool sets how the pool is made, once, and closed if it was made.
func (r *registry) preparePool() {
	made := false
	r.pool = sync.OnceValues(func() (*seekable.Pool, error) {
		pool, err := seekable.NewPool(seekable.PoolOptions{})
		made = err == nil
		return pool, err
	})
	r.closePool = func() error {
		if !made {
			return nil
		}
		pool, err := r.pool()
		if err != nil {
			return err
		}
		return pool.Close()
	}
}

// load reads one record and opens what it names.
func (r *registry) load(name string) (*attached, error) {
	text, err := os.ReadFile(filepath.Join(r.directory, name, recordName))
	if err != nil {
		return nil, err
	}
	var rec record
	if err := json.Unmarshal(text, &rec); err != nil {
		return nil, fmt.Errorf("parse %s: %w", recordName, err)
	}
	if rec.Version != recordVersion || rec.Info.Name != name || filepath.Base(rec.Index) != rec.Index {
		return nil, fmt.Errorf("%s: version %d, name %q, index %q do not fit version %d and name %q",
			recordName, rec.Version, rec.Info.Name, rec.Index, recordVersion, name)
	}
	a := &attached{info: rec.Info, scanned: rec.Scan, indexPath: filepath.Join(r.directory, name, rec.Index)}
	a.info.IndexPath = a.indexPath
	if err := r.attach(a, rec); err != nil {
		a.info.State, a.info.Problem = stateDetached, err.Error()
		r.log.Warn("dataset detached", "dataset", name, "path", rec.Info.Path, "error", err)
	}
	return a, nil
}

// attach opens a record's directory and index.
func (r *registry) attach(a *attached, rec record) (err error) {
	dir, err := reopen(rec)
	if err != nil {
		return err
	}
	if a.store, err = object.OpenDir(dir, r.objectOptions(rec.Info.Name)); err != nil {
		return err
	}
	if err = r.openIndex(a); err != nil {
		err = errors.Join(err, a.closeNow())
		a.store, a.bytes, a.index = nil, nil, nil
		return err
	}
	removeOthers(filepath.Dir(a.indexPath), append(a.files(), recordName)...)
	return nil
}

// openIndex opens the index at a's indexPath, and what serves the seekable forms of
// archives that it names, which lie beside it.
func (r *registry) openIndex(a *attached) (err error) {
	if a.index, err = dataset.OpenIndex(a.indexPath); err != nil {
		return err
	}
	a.bytes = a.store
	if a.index.Info().Format != tar.Format {
		return nil
	}
	if a.seekable, err = tar.Files(a.index); err != nil || len(a.seekable) == 0 {
		return err
	}
	pool, err := r.pool()
	if err != nil {
		return err
	}
	store, err := seekable.New(a.store, filepath.Dir(a.indexPath), seekable.Options{Pool: pool, Dataset: filepath.Base(filepath.Dir(a.indexPath))})
	if err == nil {
		a.bytes = store
	}
	return err
}

func (r *registry) objectOptions(name string) object.Options {
	options := r.object
	options.Dataset, options.Logger = name, r.log
	return options
}

// acquire holds a dataset open until release.
func (r *registry) acquire(name string) (*attached, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a, ok := r.mu.datasets[name]
	if !ok {
		return nil, &shm.Failure{
			Code: "not_found", Where: "dataset " + name, What: "no such dataset; there are: " + r.namesLocked(),
			Remedy: fmt.Sprintf("add it with `stoker dataset add %s DIR`", name),
		}
	}
	if a.info.State != stateReady {
		return nil, &shm.Failure{
			Code: "unavailable", Where: "dataset " + name, What: "the dataset is detached: " + a.info.Problem,
			Remedy: fmt.Sprintf("put the directory back, or run `stoker dataset add %s DIR --replace`", name),
		}
	}
	a.hold()
	return a, nil
}

func (r *registry) namesLocked() string {
	names := make([]string, 0, len(r.mu.datasets))
	for name := range r.mu.datasets {
		names = append(names, name)
	}
	if len(names) == 0 {
		return "none"
	}
	slices.Sort(names)
	if len(names) > 10 {
		names = append(names[:10], "...")
	}
	return strings.Join(names, ", ")
}

// list returns all datasets by name.
func (r *registry) list() []shm.DatasetInfo {
	r.mu.Lock()
	defer r.mu.Unlock()
	infos := make([]shm.DatasetInfo, 0, len(r.mu.datasets))
	for _, a := range r.mu.datasets {
		infos = append(infos, a.info)
	}
	slices.SortFunc(infos, func(x, y shm.DatasetInfo) int { return strings.Compare(x.Name, y.Name) })
	return infos
}

// info returns one dataset.
func (r *registry) info(name string) (shm.DatasetInfo, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a, ok := r.mu.datasets[name]; ok {
		return a.info, nil
	}
	return shm.DatasetInfo{}, &shm.Failure{
		Code: "not_found", Where: "dataset " + name, What: "no such dataset; there are: " + r.namesLocked(),
		Remedy: "`stoker dataset ls` lists datasets",
	}
}

// remove forgets a dataset and its index; its files stay. One that sessions have
// open is not removed.
func (r *registry) remove(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	a, ok := r.mu.datasets[name]
	if !ok {
		return &shm.Failure{
			Code: "not_found", Where: "dataset " + name, What: "no such dataset; there are: " + r.namesLocked(),
			Remedy: "`stoker dataset ls` lists datasets",
		}
	}
	if r.mu.adding[name] {
		return conflict(name, "a `dataset add --replace` of it is under way", "wait for it")
	}
	if a.inUse() {
		return conflict(name, "sessions have the dataset open", "end them first; `stoker status` lists them")
	}
	// The record goes first: without it the directory is what an interrupted add
	// leaves, and the next start clears it away.
	directory := filepath.Join(r.directory, name)
	if err := os.Remove(filepath.Join(directory, recordName)); err != nil {
		return fmt.Errorf("remove dataset %s: %w", name, err)
	}
	delete(r.mu.datasets, name)
	a.retire(r.log)
	if err := os.RemoveAll(directory); err != nil {
		return fmt.Errorf("remove dataset %s: %w", name, err)
	}
	return nil
}

// evictIdle closes the files that datasets keep open for reuse, and says how many.
func (r *registry) evictIdle() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	evicted := 0
	for _, a := range r.mu.datasets {
		if a.store != nil {
			evicted += a.store.EvictIdle()
		}
		if store, ok := a.bytes.(*seekable.Store); ok {
			evicted += store.EvictIdle()
		}
	}
	return evicted
}

// close releases every dataset. Sessions must have ended.
func (r *registry) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, a := range r.mu.datasets {
		a.retire(r.log)
		delete(r.mu.datasets, name)
	}
	if err := r.closePool(); err != nil {
		r.log.Warn("close the pool of decompressed frames", "error", err)
	}
}

// add scans the directory behind descriptor and keeps what it finds under
// request.Name. It takes ownership of the descriptor.
func (r *registry) add(ctx context.Context, request shm.DatasetAdd, owner uint32, descriptor int, progress dataset.Progress) (shm.DatasetInfo, error) {
	if err := r.beginAdd(request.Name, request.Replace); err != nil {
		shm.CloseAll([]int{descriptor})
		return shm.DatasetInfo{}, err
	}
	defer r.endAdd(request.Name)
	options := scanned{Include: request.Include, DType: request.DType, Bad: request.Bad}
	return r.index(ctx, request.Name, request.Format, options, owner, descriptor, progress)
}

// rebuild scans a dataset's directory again, as it was scanned before.
func (r *registry) rebuild(ctx context.Context, name string, progress dataset.Progress) (shm.DatasetInfo, error) {
	held, err := r.acquire(name)
	if err != nil {
		return shm.DatasetInfo{}, err
	}
	defer held.release()
	if err := r.beginAdd(name, true); err != nil {
		return shm.DatasetInfo{}, err
	}
	defer r.endAdd(name)
	descriptor, err := reopen(record{Info: held.info, Device: held.store.Device(), Inode: held.store.Inode()})
	if err != nil {
		return shm.DatasetInfo{}, &shm.Failure{
			Code: "unavailable", Where: "dataset " + name, What: err.Error(),
			Remedy: fmt.Sprintf("put the directory back, or run `stoker dataset add %s DIR --replace`", name),
		}
	}
	return r.index(ctx, name, held.info.Format, held.scanned, held.info.OwnerUID, descriptor, progress)
}

// index scans a directory and installs what it finds. It owns the descriptor.
func (r *registry) index(ctx context.Context, name, format string, options scanned, owner uint32, descriptor int, progress dataset.Progress) (shm.DatasetInfo, error) {
	none := shm.DatasetInfo{}
	store, err := object.OpenDir(descriptor, r.objectOptions(name))
	if err != nil {
		return none, err
	}
	a := &attached{store: store, bytes: store, scanned: options}
	if err := r.scanReusing(ctx, a, name, format, owner, progress); err != nil {
		return none, errors.Join(err, a.closeNow())
	}
	return a.info, r.install(a)
}

// scanReusing scans with the help of the index that a dataset of this name has.
func (r *registry) scanReusing(ctx context.Context, a *attached, name, format string, owner uint32, progress dataset.Progress) error {
	var old *dataset.Index
	if held, err := r.acquire(name); err == nil {
		defer held.release()
		old = held.index
	}
	return r.scan(ctx, a, name, format, owner, old, progress)
}

// beginAdd refuses names that are unusable, taken, or being added right now.
func (r *registry) beginAdd(name string, replace bool) error {
	if !namePattern.MatchString(name) {
		return invalid("dataset name", name, "use letters, digits, '.', '_' and '-', at most 128, the first a letter or digit")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.adding[name] {
		return conflict(name, "another `dataset add` of this name is under way", "wait for it")
	}
	a, ok := r.mu.datasets[name]
	if ok && a.info.State == stateReady && !replace {
		return conflict(name, "a dataset of this name exists, at "+a.info.Path,
			"choose another name, or replace it with --replace (replace=True)")
	}
	r.mu.adding[name] = true
	return nil
}

func (r *registry) endAdd(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.mu.adding, name)
}

func conflict(name, what, remedy string) error {
	return &shm.Failure{Code: "conflict", Where: "dataset " + name, What: what, Remedy: remedy}
}

// install writes the record and puts a in the place of what had its name.
func (r *registry) install(a *attached) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := a.info.Name
	rec := record{
		Version: recordVersion, Info: a.info, Device: a.store.Device(), Inode: a.store.Inode(),
		Scan: a.scanned, Index: filepath.Base(a.indexPath),
	}
	text, err := json.MarshalIndent(rec, "", "  ")
	if err == nil {
		err = writeDurably(filepath.Join(r.directory, name, recordName), append(text, '\n'))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("keep dataset %s: %w", name, err), a.closeNow())
	}
	keep := append(a.files(), recordName)
	if old := r.mu.datasets[name]; old != nil {
		if old.held() {
			keep = append(keep, old.files()...) // its sessions read them on; the next start clears them away
		}
		old.retire(r.log)
	}
	r.mu.datasets[name] = a
	removeOthers(filepath.Join(r.directory, name), keep...)
	return nil
}

// addedNow is when a dataset was added, for people.
func addedNow() string { return time.Now().UTC().Truncate(time.Second).Format(time.RFC3339) }
