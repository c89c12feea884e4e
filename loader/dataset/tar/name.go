package tar

import (
	"bytes"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

// SplitName divides the name of a member into the key of its sample and the suffix
// that names the part, as WebDataset does (webdataset: tariterators.py, base_plus_ext,
// the pattern ^((?:.*/|)[^.]+)[.]([^/]*)$): at the first dot of the last component, so
// directories belong to the key and "a/b.seg.png" is part "seg.png" of sample "a/b".
// The suffix is lower-cased as Unicode has it, one that is no UTF-8 in ASCII only. ok is
// false for a name that is part of no sample.
//
// The pattern's quirks are kept, as other readers of the same archive number samples
// by them: "dir/.hidden" is part "hidden" of "dir/" while ".hidden" is none, and
// "a.b/.hidden" is none because what comes before the dot must hold no other dot
// behind the slash before.
//
// key and suffix are parts of name, except that a suffix with capitals, or with letters
// beyond ASCII, is a copy.
// Names are keys and never paths: ".." and a leading slash mean nothing, and bytes
// that are no UTF-8 or are NUL stay what they are.
func SplitName(name []byte) (key, suffix []byte, ok bool) {
	at := splitAt(name)
	if at < 0 {
		return nil, nil, false
	}
	key, suffix = name[:at], name[at+1:]
	if !isLower(suffix) {
		suffix = appendSuffix(nil, suffix)
	}
	return key, suffix, true
}

// splitAt returns where the dot between key and suffix is, -1 for none.
//
// The pattern takes the longest prefix that ends in a slash and has no newline before
// it (Python's "." matches none), then at least one byte that is no dot, then the
// first dot, behind which no slash may follow. Only one shorter prefix can ever match
// where the longest does not: that up to the slash before, if the dot comes at once.
func splitAt(name []byte) int {
	slash := bytes.LastIndexByte(name, '/')
	start := slash + 1 // of what follows the longest prefix
	if newline := bytes.IndexByte(name, '\n'); newline >= 0 && newline < slash {
		start = bytes.LastIndexByte(name[:newline], '/') + 1
	}
	dot := bytes.IndexByte(name[start:], '.')
	if dot < 0 {
		return -1
	}
	dot += start
	if dot > start {
		if dot < slash {
			return -1
		}
		return dot
	}
	if dot < slash || slash < 0 {
		return -1
	}
	before := bytes.LastIndexByte(name[:slash], '/') + 1
	if bytes.IndexByte(name[before:slash], '.') >= 0 {
		return -1
	}
	return dot
}

// Skipped reports whether WebDataset leaves a member out by its name (webdataset:
// tariterators.py, tar_file_iterator): "__x__" without a slash, and everything below
// a first component "__x__". "a/__x__/b" is not left out.
func Skipped(name []byte) bool {
	if len(name) < 2 || name[0] != '_' || name[1] != '_' {
		return false
	}
	first, _, below := bytes.Cut(name, []byte{'/'})
	if !below {
		// The pattern's $ also matches before a newline that ends the name.
		return bytes.HasSuffix(name, []byte("__")) || len(name) >= 5 && bytes.HasSuffix(name, []byte("__\n"))
	}
	return len(first) >= 4 && bytes.HasSuffix(first, []byte("__"))
}

// Reserved reports whether a suffix cannot name a part: WebDataset keeps its own
// values under the first three, Stoker under the last.
func Reserved(suffix []byte) bool {
	switch string(suffix) {
	case "__key__", "__url__", "__bad__", "__present__":
		return true
	}
	return false
}

// isLower reports whether a suffix is certainly written as it is named.
func isLower(s []byte) bool {
	for _, c := range s {
		if c-'A' <= 'Z'-'A' || c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func isASCII(s []byte) bool {
	for _, c := range s {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// appendSuffix appends s as a suffix is named, like Python's str.lower.
func appendSuffix(to, s []byte) []byte {
	if isLower(s) {
		return append(to, s...)
	}
	if isASCII(s) || !utf8.Valid(s) {
		return appendLower(to, s)
	}
	return append(to, cases.Lower(language.Und).Bytes(s)...)
}

func hasCapital(s []byte) bool {
	for _, c := range s {
		if 'A' <= c && c <= 'Z' {
			return true
		}
	}
	return false
}

// appendLower appends s with ASCII capitals made small.
func appendLower(to, s []byte) []byte {
	for _, c := range s {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		to = append(to, c)
	}
	return to
}
