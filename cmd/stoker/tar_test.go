package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shardsOnDisk is a directory of WebDataset shards: two of five samples, each with
// an image, a class and text.
func shardsOnDisk(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	photo := jpegOf(t, 20, 10)
	for shard := range 2 {
		var archive bytes.Buffer
		w := tar.NewWriter(&archive)
		for i := range 5 {
			key := fmt.Sprintf("dir/%06d", 5*shard+i)
			for _, part := range []struct {
				suffix  string
				content []byte
			}{{".jpg", photo}, {".cls", []byte{byte('0' + i)}}, {".txt", []byte("sample " + key)}} {
				if err := w.WriteHeader(&tar.Header{Name: key + part.suffix, Mode: 0o644, Size: int64(len(part.content))}); err != nil {
					t.Fatal(err)
				}
				if _, err := w.Write(part.content); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, fmt.Sprintf("train-%04d.tar", shard)), archive.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestTarVerbsAgainstARealNode(t *testing.T) {
	p, source := newPlace(t), shardsOnDisk(t)
	p.serveNode(t)
	for _, step := range []struct {
		args []string
		code int
		want []string
	}{
		{[]string{"dataset", "add", "coco", source}, exitOK, []string{"added coco: tar, 10 samples in 2 files", "saw: ", "jpg (100 %)"}},
		{[]string{"dataset", "info", "coco"}, exitOK, []string{"PART", "jpg", "10 samples", ".idx"}},
		{[]string{"dataset", "preview", "coco", "-n", "2", "--index", "4"}, exitOK,
			[]string{"sample 4: dir/000004 in train-0000.tar", "20 × 10", "integer  4", "sample 5: dir/000005 in train-0001.tar", "sample dir/000005"}},
		{[]string{"dataset", "preview", "coco", "-n", "1", "--part", "png;jpg", "--part", "txt"}, exitOK, []string{"png", "20 × 10"}},
		{[]string{"dataset", "preview", "coco", "-n", "1", "--part", "flac"}, exitError, []string{"flac"}},
		{[]string{"dataset", "lint", "coco"}, exitOK, []string{"10 samples in 2 files"}},
		{[]string{"dataset", "lint", source}, exitOK, []string{"10 samples in 2 files"}},
		{[]string{"index", "build", "coco"}, exitOK, []string{"indexed coco: tar, 10 samples in 2 files", "as before"}},
		{[]string{"index", "info", "coco", "--verify"}, exitOK, []string{"sections  groups", "every byte is as the id says", "bytes of index each"}},
		{[]string{"stalls"}, exitOK, []string{"no sessions yet"}},
		{[]string{"top", "--once", "--interval", "100ms"}, exitOK, []string{"no sessions"}},
	} {
		got := p.run(t, step.args...)
		for _, want := range step.want {
			if got.code != step.code || !strings.Contains(got.out+got.err, want) {
				t.Errorf("%q: exit code %d\n%s%s\nwant %q", step.args, got.code, got.out, got.err, want)
			}
		}
	}
	path := filepath.Join(source, "train-0001.tar")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, whole[:len(whole)/2+100], 0o644); err != nil {
		t.Fatal(err)
	}
	if got := p.run(t, "dataset", "lint", source); got.code != exitFindings || !strings.Contains(got.out, "train-0001.tar at ") {
		t.Errorf("a shard that is cut: %+v", got)
	}
	if got := p.run(t, "dataset", "add", "cut", source, "--bad", "skip"); got.code != exitOK || !strings.Contains(got.out, "left out ") {
		t.Errorf("a shard that is cut: %+v", got)
	}
	if got := p.run(t, "dataset", "add", "cut2", source); got.code != exitError || !strings.Contains(got.err, "train-0001.tar") {
		t.Errorf("a shard that is cut: %+v", got)
	}
}
