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
(.bin files of nanoGPT, llm.c and Megatron), auto (by what is there).`,
		Example: `  stoker dataset add pets ~/pets
  stoker dataset add photos ~/photos --include '**/*.{jpg,png}'
  stoker dataset add text ~/openwebtext --format tokens --dtype uint16`,
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
	flags.StringVar(&request.Format, "format", "auto", "auto, raw or tokens")
	flags.StringArrayVar(&request.Include, "include", nil, "take only files that match this glob, relative to DIR (may be repeated)")
	flags.StringVar(&request.DType, "dtype", "uint16", "element type of token files that do not say it themselves")
	flags.BoolVar(&request.Replace, "replace", false, "take the name from the dataset that has it")
	a.addJSON(command)
	a.must(command.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"auto", "raw", "tokens"}, cobra.ShellCompDirectiveNoFileComp)))
	a.must(command.RegisterFlagCompletionFunc("dtype", cobra.FixedCompletions(
		[]string{"uint8", "uint16", "uint32", "int32", "int64"}, cobra.ShellCompDirectiveNoFileComp)))
	return command
}

func (a *app) addDataset(command *cobra.Command, request shm.DatasetAdd, path string) error {
	if !slices.Contains([]string{"auto", "raw", "tokens"}, request.Format) {
		return &failure{Code: "usage", What: fmt.Sprintf("format %q is unknown", request.Format), Remedy: "give auto, raw or tokens", exit: exitUsage}
	}
	directory, err := openDirectory(path)
	if err != nil {
		return err
	}
	defer directory.Close()
	request.Path = directory.Name()

	daemon, err := a.connect(command.Context())
	if err != nil {
		return err
	}
	defer daemon.close()
	session, err := dialSession(command.Context(), daemon.directory)
	if err != nil {
		return err
	}
	defer session.close()

	show := a.newProgress()
	info, err := session.addDataset(request, int(directory.Fd()), show.update)
	show.finish(err == nil)
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
	var text strings.Builder
	fmt.Fprintf(&text, "added %s: %s, ", printable(info.Name), info.Format)
	if info.Tokens > 0 {
		fmt.Fprintf(&text, "%s of %s in ", counted(info.Tokens, "token", "tokens"), info.DType)
	}
	fmt.Fprintf(&text, "%s, %s", counted(info.Files, "file", "files"), humanBytes(info.Bytes))
	if len(info.Classes) > 0 {
		text.WriteString(", " + counted(int64(len(info.Classes)), "class", "classes"))
	}
	text.WriteString("\n")
	if info.Saw != "" {
		fmt.Fprintf(&text, "  saw: %s\n", printable(info.Saw))
	}
	for _, reason := range slices.Sorted(maps.Keys(info.Skipped)) {
		fmt.Fprintf(&text, "  left out %s: %s\n", counted(int64(info.Skipped[reason]), "file", "files"), printable(reason))
	}
	blockSize := ""
	if info.Format == "tokens" {
		blockSize = ", block_size=1024"
	}
	fmt.Fprintf(&text, "  in Python: stoker.Dataset(%q, batch_size=64%s, shuffle=True)\n", info.Name, blockSize)
	_, err := fmt.Fprint(a.out, text.String())
	return err
}
