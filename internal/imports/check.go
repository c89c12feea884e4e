package imports

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// covers reports whether a pattern ("x" or "x/...") means the package or module.
func covers(pattern, name string) bool {
	below, all := strings.CutSuffix(pattern, "/...")
	return name == below || all && strings.HasPrefix(name, below+"/")
}

func anyCovers(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return covers(pattern, name) })
}

// roomOf returns the most exact row for a package.
func roomOf(name string) (row room, found bool) {
	for _, candidate := range rooms {
		if covers(candidate.pattern, name) && (!found || len(candidate.pattern) > len(row.pattern)) {
			row, found = candidate, true
		}
	}
	return row, found
}

// CheckFolders returns what the root holds besides the rooms: one line for each
// folder that is neither in the table nor ignored.
func CheckFolders(tree fs.FS, ignored []string) ([]string, error) {
	entries, err := fs.ReadDir(tree, ".")
	if err != nil {
		return nil, fmt.Errorf("list the root: %w", err)
	}
	var problems []string
	for _, entry := range entries {
		if entry.IsDir() && !slices.Contains(topLevel, entry.Name()) && !slices.Contains(ignored, entry.Name()) {
			problems = append(problems, fmt.Sprintf("%s/: not a room of this house; the rooms are %s", entry.Name(), strings.Join(topLevel, ", ")))
		}
	}
	return problems, nil
}

// Check returns one line for each import that the table does not allow.
func Check(files []File) []string {
	var problems []string
	for _, file := range files {
		check := checkGo
		if path.Ext(file.Path) == ".py" {
			check = checkPython
		}
		for _, imported := range file.Imports {
			if reason := check(file, imported); reason != "" {
				problems = append(problems, fmt.Sprintf("%s imports %q: %s", file.Path, imported, reason))
			}
		}
	}
	return problems
}

// checkGo returns why the file may not import it, or nothing.
func checkGo(file File, imported string) string {
	if ours, is := strings.CutPrefix(imported, Module+"/"); is {
		return checkOurs(file, ours)
	}
	for _, rule := range dependencies {
		if !covers(rule.module+"/...", imported) || anyCovers(rule.rooms, file.Room()) || rule.inTests && file.Test() {
			continue
		}
		return fmt.Sprintf("%s (only %s may)", rule.reason, strings.Join(rule.rooms, ", "))
	}
	return ""
}

func checkOurs(file File, imported string) string {
	row, found := roomOf(file.Room())
	switch {
	case !found:
		return "the package has no row in internal/imports/table.go; give it one, with its reason"
	case covers(row.pattern, imported), imported == "internal/invariants", anyCovers(row.imports, imported):
		return ""
	case file.Test() && (anyCovers(testHelpers, imported) || anyCovers(row.tests, imported)):
		return ""
	}
	return row.reason
}

func checkPython(file File, imported string) string {
	if !covers(pythonPackage+"/...", file.Room()) {
		return ""
	}
	for _, rule := range pythonDependencies {
		top, _, _ := strings.Cut(imported, ".")
		if top == rule.module && !slices.Contains(rule.rooms, path.Base(file.Path)) {
			return fmt.Sprintf("%s (only %s may)", rule.reason, strings.Join(rule.rooms, ", "))
		}
	}
	return ""
}
