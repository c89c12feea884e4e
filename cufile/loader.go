package cufile

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

const (
	loaderPathVariable = "LD_LIBRARY_PATH"
	loaderCache        = "/etc/ld.so.cache"
)

// loaderPlaces are the paths where the loader looks for a library by name, in its order
// (ld.so(8)). It is asked so that the file can be looked at before it is mapped.
func loaderPlaces(name string) []string {
	var all []string
	if folders := os.Getenv(loaderPathVariable); folders != "" {
		for _, folder := range strings.FieldsFunc(folders, func(r rune) bool { return r == ':' || r == ';' }) {
			all = append(all, filepath.Join(folder, name))
		}
	}
	if cache, err := os.ReadFile(loaderCache); err == nil { // a system may have none
		all = append(all, cachedPlaces(cache, name)...)
	}
	for _, folder := range []string{"/lib64", "/usr/lib64", "/lib", "/usr/lib"} {
		all = append(all, filepath.Join(folder, name))
	}
	return all
}

// The loader's cache (glibc, dl-cache.h), of which this is the form since glibc 2.2.
// Positions are from the cache's begin; strings end in a zero.
//
//	+----------------------+---------+--------+----------------------------------+
//	| glibc-ld.so.cache1.1 | entries | unused | entries: flags, name, path, rest |
//	|                   20 |       4 |     24 |                      4 + 4 + 4 + 12 |
//	+----------------------+---------+--------+----------------------------------+
const (
	cacheMagic       = "glibc-ld.so.cache1.1"
	cacheHeaderBytes = 48
	cacheEntryBytes  = 24
)

// cacheFlags mark the libraries of a processor that are for glibc.
var cacheFlags = map[string]uint32{"amd64": 0x303, "arm64": 0xa03}

// cachedPlaces finds a library in the loader's cache; none where that has another form.
func cachedPlaces(cache []byte, name string) []string {
	at := bytes.Index(cache, []byte(cacheMagic)) // behind an older form, where there is one
	if at < 0 || len(cache)-at < cacheHeaderBytes {
		return nil
	}
	cache = cache[at:]
	text := func(position uint32) string {
		if uint64(position) >= uint64(len(cache)) {
			return ""
		}
		return untilNUL(cache[position:])
	}
	var found []string
	entries := cache[cacheHeaderBytes:]
	for range binary.NativeEndian.Uint32(cache[len(cacheMagic):]) {
		if len(entries) < cacheEntryBytes {
			break
		}
		flags := binary.NativeEndian.Uint32(entries)
		if flags == cacheFlags[runtime.GOARCH] && text(binary.NativeEndian.Uint32(entries[4:])) == name {
			found = append(found, text(binary.NativeEndian.Uint32(entries[8:])))
		}
		entries = entries[cacheEntryBytes:]
	}
	return found
}

func untilNUL(p []byte) string {
	p, _, _ = bytes.Cut(p, []byte{0})
	return string(p)
}
