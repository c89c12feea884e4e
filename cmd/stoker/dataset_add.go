package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/shm"
)

func (a *app) datasetAddCommand() *cobra.Command {
	request := shm.DatasetAdd{Type: shm.TypeDatasetAdd}
	command := &cobra.Command{
		Use:   "add NAME DIR",
		Short: "Scan a directory and give it a name",
		Long: `Scan a directory once, and give it a name by which training jobs open it.

The daemon reads the directory with your rights: this program opens it and passes
the open directory. Nothing is copied; files that change later are noticed.

Formats: raw (every file is a sample, its parent directory its class), tokens
(.bin files of nanoGPT, llm.c and Megatron), tar (WebDataset shards, plain or
compressed; every key is a sample, its members are the parts), auto (by what is
there; the answer says what was seen).

Scanning tar shards reads their headers only, and can be interrupted: run the
same command again and it continues.`,
		Example: `  stoker dataset add pets ~/pets
  stoker dataset add photos ~/photos --include '**/*.{jpg,png}'
  stoker dataset add text ~/openwebtext --format tokens --dtype uint16
  stoker dataset add coco ~/coco --include 'train-*.tar' --bad skip`,
		Args: exactly("NAME", "DIR"),
		RunE: func(command *cobra.Command, args []string) error {
			request.Name = args[0]
			return a.addDataset(command, request, args[1])
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return nil, cobra.ShellCompDirectiveFilterDirs
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
	}
	flags := command.Flags()
	a.addFormat(command, &request.Format, "what the files are")
	flags.StringArrayVar(&request.Include, "include", nil, "take only files that match this glob, relative to DIR (may be repeated)")
	flags.StringVar(&request.DType, "dtype", "uint16", "element type of token files that do not say it themselves")
	a.addChoice(command, &request.Bad, "bad", "fail", "damaged shards and impossible samples end the scan, or are left out and counted", []string{"fail", "skip"})
	flags.BoolVar(&request.Replace, "replace", false, "take the name from the dataset that has it")
	a.addProgress(command)
	a.addJSON(command)
	a.must(command.RegisterFlagCompletionFunc("dtype", cobra.FixedCompletions(
		[]string{"uint8", "uint16", "uint32", "int32", "int64"}, cobra.ShellCompDirectiveNoFileComp)))
	return command
}

// formatNames are the formats that can be asked for.
var formatNames = []string{"auto", "raw", "tokens", "tar"}

// addFormat gives a verb its --format.
func (a *app) addFormat(command *cobra.Command, value *string, usage string) {
	a.addChoice(command, value, "format", "auto", usage, formatNames)
}

func (a *app) addDataset(command *cobra.Command, request shm.DatasetAdd, path string) error {
	directory, err := openDirectory(path)
	if err != nil {
		return err
	}
	defer directory.Close()
	request.Path = directory.Name()

	var info shm.DatasetInfo
	err = a.withSession(command.Context(), func(s *session) error {
		a.resumable = true
		show := a.newProgress("scanning")
		info, err = s.scan(request, show.update, int(directory.Fd()))
		show.finish(err == nil)
		return err
	})
	if err != nil {
		return err
	}
	if a.json {
		return a.writeJSONLine(shm.DatasetAnswer{Type: shm.TypeDataset, Dataset: info})
	}
	return a.writeAdded(info)
}

// openDirectory opens what is to be added; its name becomes absolute.
func openDirectory(path string) (*os.File, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find %q: %w", path, err)
	}
	directory, err := os.OpenFile(absolute, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err == nil {
		return directory, nil
	}
	f := &failure{Code: string(api.CodeInvalid), What: "cannot open the directory", Where: absolute, exit: exitError}
	var cause *fs.PathError
	if errors.As(err, &cause) {
		f.Why = cause.Err.Error()
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.Code, f.Remedy = string(api.CodeNotFound), "check the path"
	case errors.Is(err, fs.ErrPermission):
		f.Code, f.Remedy = string(api.CodePermission), "give yourself the right to read it: the daemon reads with yours"
	case errors.Is(err, unix.ENOTDIR):
		f.Remedy = "give the directory that holds the files; --include chooses among them"
	}
	return nil, f
}

// writeAdded tells what was found, and what to do with it.
func (a *app) writeAdded(info shm.DatasetInfo) error {
	blockSize := ""
	if info.Format == "tokens" {
		blockSize = ", block_size=1024"
	}
	_, err := fmt.Fprintf(a.out, "added %s: %s\n%s  in Python: stoker.Dataset(%q, batch_size=64%s, shuffle=True)\n",
		printable(info.Name), scanned(info), details(info), info.Name, blockSize)
	return err
}

// scanned sums up what a scan found: "tar, 1,000 samples in 3 files, 1.20 GiB".
func scanned(info shm.DatasetInfo) string {
	text := info.Format + ", "
	switch {
	case info.Tokens > 0:
		text += fmt.Sprintf("%s of %s in ", counted(info.Tokens, "token", "tokens"), info.DType)
	case info.Samples != info.Files:
		text += counted(info.Samples, "sample", "samples") + " in "
	}
	text += counted(info.Files, "file", "files") + ", " + humanBytes(info.Bytes)
	if len(info.Classes) > 0 {
		text += ", " + counted(int64(len(info.Classes)), "class", "classes")
	}
	return text
}

// details are lines about what a scan saw, used and left out.
func details(info shm.DatasetInfo) string {
	var text strings.Builder
	if info.Saw != "" {
		fmt.Fprintf(&text, "  saw: %s\n", printable(info.Saw))
	}
	if len(info.Parts) > 0 {
		names := make([]string, 0, partsShown)
		for _, part := range info.Parts[:min(len(info.Parts), partsShown)] {
			names = append(names, printable(part.Name)+" ("+percent(part.Samples, info.Samples)+")")
		}
		if len(info.Parts) > partsShown {
			names = append(names, fmt.Sprintf("and %d more", len(info.Parts)-partsShown))
		}
		fmt.Fprintf(&text, "  parts: %s\n", strings.Join(names, ", "))
	}
	if onlyPlain := len(info.Archives) == 1 && info.Archives["tar"] > 0; len(info.Archives) > 0 && !onlyPlain {
		fmt.Fprintf(&text, "  archives: %s\n", tally(info.Archives))
	}
	if len(info.Indexes) > 0 {
		fmt.Fprintf(&text, "  indexes beside the shards: %s\n", tally(info.Indexes))
	}
	for _, reason := range slices.Sorted(maps.Keys(info.Skipped)) {
		fmt.Fprintf(&text, "  left out %s: %s\n", leftOut(info.Format, info.Skipped[reason]), printable(reason))
	}
	return text.String()
}

// partsShown is how many parts are named in a line.
const partsShown = 8

// leftOut counts what a scan left out, which of tar may be files or samples.
func leftOut(format string, number int) string {
	if format == "tar" {
		return grouped(int64(number))
	}
	return counted(int64(number), "file", "files")
}

// tally writes counts by name, most first: "12 gzip, 3 tar".
func tally(counts map[string]int) string {
	names := slices.Sorted(maps.Keys(counts))
	slices.SortStableFunc(names, func(a, b string) int { return counts[b] - counts[a] })
	for i, name := range names {
		names[i] = grouped(int64(counts[name])) + " " + printable(name)
	}
	return strings.Join(names, ", ")
}

// percent is a share without decimals; only all of it is 100 %, only nothing 0 %.
func percent(some, all int64) string {
	part := 100 * float64(some) / float64(max(all, 1))
	switch {
	case all <= 0 || some <= 0:
		return "0 %"
	case some >= all:
		return "100 %"
	case part < 1:
		return "<1 %"
	case part > 99:
		return ">99 %"
	}
	return fmt.Sprintf("%.0f %%", part)
}
