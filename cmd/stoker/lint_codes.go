package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/stokerio/stoker/loader/dataset"
)

// lintCodesTopic is `stoker help lint-codes`.
func lintCodesTopic() *cobra.Command {
	var text strings.Builder
	text.WriteString("What stoker dataset lint finds. Errors stop dataset add or a session; warnings slow\ntraining or surprise; notes are good to know.\n")
	severity := ""
	for _, code := range dataset.LintCodes() {
		if code.Severity != severity {
			severity = code.Severity
			text.WriteString("\n" + strings.ToUpper(severity) + "S\n")
		}
		text.WriteString("\n  " + code.Code + " (" + strings.Join(code.Formats, ", ") + ")\n")
		text.WriteString(hanging("  ", code.Meaning, 80))
		text.WriteString(hanging("  ", "Next: "+code.Remedy+".", 80))
	}
	return &cobra.Command{Use: "lint-codes", Short: "What dataset lint finds, and what to do about it", Long: text.String()}
}
