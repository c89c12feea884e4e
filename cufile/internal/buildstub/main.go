// Command buildstub compiles the stand-ins for libcuda and libcufile into a folder,
// for programs that are not Go tests:
//
//	buildstub [-version 1150] DIR
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/stokerio/stoker/cufile/stub"
)

// soname is not libcuda's: in a Python process that has loaded the stand-in, the
// loader would give it to torch as well when that asks for libcuda.so.1.
const soname = "libstoker-stub.so"

func main() {
	version := flag.Int("version", int(stub.V1_15), "of cuFile: 1000*major + 10*minor")
	flag.Parse()
	if err := run(flag.Args(), stub.Version(*version)); err != nil {
		fmt.Fprintln(os.Stderr, "buildstub:", err)
		os.Exit(1)
	}
}

func run(arguments []string, version stub.Version) error {
	if len(arguments) != 1 {
		return errors.New("want one argument, the folder to write to")
	}
	if err := os.MkdirAll(arguments[0], 0o755); err != nil {
		return err
	}
	_, err := stub.Compile(arguments[0], stub.Options{Version: version, Flags: []string{"-Wl,-soname," + soname}})
	return err
}
