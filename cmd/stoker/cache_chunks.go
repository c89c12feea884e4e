package main

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/loader/config"
)

// Kinds of chunks: the values of --kind.
const (
	chunksAll    = "all"
	chunksPut    = "put"
	chunksCopies = "copies"
)

func (a *app) cacheListCommand() *cobra.Command {
	var directory, kind string
	command := &cobra.Command{
		Use:     "ls [ID]",
		Aliases: []string{"list"},
		Short:   "List the chunks on flash",
		Long: `List the chunks on flash in the order of their ids, all or those whose ids begin with
some digits. With --json there is one line for each chunk.`,
		Example: `  stoker cache ls
  stoker cache ls 3f9a
  stoker cache ls --kind put --json`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeChunk,
		RunE: func(command *cobra.Command, args []string) error {
			prefix, err := idPrefix(strings.Join(args, ""))
			if err != nil {
				return err
			}
			return a.withCache(command.Context(), directory, func(c cache) error { return a.listChunks(command.Context(), c, prefix, kind) })
		},
	}
	a.addChoice(command, &kind, "kind", chunksAll, "which chunks", []string{chunksAll, chunksPut, chunksCopies})
	a.addDirectory(command, &directory)
	a.addJSON(command)
	return command
}

// chunkLine is a chunk's line: digits of the id, as widths do not vary.
const chunkLine = "%-64s  %9s  %9s  %-4s  %12s  %s\n"

// listChunks writes chunks as they come: there may be millions.
func (a *app) listChunks(ctx context.Context, c cache, prefix, kind string) error {
	out := bufio.NewWriter(a.out)
	lines := 0
	err := c.each(ctx, prefix, func(e api.CacheEntry) error {
		if kind == chunksPut && !e.Put || kind == chunksCopies && e.Put {
			return nil
		}
		if lines++; a.json {
			return writeLine(out, e)
		}
		if lines == 1 {
			fmt.Fprintf(out, chunkLine, "ID", "SIZE", "THERE", "KIND", "OFFSET", "FILE")
		}
		_, err := fmt.Fprintf(out, chunkLine, printable(e.ID), humanBytes(e.Size), humanBytes(e.Bytes), chunkKind(&e), grouped(e.At), printable(e.Path))
		return err
	})
	if err == nil && lines == 0 && !a.json {
		_, err = fmt.Fprintln(out, "no such chunks")
	}
	if flushed := out.Flush(); err == nil {
		err = flushed
	}
	return err
}

// chunkKind is what a chunk is to the store.
func chunkKind(e *api.CacheEntry) string {
	if e.Put {
		return "put"
	}
	return "copy"
}

func (a *app) cachePathCommand() *cobra.Command {
	var directory string
	command := &cobra.Command{
		Use:   "path ID",
		Short: "Say where on flash a chunk is",
		Long: `Say in which file, and where in it, a chunk is: its id, or as many of its digits as
only one chunk has. What is there may be dropped, and another chunk written there, as
soon as it was said.`,
		Example:           `  stoker cache path 3f9a0c`,
		Args:              exactly("ID"),
		ValidArgsFunction: a.completeChunk,
		RunE: func(command *cobra.Command, args []string) error {
			return a.withCache(command.Context(), directory, func(c cache) error { return a.writePath(command.Context(), c, args[0]) })
		},
	}
	a.addDirectory(command, &directory)
	a.addJSON(command)
	return command
}

func (a *app) writePath(ctx context.Context, c cache, id string) error {
	e, err := oneChunk(ctx, c, id)
	if err != nil {
		return err
	}
	if a.json {
		return a.writeJSON(e)
	}
	there := ""
	if e.Bytes < e.Size {
		there = ", of which " + grouped(e.Bytes) + " are there"
	}
	_, err = fmt.Fprintf(a.out, "%s\n  offset %s, %s bytes%s; chunk %s, %s\n", printable(e.Path), grouped(e.At), grouped(e.Size), there, printable(e.ID), chunkKind(&e))
	return err
}

// idPrefix checks the beginning of an id.
func idPrefix(text string) (string, error) {
	text = strings.ToLower(text)
	if len(text) > 64 || strings.Trim(text, "0123456789abcdef") != "" {
		return "", &failure{Code: "usage", What: "this is not the beginning of a chunk's id: " + text,
			Remedy: "give up to 64 hexadecimal digits; stoker cache ls lists ids", exit: exitUsage}
	}
	return text, nil
}

