package cufile

import "fmt"

// openStorage loads the storage library, sets the parameters and opens its driver.
func (d *Driver) openStorage() error {
	restore, err := d.configure()
	if err != nil {
		return err
	}
	defer restore()
	path, err := d.load(storageLibrary, d.options.Storage, ErrNoStorage)
	if err != nil {
		return err
	}
	d.versions.StoragePath = path
	d.findVersion()
	if err := d.setParameters(); err != nil {
		return err
	}
	if s := d.table.openStorage(); s.failed() {
		return s.error(path)
	}
	d.storage = true
	if err := d.startCounting(); err != nil {
		return d.closeUnused(path, err)
	}
	return nil
}

// closeUnused closes the storage library again where Open fails after it. Nobody gets
// the Driver, so nobody else can try a second time.
func (d *Driver) closeUnused(path string, cause error) error {
	s := d.table.closeStorage()
	if s.failed() {
		s = d.table.closeStorage()
	}
	if s.failed() {
		return fmt.Errorf("%w (and it cannot be closed again: %w; it stays open until the process ends: start that anew)", cause, s.error(path))
	}
	return cause
}

// findVersion asks the library, or infers the oldest version that fits its symbols:
// cuFileGetVersion came late.
func (d *Driver) findVersion() {
	if version, s := d.table.storageVersion(); !s.failed() {
		d.versions.CuFile = version
		return
	}
	d.versions.Inferred = true
	d.versions.CuFile = d.vendor.oldest
	for _, step := range d.vendor.versions {
		if d.found[step.function] {
			d.versions.CuFile = step.version
			return
		}
	}
}

// parameter is one setting: its name in cufile.json, and the call that sets it.
type parameter struct {
	name string
	set  func() status
}

func (d *Driver) parameters() []parameter {
	p, t := d.options.Parameters, d.table
	all := []parameter{
		{"allow_compat_mode", func() status { return t.setBool(allowCompatParameter, p.AllowCompat) }},
		{"force_compat_mode", func() status { return t.setBool(forceCompatParameter, false) }},
		{"logging.dir", func() status { return t.setLogDir(p.logDir()) }},
	}
	if p.PCIP2PDMA != nil {
		all = append(all, parameter{"use_pci_p2pdma", func() status { return t.setBool(pciP2PDMAParameter, *p.PCIP2PDMA) }})
	}
	if p.MaxDirectBytes > 0 {
		all = append(all, parameter{"max_direct_io_size_kb", func() status { return t.setSize(maxDirectParameter, p.MaxDirectBytes) }})
	}
	if p.MaxPinnedBytes > 0 {
		all = append(all, parameter{"max_device_pinned_mem_size_kb", func() status { return t.setSize(maxPinnedParameter, p.MaxPinnedBytes) }})
	}
	return all
}

// setParameters uses the library's own calls where it has them (1.14). They win
// over the environment and cufile.json.
func (d *Driver) setParameters() error {
	if !d.has(settableParameters) {
		return nil
	}
	for _, parameter := range d.parameters() {
		if s := parameter.set(); s.failed() {
			return s.error(parameter.name)
		}
	}
	return nil
}

// startCounting begins to count at the level asked for. A library that cannot count
// is no error; Statistics says it.
func (d *Driver) startCounting() error {
	if d.options.Statistics == 0 || !d.has(countedReads) {
		return nil
	}
	if s := d.table.startStatistics(d.options.Statistics); s.failed() {
		return s.error("")
	}
	d.counting = d.options.Statistics
	return nil
}

func (d *Driver) closeStorage() error {
	if d.counting > 0 {
		if s := d.table.stopStatistics(); s.failed() {
			return s.error("")
		}
		d.counting = 0
	}
	if s := d.table.closeStorage(); s.failed() {
		return s.error(d.versions.StoragePath)
	}
	return nil
}
