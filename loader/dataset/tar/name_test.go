package tar

import (
	"regexp"
	"testing"

	"pgregory.net/rapid"
)

func TestNamesAreSplitAsWebDatasetSplitsThem(t *testing.T) {
	for _, c := range []struct{ name, key, suffix string }{ // verified with webdataset 1.0.2
		{"a/b.c.d", "a/b", "c.d"},
		{"a.b/c.jpg", "a.b/c", "jpg"},
		{"./0001.seg.png", "./0001", "seg.png"},
		{"a..b", "a", ".b"},
		{"A.JPG", "A", "jpg"},
		{"dir/.hidden", "dir/", "hidden"},
		{"a/b/.hidden", "a/b/", "hidden"},
		{"a.b/c/.hidden", "a.b/c/", "hidden"},
		{"/.hidden", "/", "hidden"},
		{"a//.x", "a//", "x"},
		{"/etc/passwd.txt", "/etc/passwd", "txt"},
		{"../../up.txt", "../../up", "txt"},
		{"a.", "a", ""},
		{"a.x\n", "a", "x\n"},
		{"a\nb/c.x", "a\nb/c", "x"},
		{"d/a\nb/c.x", "d/a\nb/c", "x"},
		{"a\x00b.x\x00", "a\x00b", "x\x00"},
		{"\xff\xfe.Ä", "\xff\xfe", "ä"},
		{"A.ΣΑΣ", "A", "σας"},
		{"a.XÄ\xff", "a", "xÄ\xff"}, // not verified: webdataset has x, ä and that byte
	} {
		key, suffix, ok := SplitName([]byte(c.name))
		if !ok || string(key) != c.key || string(suffix) != c.suffix {
			t.Errorf("%q: %q and %q, %v, want %q and %q", c.name, key, suffix, ok, c.key, c.suffix)
		}
	}
	for _, name := range []string{"", "x", ".", "..", ".x.jpg", "dir/x", "a.b/c", "a.b/.hidden", "a/b.c/.d", "d.e/f\n/g.x/.y", "x.\n/.z", "a\n.b/c.d"} {
		if key, suffix, ok := SplitName([]byte(name)); ok {
			t.Errorf("%q: %q and %q, want none", name, key, suffix)
		}
	}
}

// The pattern is the one of webdataset. Go's engine prefers the leftmost as Python's
// does; (?-s) and \z, as $ would not take a newline in.
var (
	splitPattern = regexp.MustCompile(`^((?:.*/|)[^.]+)[.]([^/]*)\z`)
	skipPattern  = regexp.MustCompile(`^__[^/]*__(\n?\z|/)`)
)

func TestSplittingEqualsThePatternOnAnyName(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := []byte(rapid.StringOfN(rapid.RuneFrom([]rune("ab./\n_")), 0, 12, -1).Draw(t, "name"))
		want := splitPattern.FindSubmatch(name)
		key, suffix, ok := SplitName(name)
		if ok != (want != nil) || ok && (string(key) != string(want[1]) || string(suffix) != string(want[2])) {
			t.Fatalf("%q: %q, %q, %v, want %q", name, key, suffix, ok, want)
		}
		slash := regexp.MustCompile("/").Match(name)
		whole := !slash && len(name) >= 2 && string(name[:2]) == "__" && string(name[len(name)-2:]) == "__"
		if got, want := Skipped(name), whole || skipPattern.Match(name); got != want {
			t.Fatalf("%q is skipped: %v, want %v", name, got, want)
		}
	})
}

func TestMetadataIsSkippedAtTheStartOfNamesOnly(t *testing.T) {
	for name, want := range map[string]bool{
		"__index__": true, "__index__/a.json": true, "__a.b__": true, "__": true, "___": true, "____/x": true, "__m__\n": true,
		"a/__m__/b.json": false, "__m__.json": false, "__m_/x": false, "__/x": false, "_a_": false, "__m__\n/x": false, "": false,
	} {
		if got := Skipped([]byte(name)); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
}
