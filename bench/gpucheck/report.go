package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/stokerio/stoker/cufile"
)

// check is one line of the report: what was looked at and what was found.
type check struct {
	Test   string         `json:"test"` // T0 to T8
	Name   string         `json:"name"`
	Status string         `json:"status"` // ok; bad; none: cannot be here, which is an answer
	Found  string         `json:"found"`
	Values map[string]any `json:"values,omitempty"`
}

// figure is one measured speed, in 10^9 bytes a second.
type figure struct {
	Speed   string  `json:"speed"`
	Bytes   int64   `json:"bytes"` // of one repeat
	Repeats int     `json:"repeats"`
	Median  float64 `json:"median_gb_s"`
	Min     float64 `json:"min_gb_s"`
	Max     float64 `json:"max_gb_s"`
}

type report struct {
	encoder *json.Encoder
	// stub is set once the libraries are known to be stand-ins.
	stub bool
}

func (r *report) ok(test, name, found string, values map[string]any) error {
	return r.encoder.Encode(check{test, name, "ok", found, values})
}

func (r *report) bad(test, name, found string, values map[string]any) error {
	return r.encoder.Encode(check{test, name, "bad", found, values})
}

func (r *report) none(test, name, found string) error {
	return r.encoder.Encode(check{test, name, "none", found, nil})
}

// either writes ok or bad.
func (r *report) either(holds bool, test, name, found string, values map[string]any) error {
	if holds {
		return r.ok(test, name, found, values)
	}
	return r.bad(test, name, found, values)
}

// measure runs work repeats times after one turn that warms up, and writes its
// speed, on a stand-in only that it ran. before is run ahead of each, untimed.
func (r *report) measure(name string, bytes int64, repeats int, before, work func() error) error {
	if r.stub {
		repeats = 1
	}
	speeds := make([]float64, 0, repeats)
	for turn := range repeats + 1 {
		if before != nil {
			if err := before(); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		start := time.Now()
		if err := work(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if turn > 0 {
			speeds = append(speeds, float64(bytes)/float64(time.Since(start).Nanoseconds()))
		}
	}
	if r.stub {
		return r.ok("T6", name, "STUB: it ran; a stand-in has no speed", nil)
	}
	slices.Sort(speeds)
	return r.encoder.Encode(figure{name, bytes, len(speeds), speeds[len(speeds)/2], speeds[0], speeds[len(speeds)-1]})
}

// machine is an open driver with its first GPU.
type machine struct {
	driver *cufile.Driver
	device *cufile.Device
	info   cufile.DeviceInfo
	// noStorage says why there is no storage library, or is nil.
	noStorage error
}

// openMachine opens the driver, without the storage library where there is none or
// it refuses to open.
func openMachine(r *report, o cufile.Options) (*machine, error) {
	driver, err := cufile.Open(o)
	m := &machine{driver: driver}
	if err != nil && !errors.Is(err, cufile.ErrNoDriver) && !errors.Is(err, cufile.ErrNoCgo) && !o.NoStorage {
		m.noStorage = err
		m.driver, err = cufile.Open(cufile.Options{NoStorage: true})
	}
	if err != nil {
		return nil, err
	}
	r.stub = m.driver.Versions().Stub
	devices, err := m.driver.Devices()
	if err == nil && len(devices) == 0 {
		err = errors.New("no GPU is visible: see nvidia-smi -L and CUDA_VISIBLE_DEVICES")
	}
	if err == nil {
		m.info = devices[0]
		m.device, err = m.driver.Device(devices[0].UUID)
	}
	if err != nil {
		return nil, errors.Join(err, m.driver.Close())
	}
	return m, nil
}

// close closes what openMachine opened; what was made since must be closed before.
func (m *machine) close() error { return errors.Join(m.device.Close(), m.driver.Close()) }
