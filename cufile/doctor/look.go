package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/stokerio/stoker/cufile"
	"github.com/stokerio/stoker/cufile/inventory"
)

// Options say what Look looks at.
type Options struct {
	// Lookup reads the environment.
	Lookup func(name string) (string, bool)
	// Directories are those in which chunks are kept, or will be.
	Directories []string
	// Libraries say where those of the GPU are, if not where cufile.Open looks itself.
	Libraries Libraries
	Wanted    Wanted
	// Prove is nil if nothing is to be tried.
	Prove *Prove
}

// Libraries are paths, "" for what [cufile.Options] says.
type Libraries struct{ CUDA, CuFile string }

// Prove says how probes are made. They take a GPU context (about 500 MiB of its memory)
// in two processes, files of 16 MiB, and of 256 MiB in the first directory, while they
// last, and some seconds.
type Prove struct {
	// Peer is the command of another process that calls MapSlab with its descriptor 3 and
	// its last argument, the UUID of a GPU, which is added here.
	Peer []string
	// Python is an interpreter that trainers use. "": none is tried.
	Python string
}

// Look gathers what a machine says of itself, and closes all that it opened. What cannot
// be read is part of the answer; the error is one of ending it.
func Look(ctx context.Context, o Options) (*Machine, error) {
	m := &Machine{
		Files: os.DirFS("/"), Lookup: o.Lookup, Architecture: runtime.GOARCH, Wanted: o.Wanted,
		NVML: inventory.Read(ctx, inventory.Options{}),
	}
	for _, path := range o.Directories {
		m.Directories = append(m.Directories, lookAt(path))
	}
	driver := m.openGPU(o.Libraries)
	if driver == nil {
		return m, nil
	}
	if o.Prove != nil && m.hasGPU() {
		m.Probes = m.prove(ctx, driver, &o)
	}
	if err := driver.Close(); err != nil {
		return m, fmt.Errorf("close the GPU's driver: %w", err)
	}
	return m, nil
}

// openGPU loads the libraries. The caller closes the driver; it is nil where there is
// none.
func (m *Machine) openGPU(from Libraries) *cufile.Driver {
	driver, err := openAny(from, &m.GPU.StorageErr)
	if err != nil {
		m.GPU.Err = err
		return nil
	}
	m.GPU.Versions, m.GPU.Symbols = driver.Versions(), driver.Symbols()
	if m.GPU.Devices, err = driver.Devices(); err != nil {
		m.GPU.Err = err
	}
	m.GPU.BAR1 = map[int]int64{}
	for i := range m.GPU.Devices {
		ordinal := m.GPU.Devices[i].Ordinal
		if size, err := driver.BARBytes(ordinal); err == nil { // since cuFile 1.14
			m.GPU.BAR1[ordinal] = size
		}
	}
	return driver
}

// openAny opens both libraries; where the storage library refuses to start without its
// compatibility mode, with that, to ask which version it is; else the driver alone.
func openAny(from Libraries, storageErr *error) (*cufile.Driver, error) {
	o := cufile.Options{Device: from.CUDA, Storage: from.CuFile}
	counting := o
	counting.Statistics = statisticsByRoute
	driver, err := cufile.Open(counting)
	if err == nil || errors.Is(err, cufile.ErrNoCgo) || errors.Is(err, cufile.ErrNoDriver) {
		return driver, err
	}
	*storageErr = err
	if refused(err) {
		allowing := o
		allowing.Parameters.AllowCompat = true
		if driver, err := cufile.Open(allowing); err == nil {
			return driver, nil
		}
	}
	o.NoStorage = true
	return cufile.Open(o)
}

// refused tells a storage library that works, and has no route, from one that does not.
func refused(err error) bool {
	var failed *cufile.Error
	return errors.As(err, &failed) && failed.Code != 0
}

// statisticsByRoute is the level at which cuFile counts reads by route.
const statisticsByRoute = 3
