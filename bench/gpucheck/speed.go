package main

import (
	"encoding/json"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/stokerio/stoker/cufile"
)

// measureSpeed: T6. Each way to load a file, from the page cache and from the
// disk, beside what a copy from pinned memory and the disk alone reach.
func measureSpeed(r *report, o options) (err error) {
	m, err := openMachine(r, cufile.Options{Parameters: cufile.Parameters{AllowCompat: true}, Statistics: 1})
	if err != nil {
		return r.bad("T6", "speed", err.Error(), nil)
	}
	b, err := newBench(m, o, o.bytes)
	if err != nil {
		return errors.Join(r.bad("T6", "speed", err.Error(), nil), m.close())
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := checkCold(r, b.path); err != nil {
		return err
	}
	cold := func() error { return dropCache(b.path) }
	warm := func() error { return warmCache(b.path) }
	for _, run := range []struct {
		name   string
		before func() error
		work   func() error
	}{
		{"pinned copy (ceiling)", nil, func() error { return b.slab.CopyFromHost(b.staging.host, 0, 0, o.bytes) }},
		{"pageable copy", nil, func() error { return b.slab.CopyIn(b.content, 0) }},
		{"raw disk, O_DIRECT (ceiling)", cold, func() error { return readRaw(b.path, o.bytes) }},
		{"host-staged, warm", warm, func() error { return b.staging.load(b.path, b.slab, o.bytes) }},
		{"host-staged, cold", cold, func() error { return b.staging.load(b.path, b.slab, o.bytes) }},
		{"cuFile, warm", warm, b.loadCuFile(o.bytes)},
		{"cuFile, cold", cold, b.loadCuFile(o.bytes)},
	} {
		if failure := r.measure(run.name, o.bytes, o.repeats, run.before, run.work); failure != nil {
			if err := r.none("T6", run.name, failure.Error()); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *bench) loadCuFile(bytes int64) func() error {
	return func() error {
		if b.refused != nil {
			return b.refused
		}
		return loadDirect(b.file, b.slab, bytes)
	}
}

// copyUntil: T7. Another process's copies to the GPU, while a training loop runs
// beside it: one line when they begin, then copies without a pause until the
// input ends, then a line with how much that was.
func copyUntil(in io.Reader, out io.Writer, o options) (err error) {
	m, err := openMachine(&report{}, cufile.Options{NoStorage: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	slab, err := m.device.NewSlab(o.bytes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, slab.Close()) }()
	staging, err := newStaging(m.device, o.bytes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, staging.close()) }()
	ended := make(chan struct{}) // closed by the reader of the input, when it ends
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, in)
	})
	defer reader.Wait()
	if _, err := io.WriteString(out, "{\"copying\": true}\n"); err != nil {
		return err
	}
	for start, copied := time.Now(), int64(0); ; copied += o.bytes {
		select {
		case <-ended:
			return json.NewEncoder(out).Encode(map[string]any{"copied_bytes": copied, "seconds": time.Since(start).Seconds()})
		default:
		}
		if err := slab.CopyFromHost(staging.host, 0, 0, o.bytes); err != nil {
			return err
		}
	}
}
