package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// The exit codes, part of the interface.
const (
	exitOK         = 0
	exitError      = 1 // what was asked for did not work
	exitUsage      = 2 // the command line makes no sense
	exitNotRunning = 3 // no stokerd answers
	exitFindings   = 4 // dataset lint or cache check worked, and found something
)

// exitCodes are the codes with what they mean, for help and manual pages.
var exitCodes = []struct{ code, meaning string }{
	{"0", "What was asked for was done."},
	{"1", "It was not: the message on standard error says what, where, why and what to do next. Also when Ctrl-C ended it, and from stoker status while the daemon is not ready. From stoker doctor: the machine is less than --gds=require asks for."},
	{"2", "The command line makes no sense: unknown command or flag, missing argument. From stoker doctor also: something on this machine is there and broken."},
	{"3", "stokerd is not running, or not where it was looked for."},
	{"4", "stoker dataset lint worked and found errors; with --strict, errors or warnings. Or stoker cache check worked and found what it did not repair."},
}

// exitCodesTopic is `stoker help exit-codes`.
func exitCodesTopic() *cobra.Command {
	var text strings.Builder
	text.WriteString("What the exit code of every command says:\n\n")
	for _, line := range exitCodes {
		text.WriteString(hanging(line.code+"  ", line.meaning, 80))
	}
	text.WriteString(`
With --json an error is one line of JSON on standard error:

  {"type":"error","error":{"code":"not_found","what":"...","where":"...","remedy":"..."}}

Its code is one of the daemon's (invalid, not_found, conflict, changed, corrupt,
limit, no_space, out_of_range, permission, unavailable, version, internal) or of
this program: usage, not_running, interrupted, findings.`)
	return &cobra.Command{Use: "exit-codes", Short: "What the exit codes say", Long: text.String()}
}

// hanging writes text after a mark, in lines of at most width that begin below
// where the text began.
func hanging(mark, text string, width int) string {
	var out strings.Builder
	line := "  " + mark
	indent := strings.Repeat(" ", len(line))
	for _, word := range strings.Fields(text) {
		if len(line)+len(word) > width && strings.TrimSpace(line) != "" {
			out.WriteString(strings.TrimRight(line, " ") + "\n")
			line = indent
		}
		line += word + " "
	}
	out.WriteString(strings.TrimRight(line, " ") + "\n")
	return out.String()
}
