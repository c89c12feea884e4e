package api

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"
)

// Cacher is the part of a Node that keeps chunks on flash.
type Cacher interface {
	// Cache says what each flash device has and did, and what happened last.
	Cache() Cache
	// CacheChunks returns chunks in the order of their ids. Errors: CodeUnavailable.
	CacheChunks(ctx context.Context, request CachePageRequest) (CachePage, error)
	// EvictCache drops copies. Errors: CodeNotFound (a device), CodeOutOfRange, CodeUnavailable.
	EvictCache(ctx context.Context, request CacheEvict) (CacheEvicted, error)
	// LimitCache changes what a device's files may take, until the daemon ends. Errors:
	// CodeNotFound (the device), CodeOutOfRange, CodeUnavailable.
	LimitCache(request CacheLimit) (Cache, error)
}

// Cache is what there is on flash.
type Cache struct {
	Devices []CacheDevice `json:"devices"` // as they were configured; those that could not be opened last
	Events  []CacheEvent  `json:"events"`  // at most CacheEventsKept, the newest first
}

// CacheEventsKept is how many events Cache tells of.
const CacheEventsKept = 64

// States of a device.
const (
	CacheHealthy  = "healthy"
	CacheReadOnly = "read_only" // nothing more is written there
	CacheFailed   = "failed"    // it is not used at all
)

// CacheStates are the label values of stoker_flash_device_state.
func CacheStates() []string { return []string{CacheHealthy, CacheReadOnly, CacheFailed} }

// CacheDevice is what a device has and what was done there since the daemon's start.
type CacheDevice struct {
	Path         string `json:"path"`
	State        string `json:"state"`
	LimitBytes   int64  `json:"limit_bytes"`
	Full         bool   `json:"full"` // the file system has less room than the limit
	Segments     int64  `json:"segments"`
	Retired      int64  `json:"retired"` // of the segments, those to which nothing more is written
	EvictedTotal int64  `json:"evicted_total"`
	EvictedBytes int64  `json:"evicted_bytes"`

	Put     CacheChunks  `json:"put"`    // kept until they are deleted
	Filled  CacheChunks  `json:"filled"` // copies, which may be dropped
	Classes []CacheClass `json:"classes"`
	Room    CacheRoom    `json:"room"`

	Reads  CacheReads       `json:"reads"`
	Writes CacheWrites      `json:"writes"`
	Syncs  CacheLatencies   `json:"syncs"`
	Errors map[string]int64 `json:"errors"` // what failed (see CacheSteps) -> how often
	Events map[string]int64 `json:"events"` // kind (see CacheEventKinds) -> events
	Scrub  CacheScrub       `json:"scrub"`
}

// CacheChunks counts chunks of one kind.
type CacheChunks struct {
	Chunks int64 `json:"chunks"`
	Bytes  int64 `json:"bytes"` // of them, all: also blocks that are not there
}

// CacheClass is a size class that has spans. Extents - Free - Chunks are being written, or
// were dropped and are not free yet.
type CacheClass struct {
	ExtentBytes int64 `json:"extent_bytes"`
	Spans       int   `json:"spans"`
	Extents     int64 `json:"extents"`
	Free        int64 `json:"free"`
	Chunks      int64 `json:"chunks"`
	Bytes       int64 `json:"bytes"` // of the chunks
}

// CacheRoom says where what a device's files take is. UsedBytes is the sum of the others.
type CacheRoom struct {
	UsedBytes       int64 `json:"used_bytes"`
	ChunkBytes      int64 `json:"chunk_bytes"`
	PaddingBytes    int64 `json:"padding_bytes"`     // extents are larger than their chunks
	FreeExtentBytes int64 `json:"free_extent_bytes"` // of spans that belong to a class
	FreeSpanBytes   int64 `json:"free_span_bytes"`   // of spans that belong to none
	BusyBytes       int64 `json:"busy_bytes"`        // being written, or dropped and not free yet
	LostBytes       int64 `json:"lost_bytes"`        // ends of spans, and spans of which nobody knows what they hold
	OwnBytes        int64 `json:"own_bytes"`         // headers and ledgers
}

// CacheReads counts reads of a device's files.
type CacheReads struct {
	Reads        int64 `json:"reads"`
	Bytes        int64 `json:"bytes"`
	CheckedBytes int64 `json:"checked_bytes"` // whose CRC32C was compared, also by the scrubber
}

