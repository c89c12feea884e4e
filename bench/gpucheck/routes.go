package main

import (
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/stokerio/stoker/cufile"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// route is one way to bring a file into a slab.
type route struct {
	name string
	load func() error
}

// bench is what the routes and their speeds are tried on: a file on the disk, as
// much device memory, and host memory for staging.
type bench struct {
	*machine
	path    string
	content []byte
	slab    *cufile.Slab
	staging *staging
	file    *cufile.File // nil where the storage library does not take it
	refused error        // why
	// unregistered is why the slab is not registered: reads then take a bounce buffer.
	unregistered error
}

// newBench makes one whose staging memory has so many bytes, and a piece a worker at least.
func newBench(m *machine, o options, stagingBytes int64) (_ *bench, err error) {
	b := &bench{machine: m, refused: m.noStorage}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.release())
		}
	}()
	if b.path, b.content, err = writeFile(o.dir, o.bytes); err != nil {
		return nil, err
	}
	if b.slab, err = m.device.NewSlab(o.bytes); err != nil {
		return nil, err
	}
	if b.staging, err = newStaging(m.device, max(stagingBytes, workers*pieceBytes)); err != nil {
		return nil, err
	}
	if m.noStorage == nil {
		b.unregistered, b.refused = b.slab.Register(), b.open()
	}
	return b, nil
}

func (b *bench) open() (err error) {
	b.file, err = openFile(b.driver, b.path)
	return err
}

func (b *bench) close() error { return errors.Join(b.release(), b.machine.close()) }

// release closes all but the machine.
func (b *bench) release() error {
	var failures []error
	if b.file != nil {
		failures = append(failures, b.file.Close())
	}
	if b.staging != nil {
		failures = append(failures, b.staging.close())
	}
	if b.slab != nil {
		failures = append(failures, b.slab.Close())
	}
	removeFile(b.path)
	return errors.Join(failures...)
}

// checkRoutes: T4. The same file by each way; what the slab then holds is copied
// back and must have the file's checksum.
func checkRoutes(r *report, o options) (err error) {
	m, err := openMachine(r, cufile.Options{Parameters: cufile.Parameters{AllowCompat: true}, Statistics: 1})
	if err != nil {
		return r.bad("T4", "routes", err.Error(), nil)
	}
	b, err := newBench(m, o, 0)
	if err != nil {
		return errors.Join(r.bad("T4", "routes", err.Error(), nil), m.close())
	}
	defer func() { err = errors.Join(err, b.close()) }()
	routes := []route{
		{"plain copy", func() error { return b.slab.CopyIn(b.content, 0) }},
		{"host-staged", func() error { return b.staging.load(b.path, b.slab, o.bytes) }},
	}
	if b.refused == nil {
		routes = append(routes, route{"cuFile, compat mode allowed", func() error { return loadDirect(b.file, b.slab, o.bytes) }})
	} else if err := r.none("T4", "cuFile, compat mode allowed", b.refused.Error()); err != nil {
		return err
	}
	if b.unregistered != nil {
		if err := r.none("T4", "register the slab", b.unregistered.Error()); err != nil {
			return err
		}
	}
	want := crc32.Checksum(b.content, castagnoli)
	for _, route := range routes {
		if err := b.checkRoute(r, route, want); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) checkRoute(r *report, route route, want uint32) error {
	found := make([]byte, len(b.content))
	err := b.slab.CopyIn(found, 0) // so that what an earlier route left is not taken for this one's
	if err == nil {
		err = route.load()
	}
	if err == nil {
		err = b.slab.CopyOut(found, 0)
	}
	if err != nil {
		return r.bad("T4", route.name, err.Error(), nil)
	}
	crc := crc32.Checksum(found, castagnoli)
	return r.either(crc == want, "T4", route.name, fmt.Sprintf("%d bytes, CRC32C %08x, the file's is %08x", len(found), crc, want), nil)
}
