package doctor

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/stokerio/stoker/cufile"
)

// probeTimeout bounds each probe: a sandbox may let a driver's call hang.
const probeTimeout = time.Minute

// prove tries for real what the lines before only read about.
func (m *Machine) prove(ctx context.Context, driver *cufile.Driver, o *Options) *Probes {
	probes := &Probes{}
	for i := range m.GPU.Devices {
		probes.Sharing = append(probes.Sharing, proveSharing(ctx, driver, &m.GPU.Devices[i], o.other(o.Prove.Peer)))
	}
	device := &m.GPU.Devices[0]
	for i := range m.Directories {
		if d := &m.Directories[i]; d.Err == "" && m.hasStorage() {
			probes.Routes = append(probes.Routes, m.proveRoute(ctx, driver, device, d.Path))
		}
	}
	m.Probes = probes
	if len(m.Directories) > 0 && !m.GPU.Versions.Stub {
		probes.Speed = m.sampleSpeed(ctx, driver, device, &m.Directories[0])
	}
	if o.Prove.Python != "" {
		probes.Python = provePython(ctx, driver, device, o.other([]string{o.Prove.Python, "-c", pythonProbe}))
	}
	return probes
}

// proveRoute reads a file of a directory. A library that refuses to start without its
// compatibility mode has answered already.
func (m *Machine) proveRoute(ctx context.Context, driver *cufile.Driver, info *cufile.DeviceInfo, directory string) (p RouteProbe) {
	p = RouteProbe{Directory: directory, Device: info.UUID.String()}
	if err := m.GPU.StorageErr; err != nil {
		p.Proof = cufile.Proof{Route: cufile.NotDirect, Reason: refusesToStart + ": " + said(err), Device: info.UUID, CuFile: m.GPU.Versions.CuFile, Stub: m.GPU.Versions.Stub}
		return p
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	device, err := driver.Device(info.UUID)
	if err != nil {
		p.Err = err.Error()
		return p
	}
	defer closing(&p.Err, device.Close)
	if p.Proof, err = driver.Prove(ctx, directory, device); err != nil {
		p.Err = said(err)
		p.Wrong = errors.Is(err, cufile.ErrWrongBytes) || errors.Is(err, syscall.EIO)
	}
	return p
}

// sampleRoom is how much a file system has free at least where speed is sampled, so that
// whoever writes there beside is not starved.
const sampleRoom = 1 << 30

func (m *Machine) sampleSpeed(ctx context.Context, driver *cufile.Driver, device *cufile.DeviceInfo, d *Directory) *SpeedProbe {
	switch {
	case d.Err != "":
		return &SpeedProbe{Err: d.Path + ": " + d.Err}
	case d.NotTried != "":
		return &SpeedProbe{Err: d.Path + ": " + d.NotTried}
	case d.FreeBytes < sampleRoom:
		return &SpeedProbe{Err: d.Path + ": " + sized(d.FreeBytes) + " free are too little to write a file of " + sized(oneSecond.fileBytes)}
	}
	return oneSecond.measure(ctx, driver, device, d.Path, m.proved().Direct())
}

// closing closes something, and keeps the error if it is the first.
func closing(text *string, close func() error) {
	if err := close(); err != nil && *text == "" {
		*text = err.Error()
	}
}
