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
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// options are those of all verbs; each uses what it needs.
type options struct {
	dir     string
	bytes   int64
	repeats int
	turns   int
}

var verbs = map[string]func(*report, options) error{
	"driver":  checkDriver,
	"storage": checkStorage,
	"routes":  checkRoutes,
	"speed":   measureSpeed,
	"leaks":   checkLeaks,
}

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "gpucheck:", err)
		os.Exit(1)
	}
}

func run(arguments []string, in io.Reader, out io.Writer) error {
	var o options
	flags := flag.NewFlagSet("gpucheck", flag.ContinueOnError)
	flags.StringVar(&o.dir, "dir", os.TempDir(), "folder for files that are read, on the disk that is meant")
	flags.Int64Var(&o.bytes, "bytes", 1<<30, "length of a file and of a slab; a multiple of 16 MiB")
	flags.IntVar(&o.repeats, "repeats", 5, "how often each speed is measured")
	flags.IntVar(&o.turns, "turns", 10_000, "how often leaks registers memory")
	if len(arguments) == 0 {
		return fmt.Errorf("want a verb: %s or copy", strings.Join(names(), ", "))
	}
	if err := flags.Parse(arguments[1:]); err != nil {
		return err
	}
	if o.bytes < pieceBytes || o.bytes%pieceBytes != 0 {
		return fmt.Errorf("-bytes %d: want a multiple of %d", o.bytes, pieceBytes)
	}
	buffered := bufio.NewWriter(out)
	r := &report{encoder: json.NewEncoder(buffered)}
	var err error
	if verb, found := verbs[arguments[0]]; found {
		err = verb(r, o)
	} else if arguments[0] == "copy" {
		err = copyUntil(in, out, o)
	} else {
		err = fmt.Errorf("%q: want %s or copy", arguments[0], strings.Join(names(), ", "))
	}
	if flushErr := buffered.Flush(); err == nil {
		err = flushErr
	}
	return err
}

func names() []string {
	all := make([]string, 0, len(verbs))
	for name := range verbs {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}
