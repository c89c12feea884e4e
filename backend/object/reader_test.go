package object_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/object"
	"github.com/stokerio/stoker/internal/faultfs"
)

// readSeries reads the victim's 100,000 bytes in pieces, as a parser does.
func readSeries(dir *object.Dir, o *backend.Object) ([]byte, error) {
	r, err := dir.OpenObject(context.Background(), o)
	if err != nil {
		return nil, err
	}
	p := make([]byte, o.Version.Size)
	for at := 0; at < len(p) && err == nil; at += 30_000 {
		err = r.ReadAt(p[at:min(len(p), at+30_000)], int64(at))
	}
	return p, errors.Join(err, r.Close())
}

func TestEveryErrnoOfASeriesOfReadsIsAnErrorOrRightBytes(t *testing.T) {
	for op, calls := range map[faultfs.Op]int{faultfs.Openat2: 1, faultfs.Fstat: 2, faultfs.Pread: 3, faultfs.Close: 1} {
		for nth := 1; nth <= calls; nth++ {
			t.Run(fmt.Sprintf("%s call %d", op, nth), func(t *testing.T) {
				for errno := syscall.Errno(1); errno <= unix.EHWPOISON; errno++ {
					seriesWithErrno(t, op, nth, errno)
				}
			})
		}
	}
}

func seriesWithErrno(t *testing.T, op faultfs.Op, nth int, errno syscall.Errno) {
	fs := faultfs.New(object.Kernel())
	_, dir, objects := changeFixture(t, object.Options{System: fs, ColdReads: 1, OpenFiles: -1})
	fs.Inject(faultfs.Fault{Op: op, Nth: nth, Errno: errno, Name: victim})
	p, err := readSeries(dir, objects[victim])
	fs.AssertFired(t)
	fs.Clear()
	switch {
	case err != nil:
		var known *backend.Error
		if !errors.As(err, &known) || known.Object == "" {
			t.Errorf("%s: %v names no object", errno, err)
		}
	case op != faultfs.Close:
		t.Errorf("%s: no error", errno)
	default:
		if !bytes.Equal(p, bytes.Repeat([]byte{1}, len(p))) {
			t.Errorf("%s: wrong bytes", errno)
		}
	}
}

func TestAnOpenReaderKeepsTheDirectoryOpen(t *testing.T) {
	_, dir, objects := changeFixture(t, object.Options{})
	r, err := dir.OpenObject(context.Background(), objects[victim])
	must(t, err)
	closed := make(chan error, 1)
	go func() { closed <- dir.Close() }()
	must(t, r.ReadAt(make([]byte, 10), 5))
	must(t, r.Close())
	must(t, r.Close())
	must(t, <-closed)
	if _, err := dir.OpenObject(context.Background(), objects[victim]); backend.KindOf(err) != backend.Unavailable {
		t.Errorf("after Close: %v", err)
	}
}

func TestASeriesEndsWithItsContext(t *testing.T) {
	_, dir, objects := changeFixture(t, object.Options{})
	ctx, cancel := context.WithCancelCause(context.Background())
	r, err := dir.OpenObject(ctx, objects[victim])
	must(t, err)
	cause := errors.New("enough")
	cancel(cause)
	if err := r.ReadAt(make([]byte, 1), 0); !errors.Is(err, cause) {
		t.Errorf("read: %v", err)
	}
	_ = r.Close() // the series has failed
	if _, err := dir.OpenObject(ctx, objects[victim]); !errors.Is(err, cause) {
		t.Errorf("open: %v", err)
	}
}
