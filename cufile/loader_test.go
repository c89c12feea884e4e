package cufile

import (
	"encoding/binary"
	"runtime"
	"slices"
	"testing"
)

// madeCache is a cache of the loader with one entry for each name and path.
func madeCache(flags uint32, entries ...[2]string) []byte {
	cache := make([]byte, cacheHeaderBytes+cacheEntryBytes*len(entries))
	copy(cache, cacheMagic)
	binary.NativeEndian.PutUint32(cache[len(cacheMagic):], uint32(len(entries)))
	for i, entry := range entries {
		at := cacheHeaderBytes + i*cacheEntryBytes
		binary.NativeEndian.PutUint32(cache[at:], flags)
		for j, text := range entry {
			binary.NativeEndian.PutUint32(cache[at+4+4*j:], uint32(len(cache)))
			cache = append(append(cache, text...), 0)
		}
	}
	return cache
}

func TestTheLoadersCacheIsRead(t *testing.T) {
	entries := [][2]string{{"libcuda.so.1", "/a/libcuda.so.1"}, {"libcuda.so", "/b/libcuda.so"}, {"libcuda.so.1", "/c/libcuda.so.1"}}
	cache := madeCache(cacheFlags[runtime.GOARCH], entries...)
	want := []string{"/a/libcuda.so.1", "/c/libcuda.so.1"}
	if got := cachedPlaces(cache, "libcuda.so.1"); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := cachedPlaces(append([]byte("ld.so-1.7.0 and what it holds"), cache...), "libcuda.so.1"); !slices.Equal(got, want) {
		t.Errorf("behind an older form: %q, want %q", got, want)
	}
	if got := cachedPlaces(madeCache(3, entries...), "libcuda.so.1"); len(got) != 0 {
		t.Errorf("of another processor: %q", got)
	}
}

func FuzzTheLoadersCache(f *testing.F) {
	f.Add(madeCache(cacheFlags[runtime.GOARCH], [2]string{"a", "/a"}), "a")
	f.Add([]byte(cacheMagic), "")
	f.Fuzz(func(t *testing.T, cache []byte, name string) {
		for _, path := range cachedPlaces(cache, name) {
			if len(path) > len(cache) {
				t.Errorf("%q", path)
			}
		}
	})
}
