package loader

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/stokerio/stoker/backend/object"
	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/loader/dataset/formats"
	"github.com/stokerio/stoker/shm"
)

// What a client asks of datasets over the session socket.

func (c *connection) addDataset(request shm.DatasetAdd, directory int) error {
	return c.scan(func(ctx context.Context, progress dataset.Progress) (shm.DatasetInfo, error) {
		return c.node.registry.add(ctx, request, c.peer.UID, directory, progress)
	})
}

// rebuild scans a dataset's directory again.
func (c *connection) rebuild(request shm.DatasetRebuild) error {
	return c.scan(func(ctx context.Context, progress dataset.Progress) (shm.DatasetInfo, error) {
		return c.node.registry.rebuild(ctx, request.Name, progress)
	})
}

// scan runs a scan that tells the client how far it is, and answers with its result.
func (c *connection) scan(run func(context.Context, dataset.Progress) (shm.DatasetInfo, error)) error {
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	c.node.totals.scans.running.Add(1)
	defer c.node.totals.scans.running.Add(-1)
	info, err := run(ctx, c.node.counted(c.progress(cancel)))
	if err != nil {
		return err
	}
	c.node.hints.endOutdated(info.Name)
	c.node.log.Info("dataset indexed", "dataset", info.Name, "format", info.Format, "files", info.Files, "bytes", info.Bytes, "index", info.IndexID)
	return c.send(shm.DatasetAnswer{Type: shm.TypeDataset, Dataset: info})
}

// progress sends progress notes now and then. It calls cancel when nobody is left to
// work for.
func (c *connection) progress(cancel context.CancelFunc) dataset.Progress {
	return paced(func(d dataset.Done) {
		err := c.send(shm.ProgressNote{
			Type: shm.TypeProgress, FilesDone: d.Files, FilesTotal: d.FilesTotal,
			BytesDone: d.Bytes, BytesTotal: d.BytesTotal, SamplesDone: d.Samples,
		})
		if err != nil || c.conn.PeerGone() {
			cancel()
		}
	})
}

// counted adds a scan's progress to the node's counters.
func (n *Node) counted(next dataset.Progress) dataset.Progress {
	var last dataset.Done
	scans := &n.totals.scans
	return func(d dataset.Done) {
		scans.bytes.Add(max(0, d.Bytes-last.Bytes))
		scans.samples.Add(max(0, d.Samples-last.Samples))
		last = d
		next(d)
	}
}

func (c *connection) datasetInfo(request shm.DatasetRequest) error {
	info, err := c.node.registry.info(request.Name)
	if err != nil {
		return err
	}
	return c.send(shm.DatasetAnswer{Type: shm.TypeDataset, Dataset: info})
}

// keys names samples.
func (c *connection) keys(request shm.KeysRequest) error {
	if len(request.Samples) > shm.MaxKeys {
		return limitFailure("samples of one request for keys", shm.MaxKeys, "samples", "ask for fewer at a time")
	}
	held, err := c.node.registry.acquire(request.Dataset)
	if err != nil {
		return err
	}
	defer held.release()
	view, err := held.view(cut{blockSize: request.BlockSize})
	if err != nil {
		return err
	}
	if err := sameIndex(request.Dataset, request.IndexID, view); err != nil {
		return err
	}
	answer := shm.KeysAnswer{Type: shm.TypeKeys, Keys: make([]shm.SampleKey, len(request.Samples))}
	for i, sample := range request.Samples {
		if err := withinDataset(request.Dataset, sample, view); err != nil {
			return err
		}
		file, key, err := view.Key(sample)
		if err != nil {
			return err
		}
		answer.Keys[i] = sampleKey(file, key)
	}
	return c.send(answer)
}

// sampleKey is what the protocol says of a sample's file and key, whatever bytes they are.
func sampleKey(file, key string) (named shm.SampleKey) {
	named.File, named.FileBytes = readable(file)
	named.Key, named.KeyBytes = readable(key)
	return named
}

// finding is what the protocol says of what a lint found, whatever bytes its names are.
func finding(f dataset.Finding) shm.Finding {
	found := shm.Finding{Severity: f.Severity, Code: f.Code, Offset: f.Offset, What: f.What, Remedy: f.Remedy}
	found.File, found.FileBytes = readable(f.File)
	found.Key, found.KeyBytes = readable(f.Key)
	return found
}

// readable is a name as JSON can hold it, and its bytes if that is not all of it.
func readable(name string) (text string, all []byte) {
	if utf8.ValidString(name) {
		return name, nil
	}
	return strings.ToValidUTF8(name, "\uFFFD"), []byte(name)
}

// sameIndex refuses a client that counts in the samples of another index.
func sameIndex(name, expected string, view dataset.View) error {
	if expected == "" || expected == view.ID() {
		return nil
	}
	return &shm.Failure{
		Code: "changed", Where: "dataset " + name,
		What:   fmt.Sprintf("its samples are no longer those seen before: index %s, expected %s", view.ID(), expected),
		Remedy: "make the stoker.Dataset anew",
	}
}

// withinDataset refuses a number that no sample has.
func withinDataset(name string, sample int64, view dataset.View) error {
	if sample >= 0 && sample < view.Len() {
		return nil
	}
	return &shm.Failure{
		Code: "out_of_range", Where: "dataset " + name,
		What: fmt.Sprintf("sample %d does not exist, the dataset has %d", sample, view.Len()), Remedy: "ask for one within [0, len)",
	}
}

// findingsAtOnce is how many findings travel in one message.
const findingsAtOnce = 256

// lint looks for what breaks or slows training, in a dataset or in the directory
// behind the one descriptor. It owns the descriptors.
func (c *connection) lint(request shm.DatasetLint, descriptors []int) error {
	if (request.Name == "") != (len(descriptors) == 1) || len(descriptors) > 1 {
		shm.CloseAll(descriptors)
		return invalid("dataset_lint", fmt.Sprintf("name %q with %d descriptors", request.Name, len(descriptors)), "name a dataset, or pass one open directory")
	}
	if request.Name != "" {
		return c.lintDataset(request.Name)
	}
	options := formats.Options{Format: request.Format, Include: request.Include, DType: dataset.DType(request.DType)}
	if err := checkFormat(options.Format); err != nil {
		shm.CloseAll(descriptors)
		return err
	}
	store, err := object.OpenDir(descriptors[0], c.node.registry.objectOptions("directory"))
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }() // nothing was written through it
	return c.lintStore("directory "+store.Path(), store, options)
}

func (c *connection) lintDataset(name string) error {
	held, err := c.node.registry.acquire(name)
	if err != nil {
		return err
	}
	defer held.release()
	return c.lintStore("dataset "+name, held.store, held.scanned.options(held.info.Format))
}

func (c *connection) lintStore(where string, store *object.Dir, options formats.Options) error {
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	note := shm.FindingsNote{Type: shm.TypeFindings}
	flush := func() error {
		if len(note.Findings) == 0 {
			return nil
		}
		err := c.send(note)
		note.Findings = note.Findings[:0]
		return err
	}
	summary, err := formats.Lint(ctx, store, options, func(f dataset.Finding) error {
		note.Findings = append(note.Findings, finding(f))
		if len(note.Findings) < findingsAtOnce {
			return nil
		}
		return flush()
	}, c.progress(cancel))
	if err != nil {
		return scanFailure(where, err)
	}
	if err := flush(); err != nil {
		return err
	}
	return c.send(shm.LintAnswer{Type: shm.TypeLint, Summary: shm.LintSummary(summary)})
}
