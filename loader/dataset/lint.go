package dataset

import "fmt"

// Severities of a Finding.
const (
	SeverityError   = "error"   // `dataset add` refuses it, or a session fails
	SeverityWarning = "warning" // slows training or surprises
	SeverityNote    = "note"
)

// Finding is one thing that a lint found.
type Finding struct {
	Severity string `json:"severity"`
	Code     string `json:"code"`   // one of LintCodes
	File     string `json:"file"`   // "": the whole dataset
	Offset   int64  `json:"offset"` // bytes; -1: the whole file
	Key      string `json:"key,omitempty"`
	What     string `json:"what"`
	Remedy   string `json:"remedy"`
}

// LintSummary sums a lint up.
type LintSummary struct {
	Format   string           `json:"format"`
	Files    int64            `json:"files"`
	Samples  int64            `json:"samples"`
	Bytes    int64            `json:"bytes"`
	Findings map[string]int64 `json:"findings"` // by code
	Errors   int64            `json:"errors"`
	Warnings int64            `json:"warnings"`
	Notes    int64            `json:"notes"`
}

// MaxShownFindings is how many findings of one code a lint tells of one by one. More
// of them are counted, and one last finding says how many.
const MaxShownFindings = 200

// Lint collects findings for a format. It is not safe for parallel use.
type Lint struct {
	Summary LintSummary

	codes map[string]LintCode
	shown map[string]int64 // by code
	visit func(Finding) error
}

// NewLint returns a Lint that tells visit what is found, in the order of Add.
func NewLint(format string, visit func(Finding) error) *Lint {
	l := &Lint{Summary: LintSummary{Format: format, Findings: map[string]int64{}}, codes: map[string]LintCode{}, shown: map[string]int64{}, visit: visit}
	for _, c := range LintCodes() {
		l.codes[c.Code] = c
	}
	return l
}

// Add tells of a finding. Its severity, and its remedy unless it has one, are those of
// its code, which must be one of LintCodes. It returns what visit returns.
func (l *Lint) Add(f Finding) error {
	c := l.Count(f.Code, 1)
	if l.shown[f.Code] == MaxShownFindings {
		return nil
	}
	l.shown[f.Code]++
	f.Severity = c.Severity
	if f.Remedy == "" {
		f.Remedy = c.Remedy
	}
	return l.visit(f)
}

// Count counts findings of which visit is not told one by one.
func (l *Lint) Count(code string, n int64) LintCode {
	c, ok := l.codes[code]
	if !ok {
		panic(fmt.Sprintf("lint: code %q is not in the table", code))
	}
	s := &l.Summary
	s.Findings[code] += n
	switch c.Severity {
	case SeverityError:
		s.Errors += n
	case SeverityWarning:
		s.Warnings += n
	default:
		s.Notes += n
	}
	return c
}

// Finish says of how many findings visit was not told, and returns the summary.
func (l *Lint) Finish() (LintSummary, error) {
	for _, c := range LintCodes() {
		if more := l.Summary.Findings[c.Code] - l.shown[c.Code]; more > 0 {
			err := l.visit(Finding{Severity: c.Severity, Code: c.Code, Offset: -1, Remedy: c.Remedy,
				What: fmt.Sprintf("%d more findings of this kind are counted and not listed", more)})
			if err != nil {
				return l.Summary, err
			}
		}
	}
	return l.Summary, nil
}
