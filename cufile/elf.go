package cufile

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
)

// machines are the processors that NVIDIA's libraries come for.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// errOtherMachine is a library that the loader passes over where it searches.
var errOtherMachine = errors.New("the file is for another processor")

// checkLibrary refuses a library file that is cut off: the loader maps it, and the
// process dies of SIGBUS at the first page that is not there. It also refuses one of
// another processor, which the loader passes over as if it were not there. Of a name
// without a path it looks at the file that the loader would take.
func checkLibrary(name string) error {
	if strings.Contains(name, "/") {
		return checkFile(name)
	}
	for _, path := range loaderPlaces(name) {
		if _, err := os.Stat(path); err != nil {
			continue
		}
		err := checkFile(path)
		switch {
		case errors.Is(err, errOtherMachine):
			continue
		case err != nil:
			return fmt.Errorf("the loader takes %s: %w", path, err)
		}
		return nil
	}
	return nil
}

func checkFile(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return nil // the loader says it better
	}
	if !info.Mode().IsRegular() {
		return errors.New("no regular file") // the open of a pipe waits for its writer
	}
	file, err := os.Open(path)
	if err != nil {
		return nil // as above
	}
	defer file.Close()
	headers, err := elf.NewFile(file)
	if err != nil {
		return fmt.Errorf("no shared library: %w", err)
	}
	if wanted := machines[runtime.GOARCH]; headers.Machine != wanted {
		return fmt.Errorf("%w: it is for %s, this process is %s", errOtherMachine, headers.Machine, wanted)
	}
	for _, p := range headers.Progs {
		if end := p.Off + p.Filesz; end < p.Off || end > uint64(info.Size()) {
			return errors.New("the file is cut off")
		}
	}
	return nil
}
