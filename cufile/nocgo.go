//go:build !cgo || !linux

package cufile

// newTable is the twin of a build without cgo. Everything else is the same code, so
// the API cannot differ.
func newTable() (table, error) { return nil, ErrNoCgo }
