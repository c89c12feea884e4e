package dataset

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/stokerio/stoker/backend"
)

func TestIncludePatterns(t *testing.T) {
	for _, c := range []struct {
		patterns string // separated by spaces
		yes, no  string
	}{
		{"", "a a/b a/b/c.jpg a.b", ".a a/.b .a/b a/.b/c"},
		{"*.jpg", "a.jpg", "a.png b/a.jpg .a.jpg"},
		{"**/*.jpg", "a.jpg b/a.jpg b/c/a.jpg", "a.jpg/b .x/a.jpg b/._a.jpg"},
		{"**/*.{jpg,jpeg,png}", "a.jpg x/b.png c.jpeg", "a.gif"},
		{"train/{000..002}.tar", "train/000.tar train/002.tar", "train/003.tar train/0.tar 000.tar"},
		{"shard-{8..11}/*.jpg", "shard-8/a.jpg shard-11/b.jpg", "shard-08/a.jpg shard-7/a.jpg shard-12/a.jpg"},
		{"{01..9}", "01 09", "1 9 10"},
		{"{a,b{c,d}}/*", "a/x bc/y bd/z", "b/x c/x"},
		{"train/** val/*", "train/a train/b/c val/x", "val/a/b test/x"},
		{"[a-c]?.bin", "a1.bin cx.bin", "d1.bin a.bin"},
		{"[^a-c]?.bin", "d1.bin", "a1.bin"},
		{`a\*b`, "a*b", "axb"},
		{`\{x\}`, "{x}", "x"},
		{".hidden/* **/.x*", ".hidden/a a/.xy .xy", ".other/a hidden/a"},
		{".exact", ".exact", ".exacter"},
		{"a/b/c/*.x", "a/b/c/d.x", "a/b/d.x a/b/c/e/d.x"},
	} {
		in, err := CompileInclude(strings.Fields(c.patterns))
		if err != nil {
			t.Errorf("%s: %v", c.patterns, err)
			continue
		}
		for _, name := range strings.Fields(c.yes) {
			if !in.Match([]byte(name)) {
				t.Errorf("%q does not match %q", c.patterns, name)
			}
		}
		for _, name := range strings.Fields(c.no) {
			if in.Match([]byte(name)) {
				t.Errorf("%q matches %q", c.patterns, name)
			}
		}
	}
}

func TestIncludeRefusesBadPatterns(t *testing.T) {
	for pattern, want := range map[string]string{
		"":                             "empty",
		"/abs/*":                       "begins with a slash",
		"../x":                         `".."`,
		"a//b":                         `""`,
		"./a":                          `"."`,
		"{a,b":                         "not closed",
		"a}b":                          "closes no brace",
		"[a":                           "no valid pattern",
		"{9..1}":                       "counts down",
		"{0..100000}":                  "more than 100000",
		"{0..999}{0..999}":             "more than 100000",
		"{0..9223372036854775806}":     "more than 100000",
		strings.Repeat("{a,b}", 20):    "more than 100000",
		"{0..1000000000}{1..10000000}": "more than 100000",
	} {
		if _, err := CompileInclude([]string{pattern}); err == nil || !strings.Contains(err.Error(), want) || backend.RemedyOf(err) == "" {
			t.Errorf("%q: error %v, want one with %q", pattern, err, want)
		}
	}
}

func TestMatchBelowTellsDirectoriesThatCouldHoldFiles(t *testing.T) {
	for _, c := range []struct {
		patterns, directory string
		want                bool
	}{
		{"", "cat", true}, {"", "cat/deep", true}, {"", ".git", false}, {"", "cat/.git", false},
		{"**/*.jpg", "a/b", true}, {"*/*.jpg", "a", true}, {"*/*.jpg", "a/b", false}, {"*.jpg", "a", false},
		{"train/**", "train", true}, {"train/**", "train/x/y", true}, {"train/**", "val", false}, {"train/a/*.jpg", "train", true},
		{"a/b/c.jpg", "a/b", true}, {"a/b/c.jpg", "a/c", false}, {".x/*", ".x", true}, {"{a,b}/*", "b", true}, {"a/x[12]/*", "a/x1", true},
	} {
		var patterns []string
		if c.patterns != "" {
			patterns = []string{c.patterns}
		}
		in, err := CompileInclude(patterns)
		if err != nil {
			t.Fatal(err)
		}
		if got := in.MatchBelow([]byte(c.directory)); got != c.want {
			t.Errorf("%q below %q: %v", c.patterns, c.directory, got)
		}
	}
}

func TestRangesMatchExactlyTheirNumbers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.IntRange(0, 300).Draw(t, "from")
		b := rapid.IntRange(a, a+200).Draw(t, "to")
		n := rapid.IntRange(0, 600).Draw(t, "number")
		in, err := CompileInclude([]string{"x/" + "{" + pad(a) + ".." + pad(b) + "}.tar"})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := in.Match([]byte("x/"+pad(n)+".tar")), a <= n && n <= b; got != want {
			t.Fatalf("{%d..%d} matches %d: %v", a, b, n, got)
		}
	})
}

// pad writes a number with leading zeros to four digits.
func pad(n int) string {
	s := "000" + string(rune('0'+n/100%10)) + string(rune('0'+n/10%10)) + string(rune('0'+n%10))
	return s[len(s)-4:]
}

func FuzzInclude(f *testing.F) {
	f.Add("**/{000..127}.{tar,bin}", "a/005.tar")
	f.Add(`[a-\]{,}`, "x")
	f.Add("{{a..b},c..d}{1..3}", "c..d2")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if in, err := CompileInclude([]string{pattern}); err == nil {
			in.Match([]byte(name))
			in.MatchBelow([]byte(name))
		}
	})
}
