package cufile

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// Driver speaks to a GPU driver and, unless NoStorage was asked for, to a storage
// library. One process has one Driver with storage at a time: the storage library
// refuses a second one (5026).
type Driver struct {
	table    table
	vendor   *vendor
	options  Options
	versions Versions
	found    map[string]bool // functions that the libraries have
	devices  int
	storage  bool
	counting int // level at which the storage library counts; 0: it does not
	gate     gate
}

// Open loads the libraries, initialises the GPU driver and opens the storage
// library with the options' parameters. It answers ErrNoCgo, ErrNoDriver (no
// libcuda) or ErrNoStorage (libcuda and no libcufile), for errors.Is; whatever else
// goes wrong with a library is an *Error, for example CUDA's 100 where there is no
// GPU, or a file that is damaged. Options that cannot be, and a cufile.json that
// cannot be read, are errors of their own. The caller closes the Driver.
func Open(options Options) (*Driver, error) {
	if err := options.Validate(); err != nil {
		return nil, fmt.Errorf("cufile options: %w", err)
	}
	t, err := newTable()
	if err != nil {
		return nil, err
	}
	d := &Driver{table: t, vendor: &nvidia, options: options, found: make(map[string]bool)}
	if err := d.open(); err != nil {
		t.free()
		return nil, err
	}
	return d, nil
}

func (d *Driver) open() error {
	path, err := d.load(deviceLibrary, d.options.Device, ErrNoDriver)
	if err != nil {
		return err
	}
	d.versions.DevicePath = path
	version, devices, s := d.table.start()
	if s.failed() {
		return s.error(path)
	}
	d.versions.CUDA, d.devices = version, devices
	if !d.options.NoStorage {
		if err := d.openStorage(); err != nil {
			return err
		}
	}
	d.versions.Stub = d.table.stub()
	return nil
}

// load tries the places where a library may be. What is not there is missing; what
// is there and does not load is an error of its own.
func (d *Driver) load(which library, named string, missing error) (string, error) {
	names := &d.vendor.libraries[which]
	var tried []string
	for _, name := range d.vendor.places(which, named) {
		if err := checkLibrary(name); err != nil {
			return "", d.damaged(which, name, err.Error())
		}
		text, ok := d.table.load(which, name)
		if ok {
			return text, d.complete(which, text)
		}
		if !notFound(name, text) {
			return "", d.damaged(which, name, text)
		}
		tried = append(tried, name)
	}
	return "", fmt.Errorf("%w: no %s among %s; name it by %s if it is elsewhere", missing, names.name, strings.Join(tried, ", "), names.variable)
}

func (d *Driver) damaged(which library, name, reason string) error {
	return &Error{Op: "dlopen", Object: name, Detail: reason + "; install the library anew, or name another (" + d.vendor.libraries[which].variable + ")"}
}

// notFound tells a library that is not there from one that is damaged or lacks
// another one that it needs: the loader's message begins with the missing file.
func notFound(name, message string) bool {
	return strings.HasPrefix(message, name+":") && strings.Contains(strings.ToLower(message), syscall.ENOENT.Error())
}

// complete notes what a library has, and refuses one without a function that
// everything needs.
func (d *Driver) complete(which library, path string) error {
	names := &d.vendor.libraries[which]
	refuse := func(name string) error {
		return &Error{Op: "dlsym", Object: path, Detail: "no " + name + "; this is not a " + names.name + " that Stoker can use"}
	}
	for _, s := range d.table.symbols() {
		if s.Found {
			d.found[s.Name] = true
		} else if s.needed && s.Library == names.name {
			return refuse(s.Name)
		}
	}
	if which == storageLibrary && !d.has(closableStorage) {
		return refuse(d.vendor.features[closableStorage][0])
	}
	return nil
}

// Versions say what is loaded.
func (d *Driver) Versions() Versions { return d.versions }

// Symbols lists every function that this package can use, and whether the libraries
// that are loaded have it.
func (d *Driver) Symbols() []Symbol {
	if !d.gate.enter() {
		return nil
	}
	defer d.gate.leave()
	all := d.table.symbols()
	out := make([]Symbol, len(all))
	for i, s := range all {
		out[i] = s.Symbol
	}
	return out
}

// Devices describes the GPUs that this process sees, by ordinal. One that does not
// answer, as it fell off the bus, is an error beside the others. On a machine that has
// none Open fails already.
func (d *Driver) Devices() ([]DeviceInfo, error) {
	if !d.gate.enter() {
		return nil, closed("list the GPUs", "")
	}
	defer d.gate.leave()
	return d.describe()
}

func (d *Driver) describe() ([]DeviceInfo, error) {
	all := make([]DeviceInfo, 0, d.devices)
	var failures []error
	for ordinal := range d.devices {
		info, s := d.table.describe(ordinal)
		if s.failed() {
			failures = append(failures, s.error(fmt.Sprintf("GPU %d", ordinal)))
			continue
		}
		all = append(all, info)
	}
	return all, errors.Join(failures...)
}

// BARBytes is the size of a GPU's BAR1 aperture as the storage library sees it,
// which bounds what can be registered. ErrUnsupported before cuFile 1.14.
func (d *Driver) BARBytes(ordinal int) (int64, error) {
	if !d.gate.enter() {
		return 0, closed("read BAR1", "")
	}
	defer d.gate.leave()
	bytes, s := d.table.barBytes(ordinal)
	return bytes, d.optional(s, "BAR1 of the GPU", "1.14")
}

// optional turns the absence of a newer function into ErrUnsupported.
func (d *Driver) optional(s status, what, since string) error {
	if !s.failed() {
		return nil
	}
	if !d.storage {
		return fmt.Errorf("%s: %w: opened without the storage library", what, ErrNoStorage)
	}
	if s.absent() {
		return fmt.Errorf("%s: %w: cuFile %s has no %s, which came with %s", what, ErrUnsupported, versionText(d.versions.CuFile), s.op, since)
	}
	return s.error(what)
}

func versionText(version int) string {
	return fmt.Sprintf("%d.%d", version/1000, version%1000/10)
}

// Close closes the storage library's driver. While devices or files are open it
// answers ErrInUse and closes nothing.
func (d *Driver) Close() error {
	err := d.gate.shut(func() error {
		if d.storage {
			if err := d.closeStorage(); err != nil {
				return err
			}
		}
		d.table.free()
		return nil
	})
	if err != nil {
		return fmt.Errorf("close the GPU driver: %w", err)
	}
	return nil
}

func closed(what, object string) error {
	if object != "" {
		what = fmt.Sprintf("%s %q", what, object)
	}
	return fmt.Errorf("%s: %w", what, ErrClosed)
}

// errorOf finds the library's refusal in an error.
func errorOf(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return nil
}
