package backend_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/backendtest"
)

// warmer answers every Warm alike.
type warmer struct {
	backend.Store
	resident bool
	err      error
}

func (w warmer) Warm(context.Context, *backend.Object, int64, int64) (bool, error) {
	return w.resident, w.err
}

func TestWarmSaysWhetherTheStoreCan(t *testing.T) {
	for name, c := range map[string]struct {
		store        backend.Store
		resident, ok bool
		err          error
	}{
		"no warmer":             {backendtest.NewMemory(), false, false, nil},
		"a wrapper of a warmer": {backendtest.Wrap(warmer{resident: true}), false, false, nil},
		"was there":             {warmer{resident: true}, true, true, nil},
		"was brought":           {warmer{}, false, true, nil},
		"failed":                {warmer{err: io.EOF}, false, true, io.EOF},
		"cannot for this one":   {warmer{err: fmt.Errorf("x: %w", backend.ErrCannotWarm)}, false, false, nil},
	} {
		resident, ok, err := backend.Warm(context.Background(), c.store, new(backend.Object), 0, 1)
		if resident != c.resident || ok != c.ok || !errors.Is(err, c.err) {
			t.Errorf("%s: %v, %v, %v", name, resident, ok, err)
		}
	}
}
