package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/stokerio/stoker/cufile"
)

const tailBytes = 12_345 // past the last page, so that the file ends in the middle of one

// checkStorage: T3. Without compat mode the library must go direct or refuse; with
// it every read must be right, whatever its alignment.
func checkStorage(r *report, o options) error {
	if err := checkRoute(r, o); err != nil {
		return err
	}
	m, err := openMachine(r, cufile.Options{Parameters: cufile.Parameters{AllowCompat: true}, Statistics: 3})
	if err != nil {
		return r.bad("T3", "compat mode", err.Error(), nil)
	}
	if m.noStorage != nil {
		return errors.Join(r.none("T3", "compat mode", m.noStorage.Error()), m.close())
	}
	return errors.Join(checkCompat(r, m, o), m.close())
}

// checkRoute asks Prove, which allows no compat mode.
func checkRoute(r *report, o options) (err error) {
	m, err := openMachine(r, cufile.Options{Statistics: 3})
	if err != nil {
		return r.bad("T3", "route", err.Error(), nil)
	}
	defer func() { err = errors.Join(err, m.close()) }()
	if m.noStorage != nil {
		return r.ok("T3", "route", "not direct: "+m.noStorage.Error(), nil)
	}
	proof, err := m.driver.Prove(context.Background(), o.dir, m.device)
	if err != nil {
		return r.bad("T3", "route", err.Error(), nil)
	}
	return r.ok("T3", "route", fmt.Sprintf("%v: %s", proof.Route, proof.Reason), map[string]any{"proof": proof, "route": proof.Route.String()})
}

func checkCompat(r *report, m *machine, o options) (err error) {
	path, content, err := writeFile(o.dir, pieceBytes+tailBytes)
	if err != nil {
		return err
	}
	defer removeFile(path)
	slab, err := m.device.NewSlab(2 * pieceBytes)
	if err != nil {
		return r.bad("T3", "compat mode", err.Error(), nil)
	}
	defer func() { err = errors.Join(err, slab.Close()) }()
	if err := slab.Register(); err != nil { // reads need it for speed only
		if err := r.bad("T3", "compat mode: register memory", err.Error(), nil); err != nil {
			return err
		}
	}
	file, err := openFile(m.driver, path)
	if err != nil {
		return r.none("T3", "compat mode: register the file", err.Error())
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	for _, read := range reads(int64(len(content))) {
		if err := checkRead(r, slab, file, content, read); err != nil {
			return err
		}
	}
	return checkCounters(r, m)
}

// oneRead asks for n bytes of a file from off on, to slabOff.
type oneRead struct {
	name         string
	slabOff, off int64
	n            int
}

func reads(length int64) []oneRead {
	return []oneRead{
		{"aligned", 0, 0, pieceBytes},
		{"one page", 4096, 8192, 4096},
		{"unaligned in the file", 0, 4097, 100_000},
		{"unaligned in memory", 77, 4096, 100_000},
		{"unaligned in length", 0, 4096, 99_999},
		{"one byte", 1, 1, 1},
		{"over the end", 0, length - 5000, 1 << 20},
		{"at the end", 0, length, 4096},
		{"nothing", 0, 0, 0},
	}
}

// checkRead compares a read with what the file holds there.
func checkRead(r *report, slab *cufile.Slab, file *cufile.File, content []byte, read oneRead) error {
	want := content[min(read.off, int64(len(content))):min(read.off+int64(read.n), int64(len(content)))]
	n, err := file.ReadAt(slab, read.slabOff, read.n, read.off)
	name := "read " + read.name
	if short := len(want) < read.n; err != nil && !(short && errors.Is(err, io.EOF)) {
		return r.bad("T3", name, err.Error(), nil)
	}
	found := make([]byte, len(want))
	if n == len(want) && n > 0 {
		if err := slab.CopyOut(found, read.slabOff); err != nil {
			return r.bad("T3", name, err.Error(), nil)
		}
	}
	return r.either(n == len(want) && bytes.Equal(found, want), "T3", name, fmt.Sprintf("%d of %d bytes", n, len(want)), nil)
}

// checkCounters reads which way all of those went.
func checkCounters(r *report, m *machine) error {
	statistics, err := m.driver.Statistics()
	if err != nil {
		return r.none("T3", "route counters", err.Error())
	}
	for _, device := range statistics.Devices {
		if device.UUID == m.info.UUID {
			return r.either(device.Reads > 0, "T3", "route counters",
				fmt.Sprintf("%d reads: %d p2p, %d nvidia-fs, %d posix; %d unaligned, %d errors", device.Reads, device.P2PReads, device.NvidiaFSReads, device.PosixReads, device.UnalignedReads, device.ReadErrors),
				map[string]any{"statistics": device})
		}
	}
	return r.bad("T3", "route counters", "the library counted nothing for this GPU", map[string]any{"statistics": statistics})
}
