package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/stokerio/stoker/cufile"
)

// checkDriver: T1 and T2, what is there.
func checkDriver(r *report, _ options) (err error) {
	m, err := openMachine(r, cufile.Options{Parameters: cufile.Parameters{AllowCompat: true}, Statistics: 3})
	if err != nil {
		return r.bad("T2", "driver", err.Error(), nil)
	}
	defer func() { err = errors.Join(err, m.close()) }()
	versions := m.driver.Versions()
	if err := r.ok("T2", "driver", fmt.Sprintf("CUDA %d from %s", versions.CUDA, versions.DevicePath), map[string]any{"versions": versions}); err != nil {
		return err
	}
	if err := checkSymbols(r, m, versions); err != nil {
		return err
	}
	if err := checkProperties(r, m); err != nil {
		return err
	}
	return checkDevices(r, m)
}

// checkSymbols expects of each library what its version has.
func checkSymbols(r *report, m *machine, versions cufile.Versions) error {
	var missing, wrong []string
	symbols := m.driver.Symbols()
	for _, symbol := range symbols {
		if symbol.Found || symbol.Library == "libcufile" && m.noStorage != nil {
			continue
		}
		missing = append(missing, symbol.Name)
		if symbol.Library != "libcufile" || versionNumber(symbol.Since) <= versions.CuFile {
			wrong = append(wrong, symbol.Name)
		}
	}
	found := fmt.Sprintf("%d of %d functions", len(symbols)-len(missing), len(symbols))
	if len(missing) > 0 {
		found += "; missing, as this version should: " + strings.Join(missing, " ")
	}
	if len(wrong) > 0 {
		found += "; missing, though this version should have them: " + strings.Join(wrong, " ")
	}
	return r.either(len(wrong) == 0, "T1", "symbols", found, map[string]any{"symbols": symbols})
}

// versionNumber turns "1.15" into 1150.
func versionNumber(text string) int {
	major, minor, _ := strings.Cut(text, ".")
	high, err := strconv.Atoi(major)
	low, lowErr := strconv.Atoi(minor)
	if err != nil || lowErr != nil && minor != "" {
		return 0
	}
	return 1000*high + 10*low
}

func checkProperties(r *report, m *machine) error {
	if m.noStorage != nil {
		return r.none("T1", "storage library", m.noStorage.Error())
	}
	properties, err := m.driver.Properties()
	if err != nil {
		return r.bad("T1", "storage library", err.Error(), nil)
	}
	versions := m.driver.Versions()
	return r.ok("T1", "storage library", fmt.Sprintf("cuFile %d from %s", versions.CuFile, versions.StoragePath),
		map[string]any{"properties": properties})
}

func checkDevices(r *report, m *machine) error {
	devices, err := m.driver.Devices()
	if err != nil {
		return r.bad("T2", "devices", err.Error(), nil)
	}
	free, total, err := m.device.Memory()
	if err != nil {
		return r.bad("T2", "devices", err.Error(), nil)
	}
	return r.either(m.info.Exportable(), "T2", "devices",
		fmt.Sprintf("%s; slabs travel as descriptors: %v; %d of %d MiB free", m.info.Name, m.info.Exportable(), free>>20, total>>20),
		map[string]any{"devices": devices, "free_bytes": free, "total_bytes": total})
}
