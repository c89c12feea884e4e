// Package pythonoracle runs Python programs that tests compare our code with: an
// oracle reads requests from its standard input and writes one JSON value for each
// to its standard output, until its input ends.
//
// The interpreter is that of the repository's .venv, or the one that the
// environment variable STOKER_TEST_PYTHON names. A test that lacks it, or a module
// that its oracle imports, fails and says what to do; none is skipped.
package pythonoracle

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// T is what this package needs of a *testing.T, and for Ask of a *rapid.T.
type T interface {
	Helper()
	Fatalf(format string, arguments ...any)
}

// Test is a T that ends, as a *testing.T does.
type Test interface {
	T
	Errorf(format string, arguments ...any)
	Cleanup(end func())
}

// Oracle is a running program. It answers one request at a time.
type Oracle struct {
	in  io.WriteCloser
	out *json.Decoder
}

// Interpreter returns the Python that can import all of modules.
func Interpreter(t T, modules ...string) string {
	t.Helper()
	python := os.Getenv("STOKER_TEST_PYTHON")
	if python == "" {
		python = filepath.Join(root(t), ".venv/bin/python")
	}
	imports := "import sys"
	for _, module := range modules {
		imports += ", " + module
	}
	if out, err := exec.Command(python, "-B", "-c", imports).CombinedOutput(); err != nil {
		t.Fatalf("%s: %s: %v: %s; run make setup, or set STOKER_TEST_PYTHON to a Python that can do it", python, imports, err, lastLine(out))
	}
	return python
}

// Start runs a program, a path below the package's folder, until the test ends.
func Start(t Test, program string, modules ...string) *Oracle {
	t.Helper()
	cmd := exec.Command(Interpreter(t, modules...), "-B", program)
	cmd.Env = append(os.Environ(), "PYTHONUTF8=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatalf("oracle %s: %v", program, err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatalf("oracle %s: %v", program, err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("oracle %s: %v", program, err)
	}
	t.Cleanup(func() {
		_ = in.Close() // ends it, after the request that it is at
		if err := cmd.Wait(); err != nil {
			t.Errorf("oracle %s: %v", program, err)
		}
	})
	return &Oracle{in: in, out: json.NewDecoder(bufio.NewReader(out))}
}

// Ask sends a request as it is and decodes the answer.
func (o *Oracle) Ask(t T, request []byte, answer any) {
	t.Helper()
	if _, err := o.in.Write(request); err != nil {
		t.Fatalf("oracle: %v", err)
	}
	if err := o.out.Decode(answer); err != nil {
		t.Fatalf("oracle: %v", err)
	}
}

// AskJSON sends a request as a line of JSON and decodes the answer.
func (o *Oracle) AskJSON(t T, request, answer any) {
	t.Helper()
	line, err := json.Marshal(request)
	if err != nil {
		t.Fatalf("oracle: %v", err)
	}
	o.Ask(t, append(line, '\n'), answer)
}

// root returns the folder of the module that the test belongs to: tests run in
// their package's folder.
func root(t T) string {
	t.Helper()
	folder, err := os.Getwd()
	if err != nil {
		t.Fatalf("%v", err)
	}
	for at := folder; at != filepath.Dir(at); at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return at
		}
	}
	t.Fatalf("no go.mod above %s", folder)
	return ""
}

// lastLine is where Python says what is wrong.
func lastLine(out []byte) string {
	text := strings.TrimSpace(string(out))
	return text[strings.LastIndexByte(text, '\n')+1:]
}
