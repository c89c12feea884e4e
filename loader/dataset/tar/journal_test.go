package tar

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/loader/dataset/internal/dirstore"
)

// interrupted returns the journal of a scan of shards that ended before its index was
// written, and the directory of the scan.
func interrupted(t testing.TB, store dirstore.Store) (journal []byte, dir string) {
	t.Helper()
	dir = t.TempDir()
	path := filepath.Join(dir, "journal")
	s := &scanner{store: store, opts: Options{Journal: path}, dir: dir}
	add := func(o backend.Object) error {
		return s.add(o.Origin, &dataset.Record{Name: o.Name, Version: o.Version})
	}
	if err := store.Objects(context.Background(), add, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.openJournal(); err != nil {
		t.Fatal(err)
	}
	if err := s.walkAll(context.Background()); err != nil {
		t.Fatal(err)
	}
	s.mu.journal.close()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content, dir
}

func testJournalShards(t testing.TB) dirstore.Store {
	files := map[string][]byte{}
	for i := range 4 {
		files[fmt.Sprintf("%d.tar", i)] = makeTar(t, plainFiles(3+10*i, 100*i))
	}
	return shards(t, files)
}

func TestAJournalCutAnywhereGivesTheSameIndex(t *testing.T) {
	store := testJournalShards(t)
	want := scanShards(t, store, Options{}).info.ID
	whole, dir := interrupted(t, store)
	path := filepath.Join(dir, "journal")
	step := 1
	if testing.Short() {
		step = 17
	}
	taken := map[int]bool{}
	for size := 0; size <= len(whole); size += step {
		if err := os.WriteFile(path, whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		count := 0
		j, err := openJournal(path, dir, func([]byte, *description, place) { count++ })
		if err != nil {
			t.Fatal(err)
		}
		j.close()
		if first := !taken[count]; first || size%97 == 0 { // all of them would take long
			taken[count] = true
			info, err := Scan(context.Background(), store, Options{Journal: path}, dir, nil)
			if err != nil || info.ID != want {
				t.Fatalf("cut to %d of %d bytes, %d shards: index %s (%v), want %s", size, len(whole), count, info.ID, err, want)
			}
		}
	}
	if len(taken) != 5 {
		t.Errorf("journals of %d different lengths, want 5", len(taken))
	}
}

func TestADamagedJournalGivesTheSameIndex(t *testing.T) {
	store := testJournalShards(t)
	want := scanShards(t, store, Options{}).info.ID
	whole, dir := interrupted(t, store)
	path := filepath.Join(dir, "journal")
	step := 41
	if testing.Short() {
		step = 401
	}
	for at := 0; at < len(whole); at += step {
		b := bytes.Clone(whole)
		b[at] ^= 0x21
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		info, err := Scan(context.Background(), store, Options{Journal: path}, dir, nil)
		if err != nil || info.ID != want {
			t.Fatalf("byte %d of %d damaged: index %s (%v), want %s", at, len(whole), info.ID, err, want)
		}
	}
}

func TestAJournalDoesNotHideChangedShards(t *testing.T) {
	store := testJournalShards(t)
	_, dir := interrupted(t, store)
	path := filepath.Join(dir, "journal")
	if err := os.WriteFile(filepath.Join(store.Dir, "2.tar"), makeTar(t, plainFiles(9, 900)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(store.Dir, "0.tar")); err != nil {
		t.Fatal(err)
	}
	want := scanShards(t, store, Options{})
	seen := map[string]bool{}
	s := scanInto(t, counting{store, func(name string) { seen[name] = true }}, Options{Journal: path}, dir)
	if len(seen) != 1 || !seen["2.tar"] {
		t.Errorf("read %v, only 2.tar has changed", seen)
	}
	if s.info.ID != want.info.ID {
		t.Error("another index than that of a whole scan")
	}
}

func TestTheJournalOfAnotherReleaseIsBegunAnew(t *testing.T) {
	store := testJournalShards(t)
	whole, dir := interrupted(t, store)
	path := filepath.Join(dir, "journal")
	whole[8]++ // the version
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	count := 0
	j, err := openJournal(path, dir, func([]byte, *description, place) { count++ })
	if err != nil || count != 0 || j.end != journalHeader {
		t.Errorf("%d shards, %d bytes (%v)", count, j.end, err)
	}
	j.close()
}

func FuzzJournal(f *testing.F) {
	whole, _ := interrupted(f, testJournalShards(f))
	f.Add(whole)
	f.Add(whole[:len(whole)-7])
	dir := f.TempDir()
	path := filepath.Join(dir, "journal")
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := openJournal(path, dir, func(name []byte, about *description, at place) {
			if !at.fits(about) || at.start+at.bytes() > int64(len(content)) {
				t.Fatalf("%q: %+v of %+v", name, at, about)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		j.close()
	})
}
