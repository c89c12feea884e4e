//go:build !cgo || !linux

package cufile

import (
	"errors"
	"testing"
)

// roles: without cgo there is nothing to do in another process.
var roles = map[string]func(){}

func TestOpenWithoutCgoSaysSo(t *testing.T) {
	if _, err := Open(Options{}); !errors.Is(err, ErrNoCgo) {
		t.Errorf("Open: %v, want ErrNoCgo", err)
	}
}
