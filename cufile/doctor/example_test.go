package doctor_test

import (
	"fmt"
	"testing/fstest"

	"github.com/stokerio/stoker/cufile"
	"github.com/stokerio/stoker/cufile/doctor"
)

// A program looks with doctor.Look; a test makes a machine up.
func ExampleExamine() {
	machine := &doctor.Machine{
		Files:  fstest.MapFS{},
		Lookup: func(string) (string, bool) { return "", false },
		GPU:    doctor.GPU{Err: cufile.ErrNoDriver},
	}
	report := doctor.Examine(machine)
	fmt.Println(report.Checks[1].Name, report.Checks[1].Status)
	fmt.Println(report.Verdict)
	// Output:
	// driver info
	// mode=cpu reason="CPU-only: that is fine, batches are read into host memory" next="nothing to do"
}
