package loader

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/flash"
	"github.com/stokerio/stoker/loader/api"
)

// cache is the chunks that the node keeps on flash. Sessions do not read through it: it is
// opened, watched and looked after.
type cache struct {
	store *flash.Store // nil: no devices are configured

	mu struct {
		sync.Mutex
		events []api.CacheEvent // the last ones, the newest last
	}
}

// open opens the devices, if there are any. close must follow.
func (c *cache) open(options flash.Options, log *slog.Logger) error {
	if len(options.Devices) == 0 {
		return nil
	}
	options.Logger, options.Event = log, c.note
	began := time.Now()
	store, err := flash.Open(context.Background(), options)
	if err != nil {
		return fmt.Errorf("%w; give it a directory that can be used, or take flash.devices out of the configuration", err)
	}
	c.store = store
	for _, d := range store.Stats().Devices {
		log.Info("flash device", "device", d.Path, "state", d.State, "limit", d.LimitBytes, "put", d.Put.Chunks, "filled", d.Filled.Chunks,
			"bytes", d.Put.Bytes+d.Filled.Bytes, "took", time.Since(began).Round(time.Millisecond))
	}
	return nil
}

// close makes what was filled durable, and closes the devices.
func (c *cache) close() error {
	if c.store == nil {
		return nil
	}
	if err := c.store.Close(); err != nil {
		return fmt.Errorf("close the flash devices: %w", err)
	}
	return nil
}

// note keeps an event; the store has logged it.
func (c *cache) note(e flash.Event) {
	kept := api.CacheEvent{At: time.Now(), Kind: string(e.Kind), Device: e.Device, Segment: e.Segment, Block: e.Block, Detail: e.Detail}
	if e.Chunk != (backend.ChunkID{}) {
		kept.Chunk = digits(e.Chunk)
	}
	if e.Err != nil {
		kept.Error = e.Err.Error()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.mu.events) == api.CacheEventsKept {
		c.mu.events = slices.Delete(c.mu.events, 0, 1)
	}
	c.mu.events = append(c.mu.events, kept)
}

// devices describes the devices, those that could not be opened too.
func (c *cache) devices() []api.CacheDevice {
	if c.store == nil {
		return nil
	}
	all := c.store.Stats().Devices
	described := make([]api.CacheDevice, len(all))
	for i := range all {
		described[i] = apiCacheDevice(&all[i])
	}
	return described
}

// Cache implements api.Node.
func (n *Node) Cache() api.Cache {
	described := api.Cache{Devices: n.cache.devices()}
	n.cache.mu.Lock()
	defer n.cache.mu.Unlock()
	described.Events = slices.Clone(n.cache.mu.events)
	slices.Reverse(described.Events)
	return described
}

// CacheChunks implements api.Node.
func (n *Node) CacheChunks(ctx context.Context, request api.CachePageRequest) (api.CachePage, error) {
	if n.cache.store == nil {
		return api.CachePage{}, nil
	}
	r := flash.PageRequest{Prefix: request.Prefix, Limit: request.Limit}
	if request.After != "" {
		if err := r.After.UnmarshalText([]byte(request.After)); err != nil {
			return api.CachePage{}, notAnID(request.After, err)
		}
	}
	found, err := n.cache.store.Page(ctx, r)
	if err != nil {
		return api.CachePage{}, cacheError(err)
	}
	page := api.CachePage{Chunks: make([]api.CacheEntry, len(found.Chunks))}
	for i, e := range found.Chunks {
		page.Chunks[i] = api.CacheEntry{ID: digits(e.ID), Size: e.Size, Bytes: e.Bytes, Put: e.Put, Held: e.Held, Path: e.Path, At: e.At}
	}
	if found.Next != (backend.ChunkID{}) {
		page.Next = digits(found.Next)
	}
	return page, nil
}