// CacheWrites counts what was written to a device's files.
type CacheWrites struct {
	Writes        int64   `json:"writes"` // of chunks, or of blocks of them
	PayloadBytes  int64   `json:"payload_bytes"`
	PaddingBytes  int64   `json:"padding_bytes"` // zeros up to the next page
	Records       int64   `json:"records"`
	RecordBytes   int64   `json:"record_bytes"`  // at most
	Amplification float64 `json:"amplification"` // bytes written for each byte of payload, at most; 0 if none was
}

// CacheLatencies is a histogram of durations.
type CacheLatencies struct {
	Count      int64     `json:"count"`
	SumSeconds float64   `json:"sum_seconds"`
	UpTo       []float64 `json:"up_to_seconds"` // bounds of the buckets; the last bucket has none
	Buckets    []int64   `json:"buckets"`       // how many took longer than the bound before, and not longer than this one
}

// CacheScrub is how far the scrubber of a device is, over all daemons that had it.
type CacheScrub struct {
	Running        bool          `json:"running"`
	BytesPerSecond int64         `json:"bytes_per_second"` // 0: it does not scrub
	Passes         int64         `json:"passes"`           // that came to the end
	Began          *time.Time    `json:"began,omitempty"`  // the pass that goes on, or was interrupted
	Share          float64       `json:"share"`            // of it, that is behind it
	This           CacheFindings `json:"this"`             // of that pass
	Ended          *time.Time    `json:"ended,omitempty"`  // the last whole pass
	Last           CacheFindings `json:"last"`             // of that pass
	Damaged        []CacheDamage `json:"damaged"`          // found last, the newest first
}

// CacheFindings is what a pass read and found.
type CacheFindings struct {
	Chunks        int64 `json:"chunks"`
	Blocks        int64 `json:"blocks"`
	Bytes         int64 `json:"bytes"`
	CorruptCopies int64 `json:"corrupt_copies"` // they were dropped
	CorruptPuts   int64 `json:"corrupt_puts"`   // blocks of chunks that were put
	Unreadable    int64 `json:"unreadable"`     // blocks that the device could not read
	Records       int64 `json:"records"`        // that were damaged; they were written anew
}

// CacheDamage is a block that was not what was stored.
type CacheDamage struct {
	Chunk      string    `json:"chunk"`
	Put        bool      `json:"put"`
	Unreadable bool      `json:"unreadable"` // false: it is corrupt
	Segment    uint32    `json:"segment"`
	Block      int       `json:"block"`
	Found      time.Time `json:"found"`
}

// CacheEvent is something that somebody should know. The log has it as well.
type CacheEvent struct {
	At      time.Time `json:"at"`
	Kind    string    `json:"kind"` // see CacheEventKinds
	Device  string    `json:"device"`
	Segment string    `json:"segment,omitempty"` // path
	Chunk   string    `json:"chunk,omitempty"`
	Block   int       `json:"block"` // of the chunk
	Detail  string    `json:"detail,omitempty"`
	Error   string    `json:"error,omitempty"`
}

// CacheEventKinds are the label values of stoker_flash_events_total; others are counted as
// "other".
func CacheEventKinds() []string {
	return []string{
		"device_warning", "device_full", "device_read_only", "device_failed", "segment_retired", "segment_damaged",
		"record_damaged", "chunk_corrupt", "chunk_unreadable", "scrub_done",
	}
}

// CacheSteps are the label values of stoker_flash_errors_total; others are counted as "other".
func CacheSteps() []string {
	return []string{"read", "read records", "write", "write a record", "sync", "make room"}
}

// CachePageRequest asks for some of the chunks.
type CachePageRequest struct {
	After  string // id; those behind it; "": from the first
	Prefix string // hexadecimal digits with which ids begin
	Limit  int    // at most so many, 1 to CachePageMax
}

// How many chunks a page has, unless asked otherwise and at most.
const (
	CachePageUsual = 1000
	CachePageMax   = 10_000
)

// CachePage is some of the chunks, in the order of their ids.
type CachePage struct {
	Chunks []CacheEntry `json:"chunks"`
	Next   string       `json:"next,omitempty"` // After of the next page; "": this is the last one
}

// CacheEntry is a chunk on flash.
type CacheEntry struct {
	ID    string `json:"id"`
	Size  int64  `json:"size"`  // bytes
	Bytes int64  `json:"bytes"` // of them, those that are there
	Put   bool   `json:"put"`   // kept until it is deleted; false: a copy
	Held  bool   `json:"held"`  // somebody reads it
	Path  string `json:"path"`  // of the file that it is in
	At    int64  `json:"offset"`
}

// CacheEvict says which copies are to be dropped. One of Chunks, Bytes and All is set.
type CacheEvict struct {
	Device string   `json:"path,omitempty"` // of a device; none: all
	Chunks []string `json:"chunks,omitempty"`
	Bytes  int64    `json:"bytes,omitempty"` // so much room at least, first of what was not read lately
	All    bool     `json:"all,omitempty"`
}

