package flash

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// readUncached reads p from a file past the page cache where the file system can: so it is
// what the device has rather than what memory has of it, and nothing is pushed out of
// memory for it. It says why not all of p is there.
func readUncached(lend *buffers, f File, p []byte, off int64) error {
	if real, is := f.(*file); is && real.bypass.open(real.fd) == nil {
		n, err := real.bypass.read(lend, p, off)
		if !errors.Is(err, unix.EINVAL) {
			return allOf(p, n, err)
		}
	}
	n, err := f.ReadAt(p, off)
	return allOf(p, n, err)
}

// allOf is the error of a read that has to be whole.
func allOf(p []byte, n int, err error) error {
	switch {
	case n == len(p):
		return nil
	case err == nil, errors.Is(err, io.EOF):
		return fmt.Errorf("%w: the file ends before it", io.ErrUnexpectedEOF)
	}
	return err
}
