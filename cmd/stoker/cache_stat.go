package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stokerio/stoker/loader/api"
)

func (a *app) cacheStatCommand() *cobra.Command {
	var directory string
	var classes bool
	command := &cobra.Command{
		Use:   "stat",
		Short: "Show what each flash device holds, and how it fares",
		Long: `Show what each flash device holds and what takes its room, what was read and written
since it was opened, how long syncs take, its errors, and how far the scrubber is.

Puts are chunks that are kept until they are deleted; copies, of what an origin has, are
dropped when room is needed, first those that nobody read lately. Of the room, padding
(extents are larger than their chunks), free extents (which take chunks of one size only)
and what is lost is the price of fragmentation.`,
		Example: `  stoker cache stat
  stoker cache stat --classes
  stoker cache stat --dir /mnt/nvme0/stoker --json`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return a.withCache(command.Context(), directory, func(c cache) error {
				stats, err := c.stats(command.Context())
				if err != nil {
					return err
				}
				if a.json {
					return a.writeJSON(stats)
				}
				return a.writeCache(&stats, classes)
			})
		},
	}
	command.Flags().BoolVar(&classes, "classes", false, "show the size classes as well")
	a.addDirectory(command, &directory)
	a.addJSON(command)
	return command
}

func (a *app) writeCache(stats *api.Cache, classes bool) error {
	if len(stats.Devices) == 0 {
		_, err := fmt.Fprintln(a.out, "no flash: stokerd is configured with no directory for it")
		return err
	}
	for i := range stats.Devices {
		d := &stats.Devices[i]
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		fmt.Fprintf(a.out, "%s: %s\n", printable(d.Path), strings.ReplaceAll(printable(d.State), "_", "-"))
		if err := table(a.out, deviceRows(d)); err != nil {
			return err
		}
		if classes && len(d.Classes) > 0 {
			fmt.Fprintln(a.out)
			if err := table(a.out, classRows(d.Classes)); err != nil {
				return err
			}
		}
	}
	return nil
}

// deviceRows describe a device. What is nothing is left out.
func deviceRows(d *api.CacheDevice) [][]string {
	rows := [][]string{{"  holds", fmt.Sprintf("%s, %s; %s, %s", counted(d.Put.Chunks, "put", "puts"), humanBytes(d.Put.Bytes),
		counted(d.Filled.Chunks, "copy", "copies"), humanBytes(d.Filled.Bytes))}}
	add := func(name, text string) { rows = append(rows, []string{"  " + name, text}) }
	add("takes", takes(d))
	if d.Room.UsedBytes > 0 {
		add("room", roomOf(&d.Room))
	}
	if d.Reads.Reads > 0 {
		add("read", fmt.Sprintf("%s in %s; checked %s", humanBytes(d.Reads.Bytes), counted(d.Reads.Reads, "read", "reads"), humanBytes(d.Reads.CheckedBytes)))
	}
	if d.Writes.Writes > 0 {
		add("written", fmt.Sprintf("%s in %s; with padding and records at most %s times that", humanBytes(d.Writes.PayloadBytes),
			counted(d.Writes.Writes, "write", "writes"), strconv.FormatFloat(d.Writes.Amplification, 'f', 3, 64)))
	}
	if d.EvictedTotal > 0 {
		add("dropped", fmt.Sprintf("%s, %s", counted(d.EvictedTotal, "copy", "copies"), humanBytes(d.EvictedBytes)))
	}
	if d.Syncs.Count > 0 {
		add("syncs", syncsOf(&d.Syncs))
	}
	if len(d.Errors) > 0 {
		add("errors", tallied(d.Errors))
	}
	if len(d.Events) > 0 {
		add("events", tallied(d.Events))
	}
	add("scrub", scrubOf(&d.Scrub))
	return append(rows, damagedRows(d.Scrub.Damaged)...)
}

// damagedShown is how many chunks that were put and are damaged are named.
const damagedShown = 5

// damagedRows name what the scrubber found that is nowhere else.
func damagedRows(damaged []api.CacheDamage) (rows [][]string) {
	for i := range damaged {
		x := &damaged[i]
		if !x.Put || len(rows) == damagedShown {
			continue
		}
		what := "corrupt"
		if x.Unreadable {
			what = "unreadable"
		}
		rows = append(rows, []string{"  damaged", fmt.Sprintf("put %s, block %d: %s, found %s", printable(x.Chunk), x.Block, what, x.Found.UTC().Format(time.DateTime))})
	}
	return rows
}

