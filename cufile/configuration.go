package cufile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// configurationVariable names the storage library's configuration; the library
// reads the file that it names, else defaultConfiguration.
const (
	configurationVariable = "CUFILE_ENV_PATH_JSON"
	defaultConfiguration  = "/etc/cufile.json"
	maxConfigurationBytes = 1 << 20
)

// environment guards the process's environment while libraries load: there is one
// in a process, whatever number of Drivers.
var environment sync.Mutex

// configure gives the storage library a configuration with our parameters, and
// takes it away again when it is open: libraries before 1.14 have no other way, and
// which one will load is not known before. Variables that would win over the file
// are set as well.
func (d *Driver) configure() (restore func(), err error) {
	environment.Lock() // before the variable is read: another Open's names its own file
	defer func() {
		if err != nil {
			environment.Unlock()
		}
	}()
	text, err := configuration(configurationPath(), d.options.Parameters)
	if err != nil {
		return nil, err
	}
	file, err := memoryFile(text)
	if err != nil {
		return nil, &Error{Op: "memfd_create", Object: "cufile.json", Errno: errnoOf(err)}
	}
	variables := map[string]string{
		configurationVariable:      fmt.Sprintf("/proc/self/fd/%d", file.Fd()),
		"CUFILE_ALLOW_COMPAT_MODE": strconv.FormatBool(d.options.Parameters.AllowCompat),
		"CUFILE_FORCE_COMPAT_MODE": "false",
	}
	if p2pdma := d.options.Parameters.PCIP2PDMA; p2pdma != nil {
		variables["CUFILE_USE_PCIP2PDMA"] = strconv.FormatBool(*p2pdma)
	}
	undo := setEnvironment(variables)
	return func() {
		undo()
		environment.Unlock()
		_ = file.Close() // memory of ours: nothing can be lost
	}, nil
}

func configurationPath() string {
	if path := os.Getenv(configurationVariable); path != "" {
		return path
	}
	return defaultConfiguration
}

// configuration is the machine's cufile.json with our parameters in it; a machine
// without one has the library's defaults.
func configuration(path string, p Parameters) ([]byte, error) {
	settings := make(map[string]any)
	text, err := readSmall(path)
	switch {
	case errors.Is(err, os.ErrNotExist) && path == defaultConfiguration:
	case err != nil:
		return nil, fmt.Errorf("%w: %w; remedy: repair what %s names, or unset it", ErrConfiguration, err, configurationVariable)
	default:
		decoder := json.NewDecoder(bytes.NewReader(withoutComments(text)))
		decoder.UseNumber()
		if err := decoder.Decode(&settings); err != nil {
			return nil, fmt.Errorf("%w %q: %w; remedy: repair the file, or name another one by %s", ErrConfiguration, path, err, configurationVariable)
		}
	}
	if settings == nil { // the file said null
		settings = make(map[string]any)
	}
	apply(settings, p)
	return json.Marshal(settings)
}

func apply(settings map[string]any, p Parameters) {
	properties := section(settings, "properties")
	properties["allow_compat_mode"] = p.AllowCompat
	properties["force_compat_mode"] = false
	if p.MaxDirectBytes > 0 {
		properties["max_direct_io_size_kb"] = p.MaxDirectBytes >> 10
	}
	if p.MaxPinnedBytes > 0 {
		properties["max_device_pinned_mem_size_kb"] = p.MaxPinnedBytes >> 10
	}
	if p.PCIP2PDMA != nil {
		properties["use_pci_p2pdma"] = *p.PCIP2PDMA
		section(section(section(settings, "fs"), "block"), "nvme")["use_pci_p2pdma"] = *p.PCIP2PDMA
	}
	section(settings, "logging")["dir"] = p.logDir()
}

// section finds an object within an object, or makes it.
func section(parent map[string]any, name string) map[string]any {
	child, ok := parent[name].(map[string]any)
	if !ok {
		child = make(map[string]any)
		parent[name] = child
	}
	return child
}

func readSmall(path string) ([]byte, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path) // the open of a pipe waits for its writer
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxConfigurationBytes+1))
	if err == nil && len(text) > maxConfigurationBytes {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxConfigurationBytes)
	}
	return text, err
}

// withoutComments blanks // and /* */ comments outside of strings, which cufile.json
// may hold and JSON may not. Positions in error messages stay true.
func withoutComments(text []byte) []byte {
	out := bytes.Clone(text)
	for i := 0; i < len(out); {
		switch rest := out[i:]; {
		case rest[0] == '"':
			i += stringLength(rest)
		case bytes.HasPrefix(rest, []byte("//")):
			i += blank(rest, bytes.IndexByte(rest, '\n'))
		case bytes.HasPrefix(rest, []byte("/*")):
			end := bytes.Index(rest[2:], []byte("*/"))
			if end >= 0 {
				end += 4
			}
			i += blank(rest, end)
		default:
			i++
		}
	}
	return out
}

// stringLength is the length of the JSON string that p begins with, quotes included.
func stringLength(p []byte) int {
	for i := 1; i < len(p); i++ {
		switch p[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(p)
}

// blank overwrites the first n bytes, or all where n is negative, but keeps lines.
func blank(p []byte, n int) int {
	if n < 0 {
		n = len(p)
	}
	for i := range n {
		if p[i] != '\n' {
			p[i] = ' '
		}
	}
	return n
}

// memoryFile holds text in memory under a descriptor, so that nothing is left on a
// disk whatever becomes of this process.
func memoryFile(text []byte) (*os.File, error) {
	descriptor, err := unix.MemfdCreate("cufile.json", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(descriptor), "cufile.json")
	if _, err := file.Write(text); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// setEnvironment sets variables and answers what undoes it.
func setEnvironment(variables map[string]string) (undo func()) {
	before := make(map[string]*string, len(variables))
	for name, value := range variables {
		before[name] = nil
		if old, set := os.LookupEnv(name); set {
			before[name] = &old
		}
		_ = os.Setenv(name, value) // fails only for names that are none
	}
	return func() {
		for name, value := range before {
			if value == nil {
				_ = os.Unsetenv(name)
			} else {
				_ = os.Setenv(name, *value)
			}
		}
	}
}
