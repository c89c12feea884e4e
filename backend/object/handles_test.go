package object_test

import (
	"context"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/object"
	"github.com/stokerio/stoker/internal/faultfs"
)

func TestAHandleServesUntilItsFileHasNoName(t *testing.T) {
	fs := faultfs.New(object.Kernel())
	_, dir, objects := changeFixture(t, object.Options{System: fs})
	reads := []backend.Read{whole(objects[victim], make([]byte, 100))}
	must(t, dir.Gather(context.Background(), reads, nil))
	opens := fs.Inject(faultfs.Fault{Op: faultfs.Openat2, Name: victim})
	must(t, dir.Gather(context.Background(), reads, nil))
	if n := fs.Fired(opens); n != 0 {
		t.Errorf("the file was opened %d times again, want its handle used", n)
	}
	fs.Inject(faultfs.Fault{Op: faultfs.Fstat, Name: victim, Count: 1, Stat: func(s *unix.Stat_t) { s.Nlink = 0 }})
	must(t, dir.Gather(context.Background(), reads, nil))
	if n := fs.Fired(opens); n != 1 {
		t.Errorf("the file was opened %d times after it lost its name, want once", n)
	}
	fs.AssertFired(t)
}

func TestTheHandleOfAFileThatChangedIsClosed(t *testing.T) {
	for _, c := range changes() {
		budget := object.NewBudget(10)
		root, dir, objects := changeFixture(t, object.Options{Budget: budget})
		reads := []backend.Read{whole(objects[victim], make([]byte, 100))}
		must(t, dir.Gather(context.Background(), reads, nil))
		if budget.Left() != 9 {
			t.Fatalf("%s: %d descriptors left, want one in use", c.name, budget.Left())
		}
		c.apply(t, root)
		if err := dir.Gather(context.Background(), reads, nil); err == nil {
			t.Errorf("%s: no error", c.name)
		}
		if budget.Left() != 10 {
			t.Errorf("%s: the handle is still open, which keeps a removed file's blocks", c.name)
		}
	}
}
