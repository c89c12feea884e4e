package tar

import (
	"math"
	"strings"
	"testing"
)

func TestNumbersAreReadInOctalAndBase256(t *testing.T) {
	for _, c := range []struct {
		field string
		want  int64
	}{
		{"00000000017\x00", 15}, {"       17 \x00 ", 15}, {"17\x00garbage  ", 15}, {"\x00\x00\x00\x00\x00\x00\x00\x00", 0}, {"            ", 0},
		{"777777777777", 0o777777777777},
		{"\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00", 256},
		{"\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff", math.MaxInt64},
		{"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", -2},
		{"\xff\xff\xff\xff\x80\x00\x00\x00\x00\x00\x00\x00", math.MinInt64},
		{"\x80\x00\x00\x00\x00\x00\x00\x07", 7},
	} {
		if got, ok := number([]byte(c.field)); !ok || got != c.want {
			t.Errorf("%q: %d, %v, want %d", c.field, got, ok, c.want)
		}
	}
	for _, field := range []string{
		"0000000000x\x00", "8\x00          ", "-1\x00         ", "1 2\x00        ", "1_0\x00        ", "0o17\x00       ", "\x81\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"\x80\x00\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00", "\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
	} {
		if got, ok := number([]byte(field)); ok {
			t.Errorf("%q: %d, want none", field, got)
		}
	}
}

func TestChecksumsMayBeSumsOfSignedBytes(t *testing.T) {
	signed := func(h []byte) int {
		total := 0
		for i, c := range h {
			if i >= checksumField && i < checksumField+checksumBytes {
				c = ' '
			}
			total += int(int8(c))
		}
		return total
	}
	a := new(archive).file("ä\xff\xfe.x", "data").b
	h := [blockBytes]byte(a)
	if !checksumOK(&h) {
		t.Fatal("unsigned sum refused")
	}
	total := signed(h[:])
	for i := range 6 {
		h[checksumField+i] = byte('0' + total>>(3*(5-i))&7)
	}
	if !checksumOK(&h) {
		t.Error("signed sum refused")
	}
	for _, at := range []int{0, 50, 156, 300, 511} {
		changed := h
		changed[at]++
		if checksumOK(&changed) {
			t.Errorf("a change of byte %d is not noticed", at)
		}
	}
	full := [blockBytes]byte([]byte(strings.Repeat("\xff", blockBytes)))
	if got := sumBytes(&full); got != 255*blockBytes {
		t.Errorf("sum %d, want %d", got, 255*blockBytes)
	}
}

func TestRecordsOfPAXHeadersAreReadStrictly(t *testing.T) {
	r, rest, ok := nextRecord([]byte("12 path=a=b\n30 mtime"))
	if !ok || string(r.key) != "path" || string(r.value) != "a=b" || string(rest) != "30 mtime" {
		t.Errorf("%q %q %q %v", r.key, r.value, rest, ok)
	}
	for _, bad := range []string{"", "9", "9 ", "0 path=a\n", "1 path=a\n", "8 path=a\n", "11 path=a\n", "9 path=a ", "7 path\n", "5 =a\n", " 9 path=a\n", "99999999999999999999 path=a\n", "-9 path=a\n"} {
		if r, _, ok := nextRecord([]byte(bad)); ok {
			t.Errorf("%q: %q=%q", bad, r.key, r.value)
		}
	}
}
