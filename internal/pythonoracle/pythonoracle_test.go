package pythonoracle

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// stage is a test within a test: it keeps what it would have failed with.
type stage struct {
	ends   []func()
	failed []string
}

func (s *stage) Helper()            {}
func (s *stage) Cleanup(end func()) { s.ends = append(s.ends, end) }

func (s *stage) Errorf(format string, arguments ...any) {
	s.failed = append(s.failed, fmt.Sprintf(format, arguments...))
}

func (s *stage) Fatalf(format string, arguments ...any) {
	s.Errorf(format, arguments...)
	runtime.Goexit()
}

// play runs a test to its end and returns what it failed with.
func play(test func(*stage)) []string {
	s := &stage{}
	over := make(chan struct{}) // closed by the test's goroutine
	go func() {
		defer close(over)
		defer func() {
			for _, end := range s.ends {
				end()
			}
		}()
		test(s)
	}()
	<-over
	return s.failed
}

func TestAnOracleAnswersEachRequestUntilTheTestEnds(t *testing.T) {
	o := Start(t, "testdata/reverse.py", "json")
	for _, want := range [][]int{{1, 2, 3}, {}, {7}} {
		var got []int
		o.AskJSON(t, want, &got)
		slices.Reverse(got)
		if !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
}

func TestWhatGoesWrongFailsTheTest(t *testing.T) {
	for name, c := range map[string]struct {
		test func(*stage)
		want string
	}{
		"no module":       {func(s *stage) { Start(s, "testdata/reverse.py", "json", "no_such_module") }, "No module named 'no_such_module'; run make setup"},
		"no program":      {func(s *stage) { Start(s, "testdata/none.py") }, "oracle testdata/none.py: exit status 2"},
		"a bad request":   {func(s *stage) { Start(s, "testdata/reverse.py").Ask(s, []byte("?\n"), new(int)) }, "oracle: EOF"},
		"another answer":  {func(s *stage) { Start(s, "testdata/reverse.py").AskJSON(s, []int{1}, new(string)) }, "oracle: json"},
		"no such request": {func(s *stage) { Start(s, "testdata/reverse.py").AskJSON(s, func() {}, nil) }, "oracle: json"},
	} {
		t.Run(name, func(t *testing.T) {
			failed := play(c.test)
			if len(failed) == 0 || !strings.Contains(failed[0], c.want) {
				t.Errorf("%q, want %q", failed, c.want)
			}
		})
	}
	t.Run("no interpreter", func(t *testing.T) {
		t.Setenv("STOKER_TEST_PYTHON", "/nowhere/python")
		failed := play(func(s *stage) { Interpreter(s) })
		if len(failed) != 1 || !strings.Contains(failed[0], "/nowhere/python") || !strings.Contains(failed[0], "make setup") {
			t.Errorf("%q", failed)
		}
	})
}
