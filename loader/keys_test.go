package loader

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stokerio/stoker/shm"
)

func TestKeysThatAreNoUTF8TravelWhole(t *testing.T) {
	n := startNode(t, testOptions(t))
	dir := t.TempDir()
	keys := []string{"bad\xff", "bad\xfe", "\uFFFD", "fine"}
	names := make([]string, len(keys))
	members := make([]member, len(keys))
	for i, key := range keys {
		names[i] = key + ".txt"
		members[i] = member{fmt.Sprintf("%0*d", len(names[i]), i), "x"}
	}
	path := filepath.Join(dir, "a.tar")
	writeShard(t, path, members...)
	renameMembers(t, path, names)
	n.add("keys", dir)
	c := n.greeted()
	var answer shm.KeysAnswer
	c.ask(shm.KeysRequest{Type: shm.TypeKeys, Dataset: "keys", Samples: []int64{0, 1, 2, 3}}, &answer)
	for i, got := range answer.Keys {
		whole := got.Key
		if got.KeyBytes != nil {
			whole = string(got.KeyBytes)
		}
		if whole != keys[i] || got.Key != strings.ToValidUTF8(keys[i], "\uFFFD") || (i < 2) != (got.KeyBytes != nil) || got.File != "a.tar" || got.FileBytes != nil {
			t.Errorf("sample %d is %+v, expected %q", i, got, keys[i])
		}
	}
}

func TestFindingsNameKeysThatAreNoUTF8Whole(t *testing.T) {
	n := startNode(t, testOptions(t))
	dir := t.TempDir()
	names := []string{"bad\xff.txt", "bad\xfe.txt", "bad\xff.txt"}
	members := []member{{"00000000", "x"}, {"11111111", "x"}, {"22222222", "x"}}
	path := filepath.Join(dir, "a\xff.tar")
	writeShard(t, path, members...)
	renameMembers(t, path, names)
	findings, _ := n.lint(shm.DatasetLint{Format: "tar"}, openDirectory(t, dir))
	i := slices.IndexFunc(findings, func(f shm.Finding) bool { return f.Code == "duplicate-key" })
	if i < 0 {
		t.Fatalf("no duplicate key: %+v", findings)
	}
	if f := findings[i]; f.Key != "bad\uFFFD" || string(f.KeyBytes) != "bad\xff" || f.File != "a\uFFFD.tar" || string(f.FileBytes) != "a\xff.tar" || f.Offset != 2048 {
		t.Errorf("%+v", f)
	}
	for _, f := range findings {
		if f.Key == "" && f.KeyBytes != nil {
			t.Errorf("bytes of no key: %+v", f)
		}
	}
}

func TestSampleKeyIsPartOfASampleAnswer(t *testing.T) {
	content, err := json.Marshal(shm.SampleAnswer{Type: shm.TypeSample, SampleKey: sampleKey("f\xff", "k")})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"file":"f\uFFFD"`, `"file_bytes":"Zv8="`, `"key":"k"`} {
		if !strings.Contains(string(content), want) && !strings.Contains(string(content), strings.ReplaceAll(want, `\uFFFD`, "\uFFFD")) {
			t.Errorf("%s lacks %s", content, want)
		}
	}
	if strings.Contains(string(content), "key_bytes") {
		t.Errorf("%s has the bytes of a key that is UTF-8", content)
	}
}

// renameMembers writes names into the headers of an archive of members of one block
// each: Go's writer has no names that are no ASCII in this format, other writers have.
func renameMembers(t *testing.T, path string, names []string) {
	t.Helper()
	const block, checksum = 512, 148
	archive, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		header := archive[2*i*block:][:block]
		copy(header, name)
		copy(header[checksum:checksum+8], "        ")
		sum := 0
		for _, b := range header {
			sum += int(b)
		}
		copy(header[checksum:], fmt.Sprintf("%06o\x00 ", sum))
	}
	if err := os.WriteFile(path, archive, 0o600); err != nil {
		t.Fatal(err)
	}
}
