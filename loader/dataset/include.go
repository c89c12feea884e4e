package dataset

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/stokerio/stoker/backend"
)

// maxPatterns bounds what the braces of all include patterns may expand to.
const maxPatterns = 100_000

// Include says which files of an origin belong to a dataset.
//
// Patterns match whole paths relative to the root, with slashes: * and ? within one
// name, ** for any directories, [a-z] and [^a-z], {a,b} for either, {000..127} for
// the numbers from 000 to 127 written with leading zeros as in the pattern. A
// backslash takes the next character's meaning away. No pattern at all means every
// file.
//
// Hidden files (a name or a directory that begins with a dot) are left out, except
// by a pattern that itself names such a component (".hidden/*", "**/.x*").
type Include struct {
	patterns []string // as given
	literal  map[string]struct{}
	// byBase holds what follows the literal directories that a pattern begins with,
	// under those directories, so that shard-{000..999}/*.jpg costs one look-up a
	// directory of a path and not 1000 matches.
	byBase map[string][]includePattern
}

type includePattern struct {
	glob   string
	hidden bool // may match hidden components
}

// CompileInclude checks patterns and prepares them for matching.
// Errors: Invalid.
func CompileInclude(patterns []string) (*Include, error) {
	in := &Include{patterns: patterns, literal: map[string]struct{}{}, byBase: map[string][]includePattern{}}
	if len(patterns) == 0 {
		in.byBase[""] = []includePattern{{glob: "**"}}
	}
	total := 0
	for _, p := range patterns {
		if problem := checkPattern(p); problem != "" {
			return nil, invalidPattern(p, problem)
		}
		expanded, err := expandBraces(p, maxPatterns-total)
		if err != nil {
			return nil, invalidPattern(p, err.Error())
		}
		total += len(expanded)
		for _, e := range expanded {
			if !doublestar.ValidatePattern(e) {
				return nil, invalidPattern(p, fmt.Sprintf("%q is no valid pattern: check its brackets", e))
			}
			in.add(e)
		}
	}
	return in, nil
}

func invalidPattern(pattern, problem string) error {
	return &backend.Error{Kind: backend.Invalid, Op: "use include pattern", Object: pattern, Detail: problem,
		Remedy: "correct the pattern given with --include: it matches paths relative to the dataset's directory, as in '**/*.jpg'"}
}

// checkPattern says what is wrong with the form of a pattern as a relative path.
func checkPattern(p string) string {
	if p == "" {
		return "it is empty"
	}
	if strings.HasPrefix(p, "/") {
		return "it begins with a slash: patterns are relative to the dataset's directory"
	}
	for part := range strings.SplitSeq(p, "/") {
		if part == "." || part == ".." || part == "" {
			return fmt.Sprintf("it has the component %q: files are named without it", part)
		}
	}
	return ""
}