// takes says what a device's files take of what they may.
func takes(d *api.CacheDevice) string {
	text := humanBytes(d.Room.UsedBytes)
	if d.LimitBytes > 0 {
		text += " of " + humanBytes(d.LimitBytes)
	}
	text += " in " + counted(d.Segments, "segment", "segments")
	if d.Retired > 0 {
		text += fmt.Sprintf(", %s to which nothing is written any more", grouped(d.Retired))
	}
	if d.Full {
		text += "; the file system has no room for more"
	}
	return text
}

// roomOf says what the room of a device is used for.
func roomOf(r *api.CacheRoom) string {
	var parts []string
	for _, part := range []struct {
		name  string
		bytes int64
	}{
		{"chunks", r.ChunkBytes}, {"padding", r.PaddingBytes}, {"free extents", r.FreeExtentBytes}, {"free spans", r.FreeSpanBytes},
		{"busy", r.BusyBytes}, {"lost", r.LostBytes}, {"headers and ledgers", r.OwnBytes},
	} {
		if part.bytes > 0 {
			parts = append(parts, part.name+" "+exactPercent(float64(part.bytes)/float64(r.UsedBytes)))
		}
	}
	return strings.Join(parts, ", ")
}

// syncsOf says how long syncs take: the mean, and a bound for 99 of 100.
func syncsOf(l *api.CacheLatencies) string {
	text := fmt.Sprintf("%s, %.1f ms on average", grouped(l.Count), l.SumSeconds/float64(l.Count)*1e3)
	behind := l.Count
	for i, n := range l.Buckets {
		behind -= n
		if behind*100 <= l.Count && i < len(l.UpTo) {
			return text + fmt.Sprintf(", 99 %% in at most %.3g ms", l.UpTo[i]*1e3)
		}
	}
	return text
}

// tallied writes counts, the greatest first: "read 3, sync 1".
func tallied(counts map[string]int64) string {
	names := make([]string, 0, len(counts))
	for name := range counts {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		if counts[a] != counts[b] {
			return int(min(1, max(-1, counts[b]-counts[a])))
		}
		return strings.Compare(a, b)
	})
	for i, name := range names {
		names[i] = printable(strings.ReplaceAll(name, "_", " ")) + " " + grouped(counts[name])
	}
	return strings.Join(names, ", ")
}

// scrubOf says how far the scrubber is, and what it found.
func scrubOf(s *api.CacheScrub) string {
	var parts []string
	switch {
	case s.Began != nil:
		parts = append(parts, fmt.Sprintf("pass %s at %s, found %s", grouped(s.Passes+1), share(s.Share), scrubbed(&s.This)))
	case s.Ended == nil:
		parts = append(parts, "not yet")
	}
	if s.Ended != nil {
		parts = append(parts, fmt.Sprintf("the last pass ended %s, found %s", s.Ended.UTC().Format(time.DateTime), scrubbed(&s.Last)))
	}
	return strings.Join(parts, "; ")
}

// scrubbed says what a pass found.
func scrubbed(f *api.CacheFindings) string {
	var parts []string
	for _, part := range []struct {
		n         int64
		one, many string
	}{
		{f.CorruptPuts, "corrupt block of a put", "corrupt blocks of puts"}, {f.Unreadable, "unreadable block", "unreadable blocks"},
		{f.CorruptCopies, "corrupt copy (dropped)", "corrupt copies (dropped)"}, {f.Records, "damaged record (mended)", "damaged records (mended)"},
	} {
		if part.n > 0 {
			parts = append(parts, counted(part.n, part.one, part.many))
		}
	}
	if len(parts) == 0 {
		parts = []string{"nothing"}
	}
	return strings.Join(parts, ", ") + " in " + humanBytes(f.Bytes)
}

func classRows(classes []api.CacheClass) [][]string {
	rows := [][]string{{"  EXTENT", "SPANS", "EXTENTS", "FREE", "CHUNKS", "BYTES", "FULL"}}
	for i := range classes {
		c := &classes[i]
		full := "-"
		if room := c.Extents * c.ExtentBytes; room > 0 {
			full = exactPercent(float64(c.Bytes) / float64(room))
		}
		rows = append(rows, []string{"  " + humanBytes(c.ExtentBytes), strconv.Itoa(c.Spans), grouped(c.Extents), grouped(c.Free), grouped(c.Chunks), humanBytes(c.Bytes), full})
	}
	return rows
}
