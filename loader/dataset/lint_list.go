package dataset

import (
	"context"
	"fmt"

	"github.com/stokerio/stoker/backend"
)

// ListForLint lists an origin's objects once for a lint: it tells l of what is left
// out, and shows visit every object, hidden ones only where in takes them. meant says
// which hidden files would belong to the dataset if they were not hidden; nil: all.
// seen is how many objects there are.
//
// Errors: those of the origin, of visit and of l, and the cause of ctx.
func ListForLint(ctx context.Context, store backend.Store, in *Include, l *Lint, meant func(name []byte) bool,
	visit func(o backend.Object, included bool) error) (seen int64, err error) {
	lister, ok := backend.As[backend.Lister](store)
	if !ok {
		return 0, fmt.Errorf("list files: %T has no list of objects", store)
	}
	hidden, first := int64(0), ""
	var told error // by a call that cannot return it
	err = lister.Objects(ctx, func(o backend.Object) error {
		if seen++; seen%progressFiles == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		included := in.Match(o.Name)
		if !included && Hidden(o.Name) && (meant == nil || meant(o.Name)) {
			if hidden++; hidden == 1 {
				first = string(o.Name)
			}
		}
		if told != nil {
			return told
		}
		return visit(o, included)
	}, func(name []byte, reason string) {
		var counted LeftOut
		if told == nil && counted.Add(in, name) {
			told = l.Add(Finding{Code: "left-out", File: string(name), Offset: -1, What: reason})
		}
	})
	if err == nil {
		err = told
	}
	if err == nil && hidden > 0 {
		err = l.Add(Finding{Code: "left-out", File: first, Offset: -1, What: fmt.Sprintf("%d files are hidden: their names or directories begin with a dot; this is one of them", hidden)})
	}
	if err != nil {
		return seen, fmt.Errorf("list files: %w", err)
	}
	return seen, nil
}
