package dataset

import (
	"regexp"
	"testing"
)

func TestTheTableOfFindingsIsCompleteAndOrdered(t *testing.T) {
	rank := map[string]int{SeverityError: 0, SeverityWarning: 1, SeverityNote: 2}
	seen, last := map[string]bool{}, 0
	for _, c := range LintCodes() {
		if seen[c.Code] || !regexp.MustCompile(`^[a-z]+(-[a-z]+){0,3}$`).MatchString(c.Code) {
			t.Errorf("code %q", c.Code)
		}
		seen[c.Code] = true
		r, ok := rank[c.Severity]
		if !ok || r < last || len(c.Formats) == 0 || c.Meaning == "" || c.Remedy == "" {
			t.Errorf("%+v", c)
		}
		last = r
	}
}

func TestAFindingOfNoKnownCodeIsABug(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("accepted")
		}
	}()
	_ = NewLint("raw", nil).Add(Finding{Code: "no such code"})
}
