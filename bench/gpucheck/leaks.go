package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/stokerio/stoker/cufile"
)

// allowanceBytes is what the libraries may keep after the first turns: pools of
// their own, which do not grow with the turns.
const allowanceBytes = 4 << 20

// checkLeaks: T8. Slabs made, registered, exported and closed again and again leave
// no device memory and no descriptor.
func checkLeaks(r *report, o options) (err error) {
	m, err := openMachine(r, cufile.Options{Parameters: cufile.Parameters{AllowCompat: true}})
	if err != nil {
		return r.bad("T8", "leaks", err.Error(), nil)
	}
	defer func() { err = errors.Join(err, m.close()) }()
	if err := checkTurns(r, m, "slabs", max(1, o.turns/100), o.most, func() error { return useSlab(m) }); err != nil {
		return err
	}
	if m.noStorage != nil {
		return r.none("T8", "registrations", m.noStorage.Error())
	}
	slab, err := m.device.NewSlab(pieceBytes)
	if err != nil {
		return r.bad("T8", "registrations", err.Error(), nil)
	}
	defer func() { err = errors.Join(err, slab.Close()) }()
	path, _, err := writeFile(o.dir, 1<<20)
	if err != nil {
		return err
	}
	defer removeFile(path)
	return checkTurns(r, m, "registrations", o.turns, o.most, func() error { return register(m, slab, path) })
}

// checkTurns compares what is held after the first turn with what is held after
// the last. It ends early when the time is up: how long a turn takes is the
// library's business, and fewer of them are an answer too.
func checkTurns(r *report, m *machine, name string, meant int, most time.Duration, turn func() error) error {
	if err := turn(); err != nil {
		return r.none("T8", name, err.Error())
	}
	before, err := holdings(m)
	turns := 0
	for start := time.Now(); err == nil && turns < meant && (turns == 0 || time.Since(start) < most); turns++ {
		err = turn()
	}
	after, holdingsErr := holdings(m)
	if err = errors.Join(err, holdingsErr); err != nil {
		return r.bad("T8", name, err.Error(), nil)
	}
	lost := before.freeBytes - after.freeBytes
	return r.either(lost <= allowanceBytes && after.descriptors <= before.descriptors, "T8", name,
		fmt.Sprintf("after %d of %d turns: %d bytes of device memory and %d descriptors more in use", turns, meant, lost, after.descriptors-before.descriptors),
		map[string]any{"turns": turns, "meant": meant, "lost_bytes": lost})
}

type held struct {
	freeBytes   int64
	descriptors int
}

func holdings(m *machine) (held, error) {
	free, _, err := m.device.Memory()
	descriptors, listErr := os.ReadDir("/proc/self/fd")
	return held{free, len(descriptors)}, errors.Join(err, listErr)
}

// useSlab makes a slab, exports it, and closes it.
func useSlab(m *machine) error {
	slab, err := m.device.NewSlab(pieceBytes)
	if err != nil {
		return err
	}
	if slab.Kind() != cufile.SlabVMM {
		return slab.Close()
	}
	exported, err := slab.Export()
	if err == nil {
		err = exported.Close()
	}
	return errors.Join(err, slab.Close())
}

// register registers memory and a file, reads a page, and undoes it.
func register(m *machine, slab *cufile.Slab, path string) error {
	if err := slab.Register(); err != nil {
		return err
	}
	file, err := openFile(m.driver, path)
	if err == nil {
		_, err = file.ReadAt(slab, 0, 4096, 0)
		err = errors.Join(err, file.Close())
	}
	return errors.Join(err, slab.Unregister())
}
