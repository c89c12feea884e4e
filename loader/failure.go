package loader

import (
	"errors"
	"fmt"
	"strings"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/shm"
)

// failureOf turns any error into what a client is told.
func failureOf(err error) *shm.Failure {
	var failure *shm.Failure
	if errors.As(err, &failure) {
		return failure
	}
	var e *backend.Error
	if !errors.As(err, &e) {
		return &shm.Failure{Code: "internal", What: err.Error(), Remedy: "this should not happen: please report it with the daemon's log"}
	}
	failure = &shm.Failure{Code: string(e.Kind), What: err.Error(), Where: e.Object, Remedy: remedies[e.Kind]}
	if remedy := backend.RemedyOf(err); remedy != "" {
		failure.Remedy = remedy
		failure.What = strings.Replace(failure.What, " ("+remedy+")", "", 1) // said once
	}
	return failure
}

// remedies say what to do about each kind of store error.
var remedies = map[backend.Kind]string{
	backend.NotFound:    "check the name; `stoker dataset ls` lists datasets",
	backend.Corrupt:     "run `stoker dataset add --replace` to build the index anew; if it comes back, check the disk",
	backend.Changed:     "restore the file, or run `stoker dataset add --replace` to index the files as they are now",
	backend.Unavailable: "check the device and the daemon's log, then continue from the last state",
	backend.Permission:  "give the daemon's user the right to read it",
	backend.NoSpace:     "free space",
	backend.OutOfRange:  "ask for a sample within [0, len)",
}

func invalid(field, value, remedy string) error {
	return &shm.Failure{Code: "invalid", Where: field, What: fmt.Sprintf("unusable value %q", value), Remedy: remedy}
}

func limitFailure(what string, limit int64, unit, remedy string) error {
	return &shm.Failure{Code: "limit", Where: what, What: fmt.Sprintf("the limit of %d %s is reached", limit, unit), Remedy: remedy}
}
