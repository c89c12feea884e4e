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

// checkLibrary refuses a library file that is cut off: the loader maps it, and the
// process dies of SIGBUS at the first page that is not there. It also refuses one of
// another processor, which the loader passes over as if it were not there. It looks
// only at paths; what the loader finds by name it knows itself.
func checkLibrary(name string) error {
	if !strings.Contains(name, "/") {
		return nil
	}
	file, err := os.Open(name)
	if err != nil {
		return nil // the loader says it better
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	headers, err := elf.NewFile(file)
	if err != nil {
		return fmt.Errorf("no shared library: %w", err)
	}
	if wanted := machines[runtime.GOARCH]; headers.Machine != wanted {
		return fmt.Errorf("the file is for %s, this process is %s", headers.Machine, wanted)
	}
	for _, p := range headers.Progs {
		if end := p.Off + p.Filesz; end < p.Off || end > uint64(info.Size()) {
			return errors.New("the file is cut off")
		}
	}
	return nil
}
