package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/flash"
	"github.com/stokerio/stoker/loader/api"
)

// cacheCheckOptions are what the flags of `stoker cache check` say.
type cacheCheckOptions struct {
	flash.CheckOptions
	first int
	all   bool
}

func (a *app) cacheCheckCommand() *cobra.Command {
	var options cacheCheckOptions
	command := &cobra.Command{
		Use:   "check DIR",
		Short: "Read all of a directory of flash chunks, and repair it",
		Long: `Read all of a directory of flash chunks that no stokerd has: format.json, headers,
records, every block against its CRC32C, and what was put against its name. Nothing is
changed without --repair.

--repair writes anew what can be told of format.json, headers and records, forgets records
of which nobody knows what they say, drops corrupt copies and all but the best of chunks
that are there twice, and moves files that are no segments of this directory into its
folder "aside". What was put and is whole stays, and so does what was put and is corrupt:
it goes on being an error until it is put again, or dropped with --drop-corrupt.

Exit code 4: something is not as it should be, and was not repaired.`,
		Example: `  stoker cache check /mnt/nvme0/stoker
  stoker cache check /mnt/nvme0/stoker --repair
  stoker cache check /mnt/nvme0/stoker --json`,
		Args: exactly("DIR"),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		RunE: func(command *cobra.Command, args []string) error {
			return a.checkCache(command.Context(), args[0], options)
		},
	}
	flags := command.Flags()
	flags.BoolVar(&options.Repair, "repair", false, "mend what can be mended")
	flags.BoolVar(&options.DropCorrupt, "drop-corrupt", false, "with --repair: forget also chunks that were put and are corrupt")
	flags.IntVar(&options.first, "first", 5, "how many findings of each kind are written out")
	flags.BoolVar(&options.all, "all", false, "write out every finding")
	a.addJSON(command)
	return command
}

func (a *app) checkCache(ctx context.Context, directory string, options cacheCheckOptions) error {
	if options.DropCorrupt && !options.Repair {
		return &failure{Code: "usage", What: "--drop-corrupt goes with --repair", Remedy: "give both, or neither", exit: exitUsage}
	}
	show := a.newWork()
	options.Progress = func(done, total int64) {
		_ = show.show(ctx, "checking", done, total, inBytes()...) // Check sees itself that ctx ended
	}
	report, err := flash.Check(ctx, directory, options.CheckOptions)
	show.finish()
	if err != nil {
		return checkFailure(directory, err)
	}
	if a.json {
		err = a.writeJSON(report)
	} else {
		err = a.writeCheck(&report, options)
	}
	if err != nil || report.Unrepaired == 0 {
		return err
	}
	f := &failure{Code: "findings", What: "check found damage that is not repaired: " + counted(report.Unrepaired, "finding", "findings"), Where: directory, exit: exitFindings}
	f.Remedy = "stoker cache check --repair " + directory + " mends what can be mended"
	if options.Repair {
		f.Remedy = "what is left cannot be mended here: see the findings"
	}
	return f
}

// checkFailure is why a check could not go on.
func checkFailure(directory string, err error) *failure {
	f := flashFailure(directory, err)
	if f.Code == string(api.CodeUnavailable) {
		f.What, f.Remedy = "the check could not go on", "look at the kernel's log for errors of the device; what was repaired until then stays"
	}
	return f
}

// writeCheck puts findings out by kind, those first that lose what was put.
func (a *app) writeCheck(r *flash.CheckReport, options cacheCheckOptions) error {
	byKind := map[flash.FindingKind][]*flash.Finding{}
	for i := range r.Findings {
		f := &r.Findings[i]
		byKind[f.Kind] = append(byKind[f.Kind], f)
	}
	kinds := make([]flash.FindingKind, 0, len(byKind))
	for kind := range byKind {
		kinds = append(kinds, kind)
	}
	loses := func(kind flash.FindingKind) int {
		return slices.IndexFunc(byKind[kind], func(f *flash.Finding) bool { return f.Put && f.Lost != "" })
	}
	slices.SortFunc(kinds, func(x, y flash.FindingKind) int {
		return cmp.Or(-cmp.Compare(min(0, loses(x)), min(0, loses(y))), cmp.Compare(x, y))
	})
	var text strings.Builder
	for _, kind := range kinds {
		writeFindings(&text, kind, byKind[kind], options)
	}
	if r.Omitted > 0 {
		fmt.Fprintf(&text, "and %s more findings, which are not written out\n\n", grouped(r.Omitted))
	}
	found := "nothing is damaged"
	if n := int64(len(r.Findings)) + r.Omitted; n > 0 {
		found = counted(n, "finding", "findings")
		if options.Repair {
			found += ", " + grouped(r.Repaired) + " repaired"
		}
	}
	fmt.Fprintf(&text, "%s: %s in %s, %s that were put, %s read: %s\n", printable(r.Path), counted(r.Chunks, "chunk", "chunks"),
		counted(int64(r.Segments), "segment", "segments"), grouped(r.PutChunks), humanBytes(r.CheckedBytes), found)
	_, err := fmt.Fprint(a.out, text.String())
	return err
}

func writeFindings(text *strings.Builder, kind flash.FindingKind, findings []*flash.Finding, options cacheCheckOptions) {
	fmt.Fprintf(text, "%s: %s\n", strings.ReplaceAll(string(kind), "_", " "), counted(int64(len(findings)), "finding", "findings"))
	shown := len(findings)
	if !options.all {
		shown = min(shown, max(0, options.first))
	}
	for _, f := range findings[:shown] {
		where := printable(f.File)
		if f.Offset >= 0 {
			where += " at " + grouped(f.Offset)
		}
		if f.Chunk != (backend.ChunkID{}) {
			where += ", chunk " + f.Chunk.String()
		}
		fmt.Fprintf(text, "  %s\n", where)
		for _, part := range []struct{ name, text string }{{"why", f.Detail}, {"lost", f.Lost}, {"next", f.Remedy}} {
			if part.text != "" {
				fmt.Fprintf(text, "    %-6s %s\n", part.name+":", printable(part.text))
			}
		}
		if f.Repaired {
			text.WriteString("    repaired\n")
		}
	}
	if rest := len(findings) - shown; rest > 0 {
		fmt.Fprintf(text, "  and %s more; --all shows them\n", grouped(int64(rest)))
	}
	text.WriteString("\n")
}
