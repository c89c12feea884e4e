package bench

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestEveryFigureIsExplainedOnce(t *testing.T) {
	page, err := os.ReadFile("../docs/benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, f := range slices.Concat(PrefetchFigures(), CompareFigures(), FlashFigures()) {
		if seen[f.Name] || f.Unit == "" || f.What == "" {
			t.Errorf("%+v", f)
		}
		seen[f.Name] = true
		row := fmt.Sprintf("| `%s` | %s | %s | %s |\n", f.Name, f.Unit, f.Target(), f.What)
		if row = strings.ReplaceAll(row, "|  |", "| |"); !strings.Contains(string(page), row) {
			t.Errorf("docs/benchmarks.md lacks\n%s", row)
		}
	}
	for line := range strings.Lines(string(page)) {
		name, _, found := strings.Cut(strings.TrimPrefix(line, "| `"), "` | ")
		if found && line[0] == '|' && !strings.Contains(name, " ") && !seen[name] {
			t.Errorf("docs/benchmarks.md explains what is not there: %s", line)
		}
	}
}

// What Compare makes of rows and passes has the texts' names, units and targets, but for
// the bounds that depend on the data.
func TestFiguresOfCompareHaveTexts(t *testing.T) {
	rows, ceilings := madeRows(t)
	figures := rowFigures(rows, ceilings)
	scanFigures(figures, []*scanSet{{name: "100k"}, {name: "4k"}, {name: "1e6"}}, nil)
	for name, f := range figures {
		i := slices.IndexFunc(CompareFigures(), func(text FigureText) bool { return text.Name == name })
		if i < 0 {
			t.Errorf("%s has no text", name)
			continue
		}
		if text := CompareFigures()[i]; f.Unit != text.Unit || f.Target != text.Target() {
			t.Errorf("%s: %q, %q, and its text has %q, %q", name, f.Unit, f.Target, text.Unit, text.Target())
		}
	}
}
