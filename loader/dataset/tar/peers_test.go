package tar

import (
	gotar "archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// mangled is what GNU tar puts into the path of a sparse member, for readers that do
// not know its records.
var mangled = regexp.MustCompile("/GNUSparseFile[.][0-9]+/")

func TestGoldenArchivesOfOtherProgramsHoldTheSamplesThatPythonFinds(t *testing.T) {
	b, err := os.ReadFile("testdata/expected.json")
	if err != nil {
		t.Fatal(err)
	}
	var expected map[string]judgement
	if err := json.Unmarshal(b, &expected); err != nil {
		t.Fatal(err)
	}
	all := golden(t)
	if len(expected) != len(all) {
		t.Errorf("%d archives, %d expected", len(all), len(expected))
	}
	for name, archive := range all {
		j := expected[name]
		want := j.found()
		for i := range want {
			switch name { // two of the differences that are listed, as real programs cause them
			case "tar-gnu-times.tar":
				want[i].key = want[i].key[strings.Index(want[i].key, "files"):]
			case "tar-posix-sparse-0.1.tar":
				want[i].key = mangled.ReplaceAllString(want[i].key, "/")
			}
		}
		for _, w := range []*Walker{NewWalker(&memory{b: archive}), NewStreamWalker(bytes.NewReader(archive))} {
			out := drain(w, archive)
			if out.err != nil || !same(out.samples, want) || len(want) == 0 {
				t.Errorf("%s: found %v, %v\nwant %v", name, out.samples, out.err, want)
			}
			if out.end.Kind != EndBlocks || out.end.After != -1 {
				t.Errorf("%s: ends with %+v", name, out.end)
			}
		}
	}
}

func TestArchivesOfGoInEveryFormatAreRead(t *testing.T) {
	long := strings.Repeat("directory/", 30) + "long.jpg"
	for format, names := range map[gotar.Format][]string{
		gotar.FormatUSTAR: {"a.jpg", "a.cls", strings.Repeat("d", 90) + "/" + strings.Repeat("e", 90) + ".x"},
		gotar.FormatPAX:   {"a.jpg", "a.cls", long, "ä.x"},
		gotar.FormatGNU:   {"a.jpg", "a.cls", long, "ä.x"},
	} {
		var b bytes.Buffer
		w := gotar.NewWriter(&b)
		var want []string
		for i, name := range names {
			data := strings.Repeat(name, i*i)
			if err := w.WriteHeader(&gotar.Header{Name: name, Size: int64(len(data)), Mode: 0o600, Format: format}); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write([]byte(data)); err != nil {
				t.Fatal(err)
			}
			want = append(want, fmt.Sprint(name, len(data)))
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		out := read(b.Bytes())
		var got []string
		for _, s := range out.samples {
			for _, p := range s.parts {
				got = append(got, fmt.Sprint(s.key, ".", p.suffix, p.size))
			}
		}
		if out.err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%v: got %v, %v\nwant %v", format, got, out.err, want)
		}
	}
}
