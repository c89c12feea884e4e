package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manualDate is on every page. It is fixed, so that pages change only with what
// they say; set it when a release is made.
var manualDate = time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)

// manCommand writes the manual pages; it is hidden, as only packagers need it.
func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the manual pages into a directory",
		Hidden: true,
		Args:   exactly("DIR"),
		RunE: func(command *cobra.Command, args []string) error {
			return writeManual(command.Root(), args[0])
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
	}
}

// writeManual writes a page for each command, and removes pages of commands that
// are no more.
func writeManual(root *cobra.Command, directory string) error {
	pages, err := manual(root)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return fmt.Errorf("write the manual: %w", err)
	}
	old, err := filepath.Glob(filepath.Join(directory, "stoker*.1"))
	if err != nil {
		return fmt.Errorf("write the manual: %w", err)
	}
	for _, path := range old {
		if _, kept := pages[filepath.Base(path)]; !kept {
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("write the manual: %w", err)
			}
		}
	}
	for name, page := range pages {
		if err := os.WriteFile(filepath.Join(directory, name), page, 0o644); err != nil {
			return fmt.Errorf("write the manual: %w", err)
		}
	}
	return nil
}

// manual makes the pages of a command and of all below it, by file name.
func manual(root *cobra.Command) (map[string][]byte, error) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	root.DisableAutoGenTag = true
	pages := map[string][]byte{}
	var add func(command *cobra.Command) error
	add = func(command *cobra.Command) error {
		page, err := manualPage(command)
		if err != nil {
			return err
		}
		pages[strings.ReplaceAll(command.CommandPath(), " ", "-")+".1"] = page
		for _, below := range command.Commands() {
			if documented(below) {
				if err := add(below); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return pages, add(root)
}

// documented tells commands that users meet from hidden ones and from `help`.
func documented(command *cobra.Command) bool {
	return (command.IsAvailableCommand() || command.IsAdditionalHelpTopicCommand()) && command.Name() != "help"
}

func manualPage(command *cobra.Command) ([]byte, error) {
	if command.IsAdditionalHelpTopicCommand() {
		return topicPage(command), nil
	}
	command.DisableAutoGenTag = true
	date := manualDate
	var page bytes.Buffer
	header := &doc.GenManHeader{Section: "1", Date: &date, Source: "Stoker", Manual: "Stoker Manual"}
	if err := doc.GenMan(command, header, &page); err != nil {
		return nil, fmt.Errorf("manual page of %s: %w", command.CommandPath(), err)
	}
	return withExitStatus(page.Bytes()), nil
}

// topicPage is a help topic in the lines in which help shows it; cobra would take
// it for Markdown and fill its lines.
func topicPage(command *cobra.Command) []byte {
	name := strings.ReplaceAll(command.CommandPath(), " ", "-")
	var page bytes.Buffer
	fmt.Fprintf(&page, ".nh\n.TH %q \"1\" %q \"Stoker\" \"Stoker Manual\"\n", strings.ToUpper(name), manualDate.Format("Jan 2006"))
	fmt.Fprintf(&page, ".SH NAME\n%s \\- %s\n.SH DESCRIPTION\n.nf\n", name, roff(command.Short))
	for line := range strings.SplitSeq(command.Long, "\n") {
		page.WriteString(roff(line) + "\n")
	}
	page.WriteString(".fi\n.SH SEE ALSO\n\\fBstoker(1)\\fP\n")
	return page.Bytes()
}

// roff escapes what roff would take for its own, groff_char(7).
func roff(line string) string {
	line = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "^", `\(ha`, "~", `\(ti`, "`", `\(ga`).Replace(line)
	if strings.HasPrefix(line, ".") {
		line = `\&` + line
	}
	return line
}

// withExitStatus puts the section on exit codes, which cobra does not know, where
// man-pages(7) wants it: before SEE ALSO.
func withExitStatus(page []byte) []byte {
	var section bytes.Buffer
	section.WriteString(".SH EXIT STATUS\n")
	for _, line := range exitCodes {
		fmt.Fprintf(&section, ".TP\n\\fB%s\\fP\n%s\n", line.code, roff(line.meaning))
	}
	at := bytes.Index(page, []byte(".SH SEE ALSO"))
	if at < 0 {
		at = len(page)
	}
	return append(append(bytes.Clone(page[:at]), section.Bytes()...), page[at:]...)
}
