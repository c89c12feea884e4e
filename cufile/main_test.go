package cufile

import (
	"os"
	"testing"
)

// roleVariable makes this test program play a part in another process: see roles.
const roleVariable = "STOKER_TEST_ROLE"

func TestMain(m *testing.M) {
	if name := os.Getenv(roleVariable); name != "" {
		roles[name]()
		os.Exit(0)
	}
	os.Exit(m.Run())
}
