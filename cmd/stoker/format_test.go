package main

import (
	"math"
	"testing"
)

func TestHumanBytes(t *testing.T) {
	for bytes, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "0.98 KiB", 1024: "1.00 KiB", 10 << 10: "10.0 KiB", 100 << 10: "100 KiB", 1_048_500_000: "0.98 GiB",
		1 << 30: "1.00 GiB", 1<<20 - 1: "1.00 MiB", math.MaxInt64: "8.00 EiB",
	} {
		if got := humanBytes(bytes); got != want {
			t.Errorf("humanBytes(%d) = %q, want %q", bytes, got, want)
		}
	}
}

func TestGroupedAndCounted(t *testing.T) {
	for number, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -1234567: "-1,234,567", math.MinInt64: "-9,223,372,036,854,775,808"} {
		if got := grouped(number); got != want {
			t.Errorf("grouped(%d) = %q, want %q", number, got, want)
		}
	}
	if counted(1, "file", "files") != "1 file" || counted(0, "file", "files") != "0 files" || counted(1234, "file", "files") != "1,234 files" {
		t.Error("counted")
	}
}

func TestHumanSeconds(t *testing.T) {
	for seconds, want := range map[float64]string{0: "0 ms", 0.0124: "12 ms", 1: "1.0 s", 12.34: "12.3 s", 200: "3m20s"} {
		if got := humanSeconds(seconds); got != want {
			t.Errorf("humanSeconds(%g) = %q, want %q", seconds, got, want)
		}
	}
}

func TestTextFromOutsideCannotSteerATerminal(t *testing.T) {
	for text, want := range map[string]string{
		"plain name": "plain name", "größer": "größer", "a\x1b[2Jb": `"a\x1b[2Jb"`, "line\nbreak": `"line\nbreak"`, "\xff": `"\xff"`, "\u202eabc": `"\u202eabc"`,
	} {
		if got := printable(text); got != want {
			t.Errorf("printable(%q) = %s, want %s", text, got, want)
		}
	}
}
