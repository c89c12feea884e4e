package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/flash"
	"github.com/stokerio/stoker/loader/api"
)

// flashContent is that of chunk n: equal in every run.
func flashContent(n int) []byte { return bytes.Repeat([]byte{byte(n), byte(n >> 8), 7}, 1000*(n+1)) }

// flashChunk is chunk n as a copy.
func flashChunk(n int) backend.Chunk {
	size := int64(len(flashContent(n)))
	return backend.Chunk{Object: &backend.Object{Origin: "test", Name: fmt.Append(nil, n), Version: backend.Version{Size: size}}, Size: size}
}

// openFlash opens the place's directory of chunks, which is made with two puts and four
// copies.
func (p *place) openFlash(t *testing.T) *flash.Store {
	t.Helper()
	device := flash.Device{Path: filepath.Join(p.directory, "flash"), LimitBytes: 8 << 20, SpanBytes: 64 << 10, SegmentSpans: 8}
	s, err := flash.Open(t.Context(), flash.Options{Devices: []flash.Device{device}})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 6 {
		if n < 2 {
			_, err = s.Put(t.Context(), flashContent(n))
		} else {
			err = s.Fill(t.Context(), flashChunk(n), flashContent(n))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// makeFlash makes the place's directory of chunks and returns its path.
func (p *place) makeFlash(t *testing.T) string {
	t.Helper()
	if err := p.openFlash(t).Close(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(p.directory, "flash")
}

// identity is what differs from directory to directory.
var identity = regexp.MustCompile(`"device": "[0-9a-f]{32}"`)

// goldenFlash is golden without what differs from run to run.
func goldenFlash(t *testing.T, name string, got outcome) {
	t.Helper()
	got.out = identity.ReplaceAllString(got.out, `"device": "DEVICE"`)
	golden(t, name, got)
}

func TestCacheOfADirectory(t *testing.T) {
	p := newPlace(t)
	dir := p.makeFlash(t)
	for name, args := range map[string][]string{
		"cache-stat":         {"stat"},
		"cache-stat-classes": {"stat", "--classes"},
		"cache-ls":           {"ls"},
		"cache-ls-json":      {"ls", "--json"},
		"cache-ls-put":       {"ls", "--kind", "put"},
		"cache-ls-none":      {"ls", "000000"},
		"cache-path":         {"path", flashChunk(3).Identity().String()[:8]},
		"cache-path-json":    {"path", flashChunk(3).Identity().String(), "--json"},
		"cache-path-unknown": {"path", "000000"},
		"cache-path-bad":     {"path", "xyz"},
		"cache-path-none":    {"path", ""},
	} {
		goldenFlash(t, name, p.run(t, append([]string{"cache"}, append(args, "--dir", dir)...)...))
	}
}

func TestCacheOfNoDirectory(t *testing.T) {
	p := newPlace(t)
	empty := filepath.Join(p.directory, "empty")
	if err := os.Mkdir(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	golden(t, "cache-no-flash", p.run(t, "cache", "stat", "--dir", empty))
	golden(t, "cache-check-no-flash", p.run(t, "cache", "check", empty))
	golden(t, "cache-check-nowhere", p.run(t, "cache", "check", filepath.Join(p.directory, "nowhere"), "--json"))
	if left, err := os.ReadDir(empty); err != nil || len(left) > 0 {
		t.Errorf("the directory has %v now, %v", left, err)
	}
}

func TestCacheThatAProgramHas(t *testing.T) {
	p := newPlace(t)
	s := p.openFlash(t)
	for _, args := range [][]string{{"stat", "--dir"}, {"evict", "--all", "--dir"}, {"check"}} {
		got := p.run(t, append(append([]string{"cache"}, args...), filepath.Join(p.directory, "flash"))...)
		if got.code != exitError || !strings.Contains(got.err, "a program has the directory open") || !strings.Contains(got.err, fmt.Sprint("process ", os.Getpid())) {
			t.Errorf("%q: %+v", args, got)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestCacheOfADaemonIsThatOfADirectory(t *testing.T) {
	p := newPlace(t)
	dir := p.makeFlash(t)
	id := flashChunk(3).Identity().String()
	calls := [][]string{{"ls"}, {"ls", "--json"}, {"ls", id[:1], "--json"}, {"path", id[:10]}, {"path", "0000000"}, {"evict", id[:12], flashChunk(4).Identity().String(), "--json"}, {"ls"}}
	var want []outcome
	for _, args := range calls {
		want = append(want, p.run(t, append([]string{"cache"}, append(args, "--dir", dir)...)...))
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	node := newFakeNode()
	node.flash = p.openFlash(t)
	p.serveAPI(t, node)
	for i, args := range calls {
		if got := p.run(t, append([]string{"cache"}, args...)...); got != want[i] {
			t.Errorf("%q: by the daemon\n%+v\nof the directory\n%+v", args, got, want[i])
		}
	}
	for _, args := range [][]string{{"evict", "--bytes", "1KiB"}, {"evict", "--all"}} {
		if got := p.run(t, append([]string{"cache"}, args...)...); got.code != exitOK || !strings.HasPrefix(got.out, "dropped ") {
			t.Errorf("%q: %+v", args, got)
		}
	}
	golden(t, "cache-evict-device", p.run(t, "cache", "evict", "--all", "--device", "/nowhere"))
	golden(t, "cache-evict-put", p.run(t, "cache", "evict", backend.ContentID(flashContent(1)).String()))
	if err := node.flash.Close(); err != nil {
		t.Error(err)
	}
}

func TestCacheEvictOfManyChunks(t *testing.T) {
	p := newPlace(t)
	node := newFakeNode()
	node.flash = p.openFlash(t)
	p.serveAPI(t, node)
	c, err := (&app{environment: p.environment(), runtimeDir: p.directory}).openCache(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	var request api.CacheEvict
	for n := range 2*evictAtOnce + 3 {
		request.Chunks = append(request.Chunks, flashChunk(n).Identity().String())
	}
	got, err := c.evict(t.Context(), request)
	if want := int64(2*evictAtOnce + 3 - 4); err != nil || got.Chunks != 4 || got.Missing != want {
		t.Errorf("%+v, %v: want 4 dropped and %d missing", got, err, want)
	}
	if err := errors.Join(c.close(), node.flash.Close()); err != nil {
		t.Error(err)
	}
}

func TestCacheStatOfADaemon(t *testing.T) {
	p := newPlace(t)
	node := newFakeNode()
	began, ended := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC), time.Date(2026, 11, 20, 1, 2, 3, 0, time.UTC)
	node.cache = api.Cache{Devices: []api.CacheDevice{
		{
			Path: "/mnt/nvme0/stoker", State: api.CacheHealthy, LimitBytes: 900 << 30, Segments: 812, Retired: 1, EvictedTotal: 12345, EvictedBytes: 96 << 30, Full: true,
			Put: api.CacheChunks{Chunks: 1, Bytes: 5 << 20}, Filled: api.CacheChunks{Chunks: 100_000, Bytes: 780 << 30},
			Room:    api.CacheRoom{UsedBytes: 812 << 30, ChunkBytes: 780 << 30, PaddingBytes: 12 << 30, FreeExtentBytes: 15 << 30, OwnBytes: 5 << 30},
			Classes: []api.CacheClass{{ExtentBytes: 8 << 20, Spans: 12_600, Extents: 100_800, Free: 799, Chunks: 100_001, Bytes: 780 << 30}},
			Reads:   api.CacheReads{Reads: 5_000_000, Bytes: 490 << 30, CheckedBytes: 100 << 30}, Writes: api.CacheWrites{Writes: 112_345, PayloadBytes: 876 << 30, Amplification: 1.0032},
			Syncs:  api.CacheLatencies{Count: 1000, SumSeconds: 3.5, UpTo: []float64{.001, .002, .004, .008}, Buckets: []int64{100, 400, 480, 15, 5}},
			Errors: map[string]int64{"write": 1, "read": 3}, Events: map[string]int64{"segment_retired": 1},
			Scrub: api.CacheScrub{Running: true, BytesPerSecond: 1 << 20, Passes: 2, Began: &began, Share: .42, Ended: &ended,
				This: api.CacheFindings{Bytes: 300 << 30, CorruptPuts: 1, CorruptCopies: 2}, Last: api.CacheFindings{Bytes: 770 << 30},
				Damaged: []api.CacheDamage{{Chunk: strings.Repeat("0a", 32), Found: ended}, {Chunk: strings.Repeat("3f", 32), Put: true, Block: 3, Found: began}}},
		},
		{Path: "/mnt/\x1b[2Jnvme1", State: api.CacheReadOnly, LimitBytes: 1 << 30},
	}}
	p.serveAPI(t, node)
	golden(t, "cache-stat-daemon", p.run(t, "cache", "stat", "--classes"))
	golden(t, "cache-stat-daemon-json", p.run(t, "cache", "stat", "--json"))
	node.cache = api.Cache{}
	golden(t, "cache-stat-none", p.run(t, "cache", "stat"))
	golden(t, "cache-evict-none", p.run(t, "cache", "evict", "--all", "--json"))
}

func TestCacheLimit(t *testing.T) {
	p := newPlace(t)
	node := newFakeNode()
	node.cache = api.Cache{Devices: []api.CacheDevice{{Path: "/mnt/nvme0/stoker", LimitBytes: 900 << 30, Room: api.CacheRoom{UsedBytes: 812 << 30}}}}
	p.serveAPI(t, node)
	golden(t, "cache-limit", p.run(t, "cache", "limit", "1TiB"))
	golden(t, "cache-limit-lower", p.run(t, "cache", "limit", "500GiB", "--device", "/mnt/nvme0/stoker"))
	if got := p.run(t, "cache", "limit", "800GiB", "--json"); got.code != 0 || node.cache.Devices[0].LimitBytes != 800<<30 {
		t.Errorf("%+v", got)
	}
	node.cache.Devices = append(node.cache.Devices, api.CacheDevice{Path: "/mnt/nvme1/stoker"})
	golden(t, "cache-limit-several", p.run(t, "cache", "limit", "1TiB"))
	golden(t, "cache-limit-unknown", p.run(t, "cache", "limit", "1TiB", "--device", "/nowhere"))
	golden(t, "complete-device", p.run(t, "__complete", "cache", "limit", "1TiB", "--device", "/mnt/nvme1"))
	node.cache = api.Cache{}
	golden(t, "cache-limit-none", p.run(t, "cache", "limit", "1TiB"))
}

func TestCacheWithoutADaemon(t *testing.T) {
	p := newPlace(t)
	if got := p.run(t, "cache", "stat"); got.code != exitNotRunning {
		t.Errorf("%+v", got)
	}
	for _, args := range [][]string{{"evict"}, {"evict", "00", "--all"}, {"evict", "--bytes", "much"}, {"evict", "--bytes", "-1"}, {"check", "x", "--drop-corrupt"}, {"check"}, {"ls", "--kind", "odd"}, {"ls", "0g"}, {"limit"}, {"limit", "much"}, {"limit", "0"}} {
		if got := p.run(t, append([]string{"cache"}, args...)...); got.code != exitUsage {
			t.Errorf("%q: %+v", args, got)
		}
	}
}

func TestCacheCheck(t *testing.T) {
	p := newPlace(t)
	dir := p.makeFlash(t)
	goldenFlash(t, "cache-check", p.run(t, "cache", "check", dir))
	goldenFlash(t, "cache-check-json", p.run(t, "cache", "check", dir, "--json"))

	damageFlash(t, p, dir)
	goldenFlash(t, "cache-check-damage", p.run(t, "cache", "check", dir))
	goldenFlash(t, "cache-check-damage-json", p.run(t, "cache", "check", dir, "--json"))
	goldenFlash(t, "cache-check-first", p.run(t, "cache", "check", dir, "--first", "0"))
	goldenFlash(t, "cache-check-repair", p.run(t, "cache", "check", dir, "--repair"))
	goldenFlash(t, "cache-check-left", p.run(t, "cache", "check", dir, "--repair"))
	goldenFlash(t, "cache-check-drop", p.run(t, "cache", "check", dir, "--repair", "--drop-corrupt"))
	if got := p.run(t, "cache", "check", dir); got.code != exitOK {
		t.Errorf("after all repairs: %+v", got)
	}
}

// damageFlash flips a bit of a put and of two copies, and leaves a file where none should be.
func damageFlash(t *testing.T, p *place, dir string) {
	t.Helper()
	for _, id := range []backend.ChunkID{backend.ContentID(flashContent(1)), flashChunk(2).Identity(), flashChunk(4).Identity()} {
		got := p.run(t, "cache", "path", id.String(), "--dir", dir, "--json")
		var e api.CacheEntry
		if err := json.Unmarshal([]byte(got.out), &e); err != nil {
			t.Fatalf("%+v: %v", got, err)
		}
		file, err := os.OpenFile(strings.Replace(e.Path, "RUNTIME", p.directory, 1), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt([]byte{0xFF}, e.At+17); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "segments", "notes.txt"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCacheCheckIsInterrupted(t *testing.T) {
	p := newPlace(t)
	dir := p.makeFlash(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := p.runContext(ctx, "cache", "check", dir); got.code != exitError || !strings.Contains(got.err, "interrupted") {
		t.Errorf("%+v", got)
	}
}

func TestCacheCompletesIDs(t *testing.T) {
	p := newPlace(t)
	node := newFakeNode()
	node.flash = p.openFlash(t)
	p.serveAPI(t, node)
	id := flashChunk(3).Identity().String()
	got := p.run(t, "__complete", "cache", "path", id[:3])
	if got.code != exitOK || !strings.HasPrefix(got.out, id+"\tcopy, ") {
		t.Errorf("%+v", got)
	}
	if got := p.run(t, "__complete", "cache", "path", "what"); strings.Contains(got.out, id) {
		t.Errorf("%+v", got)
	}
	if err := node.flash.Close(); err != nil {
		t.Error(err)
	}
}
