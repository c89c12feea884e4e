package dataset

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset/internal/dirstore"
)

// listed is a store of made-up objects, without content.
type listed struct {
	dirstore.Store
	objects []backend.Object
}

func (l listed) Objects(_ context.Context, visit func(backend.Object) error, _ func([]byte, string)) error {
	for _, o := range l.objects {
		if err := visit(o); err != nil {
			return err
		}
	}
	return nil
}

func everything(t *testing.T) *Include {
	t.Helper()
	in, err := CompileInclude(nil)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func TestASorterGivesTheSameOrderHoweverManyRunsItWrites(t *testing.T) {
	records := makeRecords(1000)
	random := rand.New(rand.NewPCG(1, 2))
	random.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	want := slices.SortedFunc(slices.Values(records), func(a, b Record) int { return bytes.Compare(a.Name, b.Name) })
	for _, runBytes := range []int{1, 1000, 100_000, sortRunBytes} {
		dir := t.TempDir()
		s := newSorter(dir)
		s.runBytes = runBytes
		for i := range records {
			if err := s.add(&records[i]); err != nil {
				t.Fatal(err)
			}
		}
		i := 0
		err := s.each(func(r *Record) error {
			if !bytes.Equal(r.Name, want[i].Name) || r.Version != want[i].Version {
				return fmt.Errorf("place %d: %+v, want %+v", i, r, want[i])
			}
			i++
			return nil
		})
		if err != nil || i != len(want) {
			t.Errorf("runs of %d bytes (%d runs): %d records, %v", runBytes, len(s.runs), i, err)
		}
		s.close()
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

func TestANameListedTwiceIsAnError(t *testing.T) {
	store := listed{objects: []backend.Object{{Name: []byte("b")}, {Name: []byte("a")}, {Name: []byte("b")}}}
	l, err := List(context.Background(), store, everything(t), t.TempDir(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = l.Each(context.Background(), nil, func(*Record) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "twice") || backend.RemedyOf(err) == "" {
		t.Errorf("%v", err)
	}
}

func TestListRefusesWhatCannotBe(t *testing.T) {
	for name, objects := range map[string][]backend.Object{
		"negative size": {{Name: []byte("a"), Version: backend.Version{Size: -1}}},
		"two origins":   {{Origin: "x", Name: []byte("a")}, {Origin: "y", Name: []byte("b")}},
		"sum of sizes": {{Name: []byte("a"), Version: backend.Version{Size: 1<<63 - 1}},
			{Name: []byte("b"), Version: backend.Version{Size: 1}}},
		"long name": {{Name: make([]byte, 1<<16)}},
	} {
		dir := t.TempDir()
		if l, err := List(context.Background(), listed{objects: objects}, everything(t), dir, nil, nil); backend.RemedyOf(err) == "" {
			if err == nil {
				l.Close()
			}
			t.Errorf("%s: %v, want an error with a remedy", name, err)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("%s: left behind: %v", name, left)
		}
	}
}

func TestListSaysWhatItLookedForAndSaw(t *testing.T) {
	dir := t.TempDir()
	in, err := CompileInclude([]string{"**/*.jpg"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = List(context.Background(), dirstore.Store{Dir: dir}, in, t.TempDir(), nil, nil)
	if backend.KindOf(err) != backend.NotFound || !strings.Contains(err.Error(), "no file at all") {
		t.Errorf("empty directory: %v", err)
	}
	for _, name := range []string{"notes.txt", ".secret"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err = List(context.Background(), dirstore.Store{Dir: dir}, in, t.TempDir(), nil, nil)
	if backend.KindOf(err) != backend.NotFound || !strings.Contains(err.Error(), "**/*.jpg") ||
		!strings.Contains(err.Error(), "notes.txt") {
		t.Errorf("no match: %v", err)
	}
}

func TestACancelledScanEndsWithItsCause(t *testing.T) {
	objects := make([]backend.Object, 5000)
	for i := range objects {
		objects[i].Name = fmt.Appendf(nil, "%d", i)
	}
	cause := errors.New("the client went away")
	ctx, cancel := context.WithCancelCause(context.Background())
	l, err := List(ctx, listed{objects: objects}, everything(t), t.TempDir(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cancel(cause)
	if err := l.Each(ctx, nil, func(*Record) error { return nil }); !errors.Is(err, cause) {
		t.Errorf("Each: %v", err)
	}
	if _, err := List(ctx, listed{objects: objects}, everything(t), t.TempDir(), nil, nil); !errors.Is(err, cause) {
		t.Errorf("List: %v", err)
	}
}

func TestReadObjectReadsAcrossChunks(t *testing.T) {
	dir := t.TempDir()
	content := make([]byte, 2*backend.MaxChunkBytes+1000)
	if _, err := rand.NewChaCha8([32]byte{3}).Read(content); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "x"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	store := dirstore.Store{Dir: dir}
	o := backend.Object{Name: []byte("x"), Version: backend.Version{Size: int64(len(content))}}
	for _, r := range [][2]int{{0, len(content)}, {backend.MaxChunkBytes - 3, 7}, {len(content), 0}, {5, backend.MaxChunkBytes}} {
		p := make([]byte, r[1])
		if err := ReadObject(context.Background(), store, &o, p, int64(r[0])); err != nil || !bytes.Equal(p, content[r[0]:r[0]+r[1]]) {
			t.Errorf("%v: wrong bytes or error %v", r, err)
		}
	}
	for _, r := range [][2]int64{{-1, 1}, {int64(len(content)), 1}, {1 << 62, 1}} {
		if err := ReadObject(context.Background(), store, &o, make([]byte, r[1]), r[0]); backend.KindOf(err) != backend.OutOfRange {
			t.Errorf("%v: %v, want kind out_of_range", r, err)
		}
	}
}