// add files one expanded pattern.
func (in *Include) add(p string) {
	if !strings.ContainsAny(p, `*?[\`) {
		in.literal[p] = struct{}{}
		return
	}
	base, rest := "", p
	if cut := strings.LastIndexByte(p[:strings.IndexAny(p, `*?[\`)], '/'); cut >= 0 {
		base, rest = p[:cut], p[cut+1:]
	}
	hidden := strings.HasPrefix(p, ".") || strings.Contains(p, "/.")
	in.byBase[base] = append(in.byBase[base], includePattern{glob: rest, hidden: hidden})
}

// Match reports whether a file belongs to the dataset.
func (in *Include) Match(name []byte) bool {
	if _, ok := in.literal[string(name)]; ok {
		return true
	}
	hidden := Hidden(name)
	if in.matchBase("", name, hidden) {
		return true
	}
	for i, c := range name {
		if c == '/' && in.matchBase(string(name[:i]), name[i+1:], hidden) {
			return true
		}
	}
	return false
}

func (in *Include) matchBase(base string, rest []byte, hidden bool) bool {
	for _, p := range in.byBase[base] {
		if hidden && !p.hidden {
			continue
		}
		if p.glob == "**" || doublestar.MatchUnvalidated(p.glob, string(rest)) {
			return true
		}
	}
	return false
}

// MatchBelow reports whether a file in that directory, at any depth, could belong
// to the dataset.
func (in *Include) MatchBelow(directory []byte) bool {
	name, hidden := string(directory), Hidden(directory)
	for literal := range in.literal {
		if strings.HasPrefix(literal, name+"/") {
			return true
		}
	}
	for base, patterns := range in.byBase {
		for _, p := range patterns {
			if hidden && !p.hidden {
				continue
			}
			// The base's own characters mean themselves, which it has none to escape.
			if reachesBelow(strings.TrimPrefix(base+"/"+p.glob, "/"), name) {
				return true
			}
		}
	}
	return false
}

// reachesBelow reports whether a pattern could match a path in a directory, going by
// whole components.
func reachesBelow(pattern, directory string) bool {
	for part := range strings.SplitSeq(directory, "/") {
		component, rest, more := strings.Cut(pattern, "/")
		if component == "**" {
			return true
		}
		if !more || !doublestar.MatchUnvalidated(component, part) {
			return false
		}
		pattern = rest
	}
	return true
}

// String names the patterns for people.
func (in *Include) String() string {
	if len(in.patterns) == 0 {
		return "any file that is not hidden"
	}
	return strings.Join(in.patterns, ", ")
}

// Hidden reports whether a component of a path begins with a dot.
func Hidden(name []byte) bool {
	return len(name) > 0 && name[0] == '.' || bytes.Contains(name, []byte("/."))
}

// expandBraces returns the patterns without braces that p stands for, at most limit.
func expandBraces(p string, limit int) ([]string, error) {
	open, end, err := firstBrace(p)
	if err != nil {
		return nil, err
	}
	if open < 0 {
		if limit < 1 {
			return nil, fmt.Errorf("braces stand for more than %d patterns", maxPatterns)
		}
		return []string{p}, nil
	}
	choices, err := braceChoices(p[open+1:end], limit)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, c := range choices {
		expanded, err := expandBraces(p[:open]+c+p[end+1:], limit-len(all))
		if err != nil {
			return nil, err
		}
		all = append(all, expanded...)
	}
	return all, nil
}

// firstBrace finds the first brace and its partner; -1 if there is none.
func firstBrace(p string) (open, end int, err error) {
	open, depth, class := -1, 0, false
	for i := 0; i < len(p); i++ {
		switch c := p[i]; {
		case c == '\\':
			i++
		case class:
			class = c != ']'
		case c == '[':
			class = true
		case c == '{':
			if depth == 0 {
				open = i
			}
			depth++
		case c == '}' && depth == 0:
			return -1, -1, fmt.Errorf("%q closes no brace: write \\} for the character itself", p[i:])
		case c == '}':
			if depth--; depth == 0 {
				return open, i, nil
			}
		}
	}
	if depth > 0 {
		return -1, -1, fmt.Errorf("%q is not closed: write \\{ for the character itself", p[open:])
	}
	return -1, -1, nil
}

// braceChoices returns what stands in a pair of braces: a range of numbers, or
// alternatives between the commas that are in no deeper pair.
func braceChoices(body string, limit int) ([]string, error) {
	if from, to, ok := strings.Cut(body, ".."); ok {
		if numbers, err := numberRange(from, to, limit); numbers != nil || err != nil {
			return numbers, err
		}
	}
	var choices []string
	depth, start := 0, 0
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case '\\':
			i++
		case '{':
			depth++
		case '}':
			depth--
		case ',':
			if depth == 0 {
				choices = append(choices, body[start:i])
				start = i + 1
			}
		}
	}
	return append(choices, body[start:]), nil
}

// numberRange returns the numbers from..to, with leading zeros to the width of the
// wider end if either end has them; nil if these are no numbers.
func numberRange(from, to string, limit int) ([]string, error) {
	a, errA := strconv.ParseUint(from, 10, 63)
	b, errB := strconv.ParseUint(to, 10, 63)
	if errA != nil || errB != nil {
		return nil, nil
	}
	if a > b {
		return nil, fmt.Errorf("{%s..%s} counts down: put the smaller number first", from, to)
	}
	if limit < 1 || b-a >= uint64(limit) {
		return nil, fmt.Errorf("{%s..%s} and its like stand for more than %d patterns: use * instead", from, to, maxPatterns)
	}
	width := 0
	if len(from) > 1 && from[0] == '0' || len(to) > 1 && to[0] == '0' {
		width = max(len(from), len(to))
	}
	numbers := make([]string, 0, b-a+1)
	for n := a; n <= b; n++ {
		numbers = append(numbers, fmt.Sprintf("%0*d", width, n))
	}
	return numbers, nil
}
