package api

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	fakeDevice = "/nvme/pets"
	fakeID     = "3f6e0c3a5d1b7f9284ac6e1d0b95f7723f6e0c3a5d1b7f9284ac6e1d0b95f772"
)

func fakeCacheDevice() CacheDevice {
	ended := time.Date(2026, 11, 21, 9, 12, 0, 500_000_000, time.UTC)
	return CacheDevice{
		Path: fakeDevice, State: CacheReadOnly, LimitBytes: 1 << 30, Full: true, Segments: 8, Retired: 1, EvictedTotal: 12, EvictedBytes: 1200,
		Put: CacheChunks{3, 300}, Filled: CacheChunks{40, 4000},
		Classes: []CacheClass{
			{ExtentBytes: 4096, Spans: 1, Extents: 16, Free: 6, Chunks: 9, Bytes: 900}, {ExtentBytes: 69632, Spans: 2, Extents: 20, Free: 1, Chunks: 19, Bytes: 3000},
			{ExtentBytes: 131072, Spans: 1, Extents: 10, Free: 0, Chunks: 8, Bytes: 400},
		},
		Room:  CacheRoom{100, 10, 11, 12, 13, 14, 15, 25},
		Reads: CacheReads{70, 7000, 6000}, Writes: CacheWrites{50, 5000, 500, 51, 5100, 2.12},
		Syncs:  CacheLatencies{Count: 6, SumSeconds: 0.5, UpTo: []float64{0.001, 0.002}, Buckets: []int64{1, 3, 2}},
		Errors: map[string]int64{"sync": 1, "meteor": 2}, Events: map[string]int64{"segment_retired": 1},
		Scrub: CacheScrub{Running: true, BytesPerSecond: 1 << 20, Passes: 4, Began: &ended, Share: 0.25, This: CacheFindings{Bytes: 64, CorruptPuts: 1}, Ended: &ended,
			Last: CacheFindings{10, 11, 640, 2, 0, 3, 1}, Damaged: []CacheDamage{{Chunk: fakeID, Put: true, Segment: 7, Block: 2, Found: ended}}},
	}
}

func (n *fakeNode) Cache() Cache {
	at := time.Date(2026, 11, 22, 18, 0, 0, 0, time.UTC)
	return Cache{Devices: []CacheDevice{fakeCacheDevice(), {Path: "/nvme/gone", State: CacheFailed}}, Events: []CacheEvent{{At: at, Kind: "segment_retired", Device: fakeDevice, Error: "EIO"}}}
}

