// Command gpucheck is the part of `make gpu-check` that needs Stoker's own calls
// of the GPU's libraries; check.py runs it, adds what torch can say, and writes
// gpu-check.json. It needs no Go toolchain and no compiler where it runs.
//
//	gpucheck driver              libraries, symbols, GPUs                     T1, T2
//	gpucheck storage -dir DIR    the route of a read; reads in compat mode    T3
//	gpucheck routes  -dir DIR    every way to load a file, compared by CRC    T4
//	gpucheck speed   -dir DIR    how fast each is, beside its ceilings        T6
//	gpucheck copy                copy to the GPU until the input ends         T7
//	gpucheck leaks   -dir DIR    what thousands of turns leave behind         T8
//
// Each writes JSON objects, one a line: checks, and from speed also figures. On
// Stoker's stand-ins everything runs, and no figure is written.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// options are those of all verbs; each uses what it needs.
type options struct {
	dir     string
	bytes   int64
	repeats int
	turns   int
	most    time.Duration // for the turns
}

var verbs = map[string]func(*report, options) error{
	"driver":  checkDriver,
	"storage": checkStorage,
	"routes":  checkRoutes,
	"speed":   measureSpeed,
	"leaks":   checkLeaks,
}

func main() {
	out, err := ownOutput()
	if err == nil {
		err = run(os.Args[1:], os.Stdin, out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gpucheck:", err)
		os.Exit(1)
	}
}

// ownOutput makes standard output this program's own, and standard error that of the
// libraries it loads: libcufile prints to standard output.
func ownOutput() (*os.File, error) {
	own, err := unix.FcntlInt(os.Stdout.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.Dup3(int(os.Stderr.Fd()), int(os.Stdout.Fd()), 0)
	}
	if err != nil {
		return nil, fmt.Errorf("set standard output aside: %w", err)
	}
	return os.NewFile(uintptr(own), os.Stdout.Name()), nil
}

func run(arguments []string, in io.Reader, out io.Writer) error {
	var o options
	flags := flag.NewFlagSet("gpucheck", flag.ContinueOnError)
	flags.StringVar(&o.dir, "dir", os.TempDir(), "folder for files that are read, on the disk that is meant")
	flags.Int64Var(&o.bytes, "bytes", 1<<30, "length of a file and of a slab; a multiple of 16 MiB")
	flags.IntVar(&o.repeats, "repeats", 5, "how often each speed is measured")
	flags.IntVar(&o.turns, "turns", 10_000, "how often leaks registers memory")
	flags.DurationVar(&o.most, "most", 20*time.Second, "how long each kind of turn of leaks may go on")
	if len(arguments) == 0 {
		return fmt.Errorf("want a verb: %s or copy", strings.Join(names(), ", "))
	}
	if err := flags.Parse(arguments[1:]); err != nil {
		return err
	}
	if o.bytes < pieceBytes || o.bytes%pieceBytes != 0 {
		return fmt.Errorf("-bytes %d: want a multiple of %d", o.bytes, pieceBytes)
	}
	r := &report{encoder: json.NewEncoder(out)} // a line at once, so that a crash in a library loses none
	if verb, found := verbs[arguments[0]]; found {
		return verb(r, o)
	}
	if arguments[0] == "copy" {
		return copyUntil(in, out, o)
	}
	return fmt.Errorf("%q: want %s or copy", arguments[0], strings.Join(names(), ", "))
}

func names() []string {
	all := make([]string, 0, len(verbs))
	for name := range verbs {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}
