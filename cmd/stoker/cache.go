package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/flash"
	"github.com/stokerio/stoker/loader/api"
)

func (a *app) cacheCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "cache",
		Short: "Look at, thin out, check and repair what is kept on flash",
		Long: `Look at, thin out, check and repair what is kept on flash: the directories that
stokerd is configured with under "flash".

A directory belongs to one program at a time. While stokerd has it, these commands ask
stokerd; with --dir they open a directory themselves, which stokerd must not have. Only
check always opens a directory itself, and limit always asks stokerd.`,
		Args: cobra.NoArgs,
		RunE: showHelp,
	}
	command.AddCommand(a.cacheStatCommand(), a.cacheListCommand(), a.cachePathCommand(), a.cacheEvictCommand(), a.cacheLimitCommand(), a.cacheCheckCommand())
	return command
}

// cache is what is kept on flash: in the daemon's hands, or in this program's.
type cache interface {
	// stats says what there is.
	stats(ctx context.Context) (api.Cache, error)
	// each calls visit for chunks whose ids begin with prefix, in the order of ids.
	each(ctx context.Context, prefix string, visit func(api.CacheEntry) error) error
	evict(ctx context.Context, request api.CacheEvict) (api.CacheEvicted, error)
	close() error
}

// addDirectory gives a verb its --dir.
func (a *app) addDirectory(command *cobra.Command, directory *string) {
	command.Flags().StringVar(directory, "dir", "", "open this directory, which stokerd must not have, instead of asking stokerd")
	a.must(command.MarkFlagDirname("dir"))
}

// openCache opens a directory, or for none asks for the daemon's.
func (a *app) openCache(ctx context.Context, directory string) (cache, error) {
	if directory != "" {
		return a.openFlash(ctx, directory)
	}
	c, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	return daemonCache{c}, nil
}

// withCache calls do with a cache that it closes.
func (a *app) withCache(ctx context.Context, directory string, do func(c cache) error) error {
	c, err := a.openCache(ctx, directory)
	if err != nil {
		return err
	}
	return errors.Join(do(c), c.close())
}

// daemonCache is that of a running daemon.
type daemonCache struct{ client *client }

func (c daemonCache) close() error {
	c.client.close()
	return nil
}

func (c daemonCache) stats(ctx context.Context) (stats api.Cache, err error) {
	return stats, c.client.get(ctx, &stats, "v1", "cache")
}

func (c daemonCache) each(ctx context.Context, prefix string, visit func(api.CacheEntry) error) error {
	query := url.Values{"limit": {strconv.Itoa(api.CachePageMax)}}
	if prefix != "" {
		query.Set("prefix", prefix)
	}
	for {
		page, err := c.page(ctx, query)
		if err != nil {
			return err
		}
		for i := range page.Chunks {
			if err := visit(page.Chunks[i]); err != nil {
				return err
			}
		}
		if page.Next == "" {
			return nil
		}
		query.Set("after", page.Next)
	}
}

func (c daemonCache) page(ctx context.Context, query url.Values) (page api.CachePage, err error) {
	body, err := c.client.stream(ctx, query, "v1", "cache", "chunks")
	if err != nil {
		return page, err
	}
	defer body.Close()
	if err := json.NewDecoder(io.LimitReader(body, answerBytesMax)).Decode(&page); err != nil {
		return page, fmt.Errorf("read the daemon's answer for v1/cache/chunks: %w", err)
	}
	return page, nil
}

// evictAtOnce is how many chunks one request names: a request has at most 64 KiB.
const evictAtOnce = 500

func (c daemonCache) evict(ctx context.Context, request api.CacheEvict) (all api.CacheEvicted, err error) {
	chunks := request.Chunks
	for {
		request.Chunks = chunks[:min(len(chunks), evictAtOnce)]
		chunks = chunks[len(request.Chunks):]
		var some api.CacheEvicted
		if err := c.client.send(ctx, http.MethodPost, request, &some, "v1", "cache", "evict"); err != nil {
			return all, err
		}
		all.Chunks, all.Bytes, all.Put, all.Missing = all.Chunks+some.Chunks, all.Bytes+some.Bytes, all.Put+some.Put, all.Missing+some.Missing
		if len(chunks) == 0 {
			return all, nil
		}
	}
}

