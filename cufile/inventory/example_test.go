package inventory_test

import (
	"context"
	"fmt"

	"github.com/stokerio/stoker/cufile/inventory"
)

// Where there is no library, the answer says so; it is no error.
func ExampleRead() {
	found := inventory.Read(context.Background(), inventory.Options{Library: "/nowhere/libnvidia-ml.so.1"})
	fmt.Println(len(found.GPUs), found.Absent != "")
	// Output: 0 true
}
