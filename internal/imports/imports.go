// Package imports holds the repository to its map: which folders there are, and
// which package may import which. The map is table.go; this package's test reads
// every Go and Python source of the working tree, whatever its build constraints,
// and fails with the reason beside the rule that was broken.
package imports

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Module is the prefix of our own import paths.
const Module = "github.com/stokerio/stoker"

// File is one source file and what it imports.
type File struct {
	// Path is slash-separated and relative to the root of the repository.
	Path string
	// Imports are Go import paths as written, or the modules that a Python file names.
	Imports []string
}

// Room is the folder of the file, which for Go is its package's path below Module.
func (f File) Room() string { return path.Dir(f.Path) }

// Test reports whether the file is compiled into tests only.
func (f File) Test() bool { return strings.HasSuffix(f.Path, "_test.go") }

// Read collects the source files of the repository whose root is tree. Folders
// that ignored names, wherever they lie, are passed over, as is testdata.
func Read(tree fs.FS, ignored []string) ([]File, error) {
	var files []File
	err := fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if slices.Contains(ignored, entry.Name()) || entry.Name() == "testdata" {
				return fs.SkipDir
			}
			return nil
		}
		file, known, err := readFile(tree, name)
		if known && err == nil {
			files = append(files, file)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the sources: %w", err)
	}
	return files, nil
}

func readFile(tree fs.FS, name string) (file File, known bool, err error) {
	read := map[string]func(string, []byte) ([]string, error){".go": goImports, ".py": pythonImports}[path.Ext(name)]
	if read == nil {
		return File{}, false, nil
	}
	source, err := fs.ReadFile(tree, name)
	if err != nil {
		return File{}, true, err
	}
	found, err := read(name, source)
	return File{Path: name, Imports: found}, true, err
}

func goImports(name string, source []byte) ([]string, error) {
	parsed, err := parser.ParseFile(token.NewFileSet(), name, source, parser.ImportsOnly)
	if err != nil {
		return nil, err
	}
	found := make([]string, 0, len(parsed.Imports))
	for _, spec := range parsed.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, fmt.Errorf("%s: import %s: %w", name, spec.Path.Value, err)
		}
		found = append(found, imported)
	}
	return found, nil
}

// pythonImport matches the statements "import a.b, c as d" and "from a.b import c",
// also indented ones, which import late.
var pythonImport = regexp.MustCompile(`(?m)^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import\b|import[ \t]+([\w., \t]+))`)

func pythonImports(_ string, source []byte) ([]string, error) {
	var found []string
	for _, match := range pythonImport.FindAllStringSubmatch(string(source), -1) {
		if match[1] != "" {
			found = append(found, match[1])
			continue
		}
		for clause := range strings.SplitSeq(match[2], ",") {
			if words := strings.Fields(clause); len(words) > 0 {
				found = append(found, words[0])
			}
		}
	}
	return found, nil
}