// CacheEvicted is what was dropped.
type CacheEvicted struct {
	Chunks  int64 `json:"chunks"`
	Bytes   int64 `json:"bytes"`   // their room
	Put     int64 `json:"put"`     // of the chunks that were named: those that are no copies; they stay
	Missing int64 `json:"missing"` // of the chunks that were named: those that are not there
}

// CacheLimit changes the limit of a device.
type CacheLimit struct {
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
}

func (h *handler) cache(ctx *fasthttp.RequestCtx, _ string) error {
	return answer(ctx, h.node.Cache().filledIn())
}

// filledIn is the same without a null.
func (c Cache) filledIn() Cache {
	c.Devices = slices.Clone(c.Devices)
	fillIn(&c.Devices)
	fillIn(&c.Events)
	for i := range c.Devices {
		d := &c.Devices[i]
		fillIn(&d.Classes)
		fillIn(&d.Syncs.UpTo)
		fillIn(&d.Syncs.Buckets)
		fillIn(&d.Scrub.Damaged)
		for _, counts := range []*map[string]int64{&d.Errors, &d.Events} {
			if *counts == nil {
				*counts = map[string]int64{}
			}
		}
	}
	return c
}

func (h *handler) cacheChunks(ctx *fasthttp.RequestCtx, _ string) error {
	request, err := cachePageRequest(ctx)
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(h.ctx, requestTimeout)
	defer cancel()
	page, err := h.node.CacheChunks(bounded, request)
	if err != nil {
		return err
	}
	fillIn(&page.Chunks)
	return answer(ctx, page)
}

// cachePageQuery are the parameters of a page.
func cachePageQuery() []string { return []string{"after", "limit", "prefix"} }

// chunkDigits is the length of a chunk's id, in hexadecimal digits.
const chunkDigits = 64

// cachePageRequest reads the query.
func cachePageRequest(ctx *fasthttp.RequestCtx) (CachePageRequest, error) {
	request := CachePageRequest{Limit: CachePageUsual}
	wrong := func(what string) (CachePageRequest, error) {
		problem := newProblem(CodeInvalid, what, "?"+clipped(ctx.URI().QueryString()),
			fmt.Sprintf("give after=ID, limit=1 to %d and prefix=DIGITS, each at most once", CachePageMax))
		return CachePageRequest{}, &problem
	}
	query, err := url.ParseQuery(string(ctx.URI().QueryString()))
	if err != nil {
		return wrong("the query cannot be read")
	}
	for name, values := range query {
		value := values[0]
		switch {
		case !slices.Contains(cachePageQuery(), name):
			return wrong("this path takes no query parameter of that name")
		case len(values) > 1:
			return wrong("a query parameter is given twice")
		case name == "limit":
			if request.Limit, err = strconv.Atoi(value); err != nil || request.Limit < 1 || request.Limit > CachePageMax {
				return wrong("limit is out of range")
			}
		case name == "after":
			if request.After = value; !isHexadecimal(value) || len(value) != chunkDigits {
				return wrong("after is no chunk's id")
			}
		default:
			if request.Prefix = value; !isHexadecimal(value) || len(value) > chunkDigits {
				return wrong("prefix is not the beginning of a chunk's id")
			}
		}
	}
	return request, nil
}

// isHexadecimal reports whether text is one or more hexadecimal digits.
func isHexadecimal(text string) bool {
	_, err := hex.DecodeString(text + text) // an even number of them
	return err == nil && text != ""
}

func (h *handler) evictCache(ctx *fasthttp.RequestCtx, _ string) error {
	var request CacheEvict
	if err := readBody(ctx, &request); err != nil {
		return err
	}
	for _, id := range request.Chunks {
		if !isHexadecimal(id) || len(id) != chunkDigits {
			problem := newProblem(CodeInvalid, "this is no chunk's id", clipped([]byte(id)), "give 64 hexadecimal digits, as GET /v1/cache/chunks does")
			return &problem
		}
	}
	bounded, cancel := context.WithTimeout(h.ctx, requestTimeout)
	defer cancel()
	evicted, err := h.node.EvictCache(bounded, request)
	if err != nil {
		return err
	}
	return answer(ctx, evicted)
}

func (h *handler) limitCache(ctx *fasthttp.RequestCtx, _ string) error {
	var request CacheLimit
	if err := readBody(ctx, &request); err != nil {
		return err
	}
	limited, err := h.node.LimitCache(request)
	if err != nil {
		return err
	}
	return answer(ctx, limited.filledIn())
}