// EvictCache implements api.Node.
func (n *Node) EvictCache(ctx context.Context, request api.CacheEvict) (api.CacheEvicted, error) {
	if n.cache.store == nil {
		return api.CacheEvicted{}, errNoFlash(request.Device)
	}
	e := flash.Evict{Device: request.Device, Bytes: request.Bytes, All: request.All, Chunks: make([]backend.ChunkID, len(request.Chunks))}
	for i, id := range request.Chunks {
		if err := e.Chunks[i].UnmarshalText([]byte(id)); err != nil {
			return api.CacheEvicted{}, notAnID(id, err)
		}
	}
	dropped, err := n.cache.store.Evict(ctx, e)
	if err != nil {
		return api.CacheEvicted{}, cacheError(err)
	}
	n.log.Info("copies dropped from flash", "device", cmp.Or(request.Device, "all"), "chunks", dropped.Chunks, "bytes", dropped.Bytes)
	return api.CacheEvicted(dropped), nil
}

// LimitCache implements api.Node.
func (n *Node) LimitCache(request api.CacheLimit) (api.Cache, error) {
	if n.cache.store == nil {
		return api.Cache{}, errNoFlash(request.Path)
	}
	if err := n.cache.store.SetLimit(request.Path, request.Bytes); err != nil {
		return api.Cache{}, cacheError(err)
	}
	n.log.Info("limit of a flash device changed", "device", request.Path, "limit", request.Bytes)
	return n.Cache(), nil
}

func errNoFlash(device string) error {
	return &api.Error{Code: api.CodeNotFound, What: "this daemon keeps nothing on flash", Where: device, Remedy: "give it flash.devices in its configuration"}
}

func notAnID(text string, err error) error {
	return &api.Error{Code: api.CodeInvalid, What: err.Error(), Where: clip(text), Remedy: "`stoker cache ls` lists chunks", Err: err}
}

// cacheError is what a client is told of an error of the store.
func cacheError(err error) error {
	var e *backend.Error
	if !errors.As(err, &e) {
		return err
	}
	return &api.Error{
		Code: api.Code(e.Kind), What: cmp.Or(e.Detail, err.Error()), Where: e.Object, Err: err,
		Remedy: cmp.Or(backend.RemedyOf(err), cacheRemedies[e.Kind], "see the daemon's log"),
	}
}

// cacheRemedies say what to do about an error of the store that does not say so itself.
var cacheRemedies = map[backend.Kind]string{
	backend.NotFound:   "`stoker cache stat` lists the devices",
	backend.OutOfRange: "see /v1/openapi.json for what can be asked for",
}

// digits is a chunk's id in full.
func digits(id backend.ChunkID) string { return hex.EncodeToString(id[:]) }

func apiCacheDevice(d *flash.DeviceStats) api.CacheDevice {
	described := api.CacheDevice{
		Path: d.Path, State: d.State, LimitBytes: d.LimitBytes, Full: d.Full, Segments: int64(d.Segments), Retired: int64(d.Retired),
		EvictedTotal: d.EvictedTotal, EvictedBytes: d.EvictedBytes, Put: api.CacheChunks(d.Put), Filled: api.CacheChunks(d.Filled),
		Room: api.CacheRoom(d.Room), Reads: api.CacheReads(d.Reads), Writes: api.CacheWrites(d.Writes), Syncs: api.CacheLatencies(d.Syncs),
		Errors: d.Errors, Events: make(map[string]int64, len(d.Events)), Scrub: apiCacheScrub(&d.Scrub),
	}
	for _, class := range d.Classes {
		described.Classes = append(described.Classes, api.CacheClass(class))
	}
	for kind, count := range d.Events {
		described.Events[string(kind)] = count
	}
	return described
}

func apiCacheScrub(s *flash.ScrubStats) api.CacheScrub {
	described := api.CacheScrub{
		Running: s.Running, BytesPerSecond: s.BytesPerSecond, Passes: s.Passes, Began: moment(s.Began), Share: s.Share, This: api.CacheFindings(s.This),
		Ended: moment(s.Ended), Last: api.CacheFindings(s.Last),
	}
	for _, b := range s.Damaged {
		described.Damaged = append(described.Damaged, api.CacheDamage{
			Chunk: digits(b.Chunk), Put: b.Put, Unreadable: b.Unreadable, Segment: b.Segment, Block: b.Block, Found: b.Found,
		})
	}
	return described
}

// moment is nil for no time.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
