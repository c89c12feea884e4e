package seekable

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
)

var errClosed = errors.New("the store is closed")

func (s *Store) closedError(op string) error {
	return &backend.Error{Kind: backend.Unavailable, Op: op, Object: s.dir, Err: errClosed}
}

// remedy says how to get a good file again.
func (s *Store) remedy(file string) string {
	return fmt.Sprintf("remove %s/%s and index the dataset again: stoker dataset add %s DIR --replace", s.dir, file, s.options.Dataset)
}

// corrupt says what is wrong with a file, at which of its bytes.
func (s *Store) corrupt(file string, object string, off int64, detail string, cause error) error {
	return &backend.Error{
		Kind: backend.Corrupt, Op: "read", Object: object, Err: cause,
		Detail: fmt.Sprintf("%s/%s at byte %d: %s", s.dir, file, off, detail), Remedy: s.remedy(file),
	}
}

// errnoError makes an error out of what the kernel said about a file.
func (s *Store) errnoError(op, file, object string, errno syscall.Errno) error {
	e := &backend.Error{Kind: backend.Unavailable, Op: op, Object: object, Detail: s.dir + "/" + file, Err: errno}
	switch errno {
	case unix.ENOENT, unix.ESTALE:
		e.Kind, e.Remedy = backend.NotFound, fmt.Sprintf("index the dataset again: stoker dataset add %s DIR --replace", s.options.Dataset)
	case unix.EACCES, unix.EPERM, unix.ELOOP:
		e.Kind, e.Remedy = backend.Permission, "give the daemon's user its data directory back; it holds no links"
	case unix.EMFILE, unix.ENFILE:
		e.Remedy = "raise the limit (ulimit -n, LimitNOFILE=)"
	default:
		e.Remedy = "look at the kernel's log for errors of the device that the daemon's data directory is on"
	}
	return e
}

// rangeError refuses bytes that are not within a chunk or an object.
func rangeError(op string, c backend.Chunk, off, length int64, detail string) error {
	return &backend.Error{
		Kind: backend.OutOfRange, Op: op, Object: string(c.Object.Name),
		Detail: fmt.Sprintf("%s: %d bytes from %d of the chunk of %d bytes at %d", detail, length, off, c.Size, c.Start),
	}
}

// canceled wraps the cause of ctx's end.
func canceled(op string, ctx context.Context) error {
	return fmt.Errorf("%s: %w", op, context.Cause(ctx))
}
