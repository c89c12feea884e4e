package doctor

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestMountTablesAreParsed(t *testing.T) {
	all := mounts("36 35 98:0 /mnt1 /mnt\\0402 rw,noatime shared:1 master:2 - ext3 /dev/root rw,errors=continue\nno mount\n1 2 3 - x\n\n7 1 0:5 / / rw - tmpfs none\n")
	want := []mount{
		{number: "98:0", point: "/mnt 2", kind: "ext3", source: "/dev/root", options: []string{"rw", "noatime", "rw", "errors=continue"}},
		{number: "0:5", point: "/", kind: "tmpfs", source: "none", options: []string{"rw"}},
	}
	if !reflect.DeepEqual(all, want) {
		t.Errorf("%+v", all)
	}
	if got := unescape(`a\040b\\c\9x\134\04`); got != `a b\\c\9x\\04` {
		t.Errorf("%q", got)
	}
}

func TestAPathIsOnTheMountThatHidesTheOthers(t *testing.T) {
	m := healthy()
	m.file("/proc/self/mountinfo", "1 0 1:0 / / rw - ext4 a rw\n2 1 2:0 / /data rw - xfs b rw\n3 1 3:0 / /data rw - tmpfs c rw\n4 1 4:0 / /database rw - xfs d rw\n")
	for path, want := range map[string]string{"/": "a", "/etc": "a", "/data": "c", "/data/x": "c", "/database": "d", "/databases": "a"} {
		if at := m.mountOf(path); at == nil || at.source != want {
			t.Errorf("%s is on %+v, want %s", path, at, want)
		}
	}
}

func TestWhatLooksLikeACommentInAStringIsNone(t *testing.T) {
	for text, want := range map[string]string{
		`{"a":"http://x"}`:     `{"a":"http://x"}`,
		`{"a":"\"//"}// b`:     `{"a":"\"//"}    `,
		"{/* a\n b */\"c\":1}": "{    \n     \"c\":1}",
		"1//":                  "1  ",
		"/*":                   "  ",
		"/**/1":                "    1",
		"/*/1":                 "    ",
		`"open // string`:      `"open // string`,
		`"ends with \`:         `"ends with \`,
		"// a\r\n2":            "     \n2",
	} {
		if got := withoutComments(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// Comments between the tokens of any JSON change nothing. The oracle is encoding/json on
// the text without them.
func TestCommentsChangeNothing(t *testing.T) {
	comment := rapid.SampledFrom([]string{"", " ", "// \"a\" {\n", "/* } \" // */", "\n", "/**/"})
	word := rapid.SampledFrom([]string{"a", "//", "/*", "*/", `"`, `\`, "\n", "use_pci_p2pdma", "ü"})
	rapid.Check(t, func(t *rapid.T) {
		object := map[string]any{}
		for range rapid.IntRange(0, 5).Draw(t, "keys") {
			key := strings.Join(rapid.SliceOfN(word, 1, 4).Draw(t, "key"), "")
			object[key] = strings.Join(rapid.SliceOfN(word, 0, 4).Draw(t, "value"), "")
		}
		plain, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		var commented strings.Builder
		inString := false
		for i := 0; i < len(plain); i++ {
			if !inString {
				commented.WriteString(comment.Draw(t, "comment"))
			}
			if plain[i] == '\\' {
				commented.WriteByte(plain[i])
				i++
			} else if plain[i] == '"' {
				inString = !inString
			}
			commented.WriteByte(plain[i])
		}
		got, err := parseSettings(commented.String())
		if err != nil || !reflect.DeepEqual(got.root, object) {
			t.Fatalf("%q: %v, %v", commented.String(), got.root, err)
		}
	})
}

func FuzzSettings(f *testing.F) {
	for _, seed := range []string{goodSettings, "{}", "//", "/*", `{"a":"\`, `{"properties":{"max_direct_io_size_kb":1e300}}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if out := withoutComments(text); len(out) != len(text) || strings.Count(out, "\n") != strings.Count(text, "\n") {
			t.Errorf("%q became %q", text, out)
		}
		m := healthy()
		m.file("/etc/cufile.json", text)
		if c := examineSettings(&m.Machine); c.Found == "" || c.Status == None {
			t.Errorf("%+v", c)
		}
	})
}

func FuzzMounts(f *testing.F) {
	f.Add(mountTable)
	f.Add(`1 2 3:4 / \377\400\1 - - - -`)
	f.Fuzz(func(_ *testing.T, table string) {
		m := healthy()
		m.file("/proc/self/mountinfo", table)
		Examine(&m.Machine)
	})
}

func FuzzACS(f *testing.F) {
	f.Add([]byte(withACS(0x1d)))
	f.Add(make([]byte, extendedStart+8))
	circle := make([]byte, configBytes)
	circle[extendedStart+3] = 0x10 // points at itself
	f.Add(circle)
	f.Fuzz(func(_ *testing.T, config []byte) { acs(config) })
}

func TestSizesOfMountOptions(t *testing.T) {
	for text, want := range map[string]int64{
		"65536k": 64 << 20, "1g": 1 << 30, "5m": 5 << 20, "7": 7, "": 0, "50%": 0, "-1k": 0, "k": 0, "9223372036854775807g": 0,
	} {
		if got := sizeOption(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

func TestSizesAreWrittenRoundedDown(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1 << 20: "1 MiB", 3<<30 - 1: "2.9 GiB", 1 << 60: "1048576 TiB"} {
		if got := sized(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
