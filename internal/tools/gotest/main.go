// Command gotest runs `go test -json` with the arguments it is given and reports
// what a reader of CI wants to see: one line a package, the output of what
// failed, the totals. A skipped test fails the run, because a skip hides a missing
// piece; so does a package list in which nothing ran.
//
// If the environment names a folder in STOKER_TEST_COUNTS, the number of passed
// tests is left there in the file "go", for the summary of `make test`.
package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

func main() {
	os.Exit(run(os.Args[1:], os.Getenv("STOKER_TEST_COUNTS"), os.Stdout))
}

// run returns the exit status: 0 if every test ran and passed.
func run(arguments []string, countsFolder string, out io.Writer) int {
	command := exec.Command("go", append([]string{"test", "-json", "-pgo=off"}, arguments...)...)
	command.Stderr = os.Stderr
	stream, err := command.StdoutPipe()
	if err == nil {
		err = command.Start()
	}
	if err != nil {
		fmt.Fprintf(out, "gotest: start go test: %v\n", err)
		return 1
	}
	report := newReport(out)
	readErr := report.read(stream)
	waitErr := command.Wait()
	report.summary()
	if readErr != nil {
		fmt.Fprintf(out, "gotest: read the output of go test: %v\n", readErr)
		return 1
	}
	if waitErr != nil || !report.ok() {
		return 1
	}
	if countsFolder == "" {
		return 0
	}
	if err := os.WriteFile(filepath.Join(countsFolder, "go"), fmt.Appendf(nil, "%d\n", report.passed), 0o600); err != nil {
		fmt.Fprintf(out, "gotest: leave the count: %v\n", err)
		return 1
	}
	return 0
}
