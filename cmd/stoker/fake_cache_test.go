package main

import (
	"context"
	"fmt"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/flash"
	"github.com/stokerio/stoker/loader/api"
)

// Cache is fixed.
func (n *fakeNode) Cache() api.Cache { return n.cache }

// CacheChunks returns a page of at most two chunks, so that there are several.
func (n *fakeNode) CacheChunks(ctx context.Context, request api.CachePageRequest) (answer api.CachePage, err error) {
	if n.flash == nil {
		return answer, nil
	}
	r := flash.PageRequest{Prefix: request.Prefix, Limit: min(2, request.Limit)}
	if request.After != "" {
		mustRecast(request.After, &r.After)
	}
	page, err := n.flash.Page(ctx, r)
	mustRecast(page, &answer)
	return answer, err
}

// EvictCache drops copies.
func (n *fakeNode) EvictCache(ctx context.Context, request api.CacheEvict) (api.CacheEvicted, error) {
	if n.flash == nil {
		return api.CacheEvicted{}, &api.Error{Code: api.CodeNotFound, What: "no flash is configured"}
	}
	var own flash.Evict
	mustRecast(request, &own)
	done, err := n.flash.Evict(ctx, own)
	if backend.KindOf(err) == backend.NotFound {
		return api.CacheEvicted{}, &api.Error{Code: api.CodeNotFound, What: "no such device", Where: request.Device, Remedy: "`stoker cache stat` lists the devices"}
	}
	return api.CacheEvicted(done), err
}

// LimitCache changes nothing.
func (n *fakeNode) LimitCache(request api.CacheLimit) (api.Cache, error) {
	for i := range n.cache.Devices {
		if n.cache.Devices[i].Path == request.Path {
			n.cache.Devices[i].LimitBytes = request.Bytes
			return n.Cache(), nil
		}
	}
	return api.Cache{}, &api.Error{Code: api.CodeNotFound, What: "no such device", Where: request.Path}
}

func mustRecast(from, to any) {
	if err := recast(from, to); err != nil {
		panic(fmt.Sprintf("%T has not the JSON of %T: %v", from, to, err))
	}
}