// flashCache is a directory that this program has open.
type flashCache struct{ store *flash.Store }

// openFlash opens a directory of chunks. It makes none.
func (a *app) openFlash(ctx context.Context, directory string) (cache, error) {
	if _, err := os.Stat(filepath.Join(directory, "format.json")); err != nil {
		return nil, notFlash(directory, err)
	}
	s, err := flash.Open(ctx, flash.Options{
		Devices: []flash.Device{{Path: directory, LimitBytes: flash.Unlimited}}, ScrubBytesPerSecond: -1, Event: func(e flash.Event) { a.warnFlash(&e) },
	})
	if err != nil {
		return nil, flashFailure(directory, err)
	}
	return flashCache{s}, nil
}

// warnFlash says on standard error what is damaged in a directory that is opened. What
// concerns the whole device, stokerd says, or is the error of the command.
func (a *app) warnFlash(e *flash.Event) {
	switch e.Kind {
	case flash.DeviceWarning, flash.DeviceFull, flash.DeviceReadOnly, flash.DeviceFailed, flash.ScrubDone:
		return
	}
	where, why := e.Device, e.Detail
	if e.Segment != "" {
		where = e.Segment
	}
	if e.Err != nil {
		why = strings.TrimPrefix(why+": "+e.Err.Error(), ": ")
	}
	fmt.Fprintf(a.err, "stoker: %s\n  where: %s\n  why:   %s\n", strings.ReplaceAll(string(e.Kind), "_", " "), printable(where), printable(why))
}

func notFlash(directory string, err error) *failure {
	f := &failure{Code: string(api.CodeNotFound), What: "this is no directory of flash chunks", Where: directory, exit: exitError}
	if err != nil {
		f.Why = err.Error()
	}
	f.Remedy = `give a directory that stokerd is configured with under "flash"; stoker cache stat names those of a running stokerd. If its format.json is lost: stoker cache check ` + directory
	return f
}

// flashFailure is an error of opening a directory.
func flashFailure(directory string, err error) *failure {
	f := &failure{Code: string(api.CodeUnavailable), What: "the directory cannot be opened", Where: directory, Why: err.Error(), exit: exitError}
	switch {
	case errors.Is(err, flash.ErrLocked):
		f.Code, f.What = string(api.CodeConflict), "a program has the directory open"
		f.Remedy = "if it is stokerd: leave --dir out, or stop it first; a check needs it stopped"
	case errors.Is(err, flash.ErrNoFlash):
		return notFlash(directory, nil)
	case errors.Is(err, os.ErrNotExist):
		f.Code = string(api.CodeNotFound)
	case errors.Is(err, os.ErrPermission):
		f.Code, f.Remedy = string(api.CodePermission), "run it as the user of stokerd"
	default:
		f.Remedy = "stoker cache check " + directory + " says what is damaged"
	}
	return f
}

func (c flashCache) close() error { return c.store.Close() }

// stats leaves the limit out: it is in stokerd's configuration.
func (c flashCache) stats(context.Context) (stats api.Cache, err error) {
	own := c.store.Stats()
	for i := range own.Devices {
		own.Devices[i].LimitBytes = 0
	}
	stats.Events = []api.CacheEvent{}
	return stats, recast(own, &stats)
}

func (c flashCache) each(ctx context.Context, prefix string, visit func(api.CacheEntry) error) error {
	r := flash.PageRequest{Prefix: prefix}
	for {
		page, err := c.store.Page(ctx, r)
		if err != nil {
			return err
		}
		var answer api.CachePage
		if err := recast(page, &answer); err != nil {
			return err
		}
		for i := range answer.Chunks {
			if err := visit(answer.Chunks[i]); err != nil {
				return err
			}
		}
		if r.After = page.Next; r.After == (backend.ChunkID{}) {
			return nil
		}
	}
}

func (c flashCache) evict(ctx context.Context, request api.CacheEvict) (done api.CacheEvicted, err error) {
	var own flash.Evict
	if err := recast(request, &own); err != nil {
		return done, err
	}
	evicted, err := c.store.Evict(ctx, own)
	return api.CacheEvicted(evicted), err
}

// recast gives a value of the store the API's type, and the other way round: they have
// the same JSON.
func recast(from, to any) error {
	text, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, to)
}
