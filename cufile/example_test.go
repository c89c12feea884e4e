//go:build cgo && linux

package cufile_test

import (
	"errors"
	"fmt"

	"github.com/stokerio/stoker/cufile"
)

// A machine without a GPU is an answer, not a failure.
func ExampleOpen() {
	driver, err := cufile.Open(cufile.Options{Device: "/nowhere/libcuda.so.1"})
	if errors.Is(err, cufile.ErrNoDriver) {
		fmt.Println("no GPU here: Stoker serves from host memory")
		return
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(driver.Versions().CUDA, driver.Close())
	// Output: no GPU here: Stoker serves from host memory
}