// oneChunk finds the chunk whose id begins so, and none other's.
func oneChunk(ctx context.Context, c cache, id string) (found api.CacheEntry, err error) {
	prefix, err := idPrefix(id)
	if err != nil {
		return found, err
	}
	if prefix == "" {
		return found, &failure{Code: "usage", What: "no id is given", Remedy: "give the id of a chunk, or its first digits; stoker cache ls lists ids", exit: exitUsage}
	}
	matches := 0
	err = c.each(ctx, prefix, func(e api.CacheEntry) error {
		found = e
		matches++
		return nil
	})
	switch {
	case err != nil:
		return found, err
	case matches == 0:
		return found, &failure{Code: string(api.CodeNotFound), What: "no such chunk on flash", Where: "chunk " + id,
			Remedy: "stoker cache ls lists those that are there", exit: exitError}
	case matches > 1:
		return found, &failure{Code: string(api.CodeInvalid), What: "ids of " + counted(int64(matches), "chunk", "chunks") + " begin so", Where: "chunk " + id,
			Remedy: "give more digits; stoker cache ls " + id + " lists them", exit: exitError}
	}
	return found, nil
}

func (a *app) cacheEvictCommand() *cobra.Command {
	var directory, size string
	var request api.CacheEvict
	command := &cobra.Command{
		Use:   "evict [ID ...]",
		Short: "Drop copies from flash",
		Long: `Drop copies of what origins have: some by their ids, so many bytes of those that were
not read lately, or all. They are fetched again when they are needed. What was put stays.
Of chunks that are named, and with --all, what somebody reads at the moment is dropped as
well, and its room is free when the read is done.`,
		Example: `  stoker cache evict 3f9a0c
  stoker cache evict --bytes 100GiB
  stoker cache evict --all --device /mnt/nvme0/stoker`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeChunk,
		RunE: func(command *cobra.Command, args []string) (err error) {
			if request.Bytes, err = evictBytes(size, args, request.All); err != nil {
				return err
			}
			return a.withCache(command.Context(), directory, func(c cache) error { return a.evict(command.Context(), c, request, args) })
		},
	}
	flags := command.Flags()
	flags.StringVar(&size, "bytes", "", "make so much room at least, such as 100GiB")
	flags.BoolVar(&request.All, "all", false, "drop every copy")
	flags.StringVar(&request.Device, "device", "", "only on the device with this path")
	a.must(command.MarkFlagDirname("device"))
	a.addDirectory(command, &directory)
	a.addJSON(command)
	return command
}

// evictBytes reads --bytes, and takes care that one thing is asked for.
func evictBytes(size string, ids []string, all bool) (int64, error) {
	asked := 0
	for _, is := range []bool{size != "", len(ids) > 0, all} {
		if is {
			asked++
		}
	}
	if asked != 1 {
		return 0, &failure{Code: "usage", What: "say what to drop", Remedy: "give ids of chunks, --bytes or --all, one of them", exit: exitUsage}
	}
	if size == "" {
		return 0, nil
	}
	bytes, err := config.ParseBytes(size)
	if err != nil || bytes < 1 {
		return 0, &failure{Code: "usage", What: "--bytes " + size + " is no size", Remedy: "give a size such as 64mb or 100GiB", exit: exitUsage}
	}
	return int64(bytes), nil
}

func (a *app) evict(ctx context.Context, c cache, request api.CacheEvict, ids []string) error {
	for _, id := range ids {
		e, err := oneChunk(ctx, c, id)
		if err != nil {
			return err
		}
		if e.Put {
			return &failure{Code: string(api.CodeConflict), What: "the chunk was put: it is no copy", Where: "chunk " + e.ID,
				Remedy: "only copies are dropped; leave it out", exit: exitError}
		}
		request.Chunks = append(request.Chunks, e.ID)
	}
	done, err := c.evict(ctx, request)
	if err != nil {
		return err
	}
	if a.json {
		return a.writeJSON(done)
	}
	gone := ""
	if done.Missing > 0 {
		gone = fmt.Sprintf("; %s gone already", grouped(done.Missing))
	}
	_, err = fmt.Fprintf(a.out, "dropped %s, %s of room%s\n", counted(done.Chunks, "copy", "copies"), humanBytes(done.Bytes), gone)
	return err
}

// idsOffered is how many ids a shell is given.
const idsOffered = 50

// completeChunk asks the daemon for ids.
func (a *app) completeChunk(command *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	prefix, err := idPrefix(typed)
	if err != nil || len(args) > 0 && command.Name() != "evict" {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(command.Context(), completionPatience)
	defer cancel()
	c, err := a.connect(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer c.close()
	query := map[string][]string{"limit": {fmt.Sprint(idsOffered)}}
	if prefix != "" {
		query["prefix"] = []string{prefix}
	}
	page, _ := daemonCache{c}.page(ctx, query)
	ids := make([]string, 0, len(page.Chunks))
	for i := range page.Chunks {
		e := &page.Chunks[i]
		ids = append(ids, cobra.CompletionWithDesc(e.ID, chunkKind(e)+", "+humanBytes(e.Size)))
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}