func (n *fakeNode) CacheChunks(_ context.Context, request CachePageRequest) (CachePage, error) {
	if n.failing != nil {
		return CachePage{}, n.failing
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.paged = append(n.paged, request)
	return CachePage{Chunks: []CacheEntry{{ID: fakeID, Size: 100, Bytes: 90, Path: "/nvme/pets/segments/00000001.seg", At: 1 << 20}}, Next: fakeID}, nil
}

func (n *fakeNode) noDevice(path string) error {
	if n.failing != nil {
		return n.failing
	}
	if path != "" && path != fakeDevice {
		return &Error{Code: CodeNotFound, What: "the store has no such device", Where: path, Remedy: "`stoker cache stat` lists the devices"}
	}
	return nil
}

func (n *fakeNode) EvictCache(_ context.Context, request CacheEvict) (CacheEvicted, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.evicted = append(n.evicted, request)
	return CacheEvicted{Chunks: 3, Bytes: 300, Put: 1, Missing: 2}, n.noDevice(request.Device)
}

func (n *fakeNode) LimitCache(request CacheLimit) (Cache, error) {
	if err := n.noDevice(request.Path); err != nil {
		return Cache{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.limited = append(n.limited, request)
	return n.Cache(), nil
}

func TestTheCacheIsDescribedWithoutNulls(t *testing.T) {
	s := serveInMemory(t, everything())
	status, _, body := s.do(t, "GET", "/v1/cache")
	var cache Cache
	if err := json.Unmarshal([]byte(body), &cache); status != 200 || err != nil || len(cache.Devices) != 2 || cache.Devices[0].Scrub.Last.Unreadable != 3 {
		t.Errorf("%d %s, %v", status, body, err)
	}
	if strings.Contains(body, "null") {
		t.Errorf("a null in %s", body)
	}
	nothing, err := json.Marshal(Cache{}.filledIn())
	if err != nil || string(nothing) != `{"devices":[],"events":[]}` {
		t.Errorf("a node without flash: %s, %v", nothing, err)
	}
}

func TestChunksArePagedAsAsked(t *testing.T) {
	s := serveInMemory(t, everything())
	for query, want := range map[string]CachePageRequest{
		"":                                    {Limit: CachePageUsual},
		"?limit=1":                            {Limit: 1},
		"?limit=10000&prefix=3F6":             {Limit: CachePageMax, Prefix: "3F6"},
		"?after=" + fakeID + "&prefix=" + "0": {Limit: CachePageUsual, After: fakeID, Prefix: "0"},
	} {
		status, _, body := s.do(t, "GET", "/v1/cache/chunks"+query)
		if last := s.node.paged[len(s.node.paged)-1]; status != 200 || last != want || !strings.Contains(body, `"next":"`+fakeID) {
			t.Errorf("%s: %d %s, asked %+v of the node", query, status, body, last)
		}
	}
	asked := len(s.node.paged)
	for _, query := range []string{
		"?limit=0", "?limit=10001", "?limit=x", "?limit=", "?limit=-1", "?limit=99999999999999999999", "?after=" + fakeID[1:], "?after=", "?after=" + strings.Repeat("g", 64),
		"?prefix=", "?prefix=x", "?prefix=" + fakeID + "0", "?prefix=%zz", "?sort=size", "?limit=1&limit=2", "?after=..%2f..%2fetc",
	} {
		status, header, body := s.do(t, "GET", "/v1/cache/chunks"+query)
		wantProblem(t, status, header, body, 400, CodeInvalid)
	}
	if len(s.node.paged) != asked {
		t.Errorf("the node was asked for %+v", s.node.paged[asked:])
	}
}

func TestCopiesAreDroppedAsAsked(t *testing.T) {
	s := serveInMemory(t, everything())
	for body, want := range map[string]CacheEvict{
		`{"all":true}`: {All: true},
		`{"bytes":1073741824,"path":"/nvme/pets"}`: {Bytes: 1 << 30, Device: fakeDevice},
		`{"chunks":["` + fakeID + `"]}`:            {Chunks: []string{fakeID}},
	} {
		status, _, answer := s.postTo(t, "/v1/cache/evict", body)
		last := s.node.evicted[len(s.node.evicted)-1]
		if status != 200 || strings.TrimSpace(answer) != `{"chunks":3,"bytes":300,"put":1,"missing":2}` || fmt.Sprint(last) != fmt.Sprint(want) {
			t.Errorf("%s: %d %s, asked %+v of the node", body, status, answer, last)
		}
	}
	status, header, answer := s.postTo(t, "/v1/cache/evict", `{"all":true,"path":"/nvme/none"}`)
	wantProblem(t, status, header, answer, 404, CodeNotFound)
	asked := len(s.node.evicted)
	for _, body := range []string{``, `[]`, `{"everything":true}`, `{"all":null}`, `{"bytes":"1GiB"}`, `{"chunks":["` + fakeID + `","x"]}`, `{"chunks":["` + fakeID[2:] + `"]}`} {
		status, header, answer := s.postTo(t, "/v1/cache/evict", body)
		wantProblem(t, status, header, answer, 400, CodeInvalid)
	}
	if len(s.node.evicted) != asked {
		t.Errorf("the node was asked for %+v", s.node.evicted[asked:])
	}
}

func TestLimitsAreSetAndAnsweredWithTheCache(t *testing.T) {
	s := serveInMemory(t, everything())
	status, _, answer := s.postTo(t, "/v1/cache/limit", `{"path":"/nvme/pets","bytes":4096}`)
	if status != 200 || !slices.Equal(s.node.limited, []CacheLimit{{fakeDevice, 4096}}) || !strings.Contains(answer, `"limit_bytes":1073741824`) {
		t.Errorf("%d %s, asked %+v of the node", status, answer, s.node.limited)
	}
	status, header, answer := s.postTo(t, "/v1/cache/limit", `{"path":"/nvme/none","bytes":4096}`)
	wantProblem(t, status, header, answer, 404, CodeNotFound)
}

func TestReadingDoorsChangeNothingOnFlash(t *testing.T) {
	s := serveInMemory(t, access{loopbackHost: true})
	for _, path := range []string{"/v1/cache/evict", "/v1/cache/limit"} {
		status, header, body := s.do(t, "POST", path)
		wantProblem(t, status, header, body, 403, CodePermission)
	}
	if status, _, _ := s.do(t, "GET", "/v1/cache"); status != 200 || len(s.node.evicted)+len(s.node.limited) != 0 {
		t.Errorf("%d, %+v, %+v", status, s.node.evicted, s.node.limited)
	}
}

// What flash may send as labels is listed here, so that no series depends on more.
func TestLabelsOfFlashAreDescribed(t *testing.T) {
	kinds := document(t).Components.Schemas["CacheEvent"].Value.Properties["kind"].Value.Enum
	if fmt.Sprint(kinds) != fmt.Sprint(CacheEventKinds()) {
		t.Errorf("kinds of events are described as %v", kinds)
	}
	states := document(t).Components.Schemas["CacheDevice"].Value.Properties["state"].Value.Enum
	if fmt.Sprint(states) != fmt.Sprint(CacheStates()) {
		t.Errorf("states are described as %v", states)
	}
	if most := document(t).Components.Schemas["Cache"].Value.Properties["events"].Value.MaxItems; most == nil || *most != CacheEventsKept {
		t.Errorf("at most %v events are described", most)
	}
	for _, p := range operations(t)["GET /v1/cache/chunks"].Parameters {
		if limit := p.Value.Schema.Value; p.Value.Name == "limit" && (*limit.Max != CachePageMax || fmt.Sprint(limit.Default) != fmt.Sprint(CachePageUsual)) {
			t.Errorf("a page is described with %v chunks, at most %v", limit.Default, *limit.Max)
		}
	}
}
