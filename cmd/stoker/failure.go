package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/shm"
)

// failure is an error as the user sees it.
type failure struct {
	Code   string `json:"code"`
	What   string `json:"what"`
	Where  string `json:"where,omitempty"`
	Why    string `json:"why,omitempty"`
	Remedy string `json:"remedy,omitempty"`

	exit int
}

// Error joins the parts into one line.
func (f *failure) Error() string {
	text := f.What
	for _, part := range []string{f.Where, f.Why, f.Remedy} {
		if part != "" {
			text += "; " + part
		}
	}
	return text
}

// usageFailure is for command lines that cobra refuses.
func usageFailure(err error) *failure {
	return &failure{
		Code: "usage", What: strings.TrimSpace(err.Error()),
		Remedy: "see stoker --help, or stoker COMMAND --help", exit: exitUsage,
	}
}

// failureOf gives any error the user's form.
func failureOf(err error) *failure {
	var own *failure
	var problem *api.Error
	var answer *shm.Failure
	var file *backend.Error
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &problem):
		return &failure{Code: string(problem.Code), What: problem.What, Where: problem.Where, Remedy: problem.Remedy, exit: exitError}
	case errors.As(err, &answer):
		return &failure{Code: answer.Code, What: answer.What, Where: answer.Where, Remedy: answer.Remedy, exit: exitError}
	case errors.As(err, &file):
		return failureOfFile(file)
	}
	return &failure{Code: string(api.CodeInternal), What: err.Error(), exit: exitError}
}

// failureOfFile is about a file that this program read itself.
func failureOfFile(err *backend.Error) *failure {
	f := &failure{
		Code: string(err.Kind), What: err.Op + ": " + strings.ReplaceAll(string(err.Kind), "_", " "), Where: err.Object,
		Why: err.Detail, Remedy: backend.RemedyOf(err), exit: exitError,
	}
	if err.Err != nil {
		f.Why = strings.TrimPrefix(f.Why+": "+err.Err.Error(), ": ")
	}
	return f
}

// errorLine is an error under --json; the session socket's have the same shape.
type errorLine struct {
	Type  string   `json:"type"`
	Error *failure `json:"error"`
}

// report writes err to standard error and returns its exit code.
func (a *app) report(err error) int {
	f := failureOf(err)
	if a.json {
		line, encodeErr := json.Marshal(errorLine{Type: shm.TypeError, Error: f})
		if encodeErr != nil {
			panic(fmt.Sprintf("encode failure %+v: %v", f, encodeErr))
		}
		fmt.Fprintf(a.err, "%s\n", line)
		return f.exit
	}
	fmt.Fprintf(a.err, "stoker: %s\n", printable(f.What))
	for _, part := range []struct{ name, text string }{{"where", f.Where}, {"why", f.Why}, {"next", f.Remedy}} {
		if part.text != "" {
			fmt.Fprintf(a.err, "  %-6s %s\n", part.name+":", printable(part.text))
		}
	}
	return f.exit
}
