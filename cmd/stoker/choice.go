package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// choice is a flag that takes one of a few words. It refuses any other when the
// command line is read, so that it is an error of usage.
type choice struct {
	value   *string
	allowed []string
}

// String implements pflag.Value.
func (c choice) String() string {
	if c.value == nil {
		return ""
	}
	return *c.value
}

// Set implements pflag.Value.
func (c choice) Set(text string) error {
	if !slices.Contains(c.allowed, text) {
		return fmt.Errorf("%q is unknown: give %s", text, oneOf(c.allowed))
	}
	*c.value = text
	return nil
}

// Type implements pflag.Value; help shows it in the place of the value.
func (c choice) Type() string { return "string" }

// addChoice gives a verb a flag that takes one of a few words, and completes them.
func (a *app) addChoice(command *cobra.Command, value *string, name, preset, usage string, allowed []string) {
	*value = preset
	command.Flags().Var(choice{value, allowed}, name, usage+": "+oneOf(allowed))
	a.must(command.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(allowed, cobra.ShellCompDirectiveNoFileComp)))
}

// oneOf writes "a, b or c".
func oneOf(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
