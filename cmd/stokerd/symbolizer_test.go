//go:build cgo

package main

import (
	"runtime/debug"
	"testing"
)

// TestTheSymbolizerIsLinkedIntoTheCgoBuild looks at what this binary was built of:
// the package acts by being linked, and no C of ours exists yet to crash in.
func TestTheSymbolizerIsLinkedIntoTheCgoBuild(t *testing.T) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		t.Fatal("binary without build information")
	}
	for _, module := range info.Deps {
		if module.Path == "github.com/ianlancetaylor/cgosymbolizer" {
			return
		}
	}
	t.Error("cgosymbolizer is not linked")
}
