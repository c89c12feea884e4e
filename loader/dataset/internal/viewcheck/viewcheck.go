// Package viewcheck holds Views against the contract of dataset.View, for the tests of the
// formats.
package viewcheck

import (
	"bytes"
	"fmt"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
)

// Objects plans all samples of a View and holds every object of the plan against
// what Object returns for its number. It returns how many objects there were.
func Objects(v dataset.View) (seen int, err error) {
	samples := make([]int64, v.Len())
	for i := range samples {
		samples[i] = int64(i)
	}
	var p dataset.Plan
	if err := v.Plan(&p, samples); err != nil {
		return 0, err
	}
	var scratch []byte
	for i := range p.Objects {
		planned := &p.Objects[i]
		o, err := v.Object(planned.Number, &scratch)
		if err != nil {
			return 0, err
		}
		if o.Origin != planned.Origin || o.Number != planned.Number || o.Version != planned.Version || !bytes.Equal(o.Name, planned.Name) {
			return 0, fmt.Errorf("object %d is %+v, planned was %+v", planned.Number, o, *planned)
		}
		if planned.Number < 0 || planned.Number >= v.Objects() {
			return 0, fmt.Errorf("object %d is not in [0, %d)", planned.Number, v.Objects())
		}
	}
	for _, number := range []int64{-1, v.Objects(), 1 << 62, -1 << 63} {
		if o, err := v.Object(number, &scratch); backend.KindOf(err) != backend.OutOfRange {
			return 0, fmt.Errorf("object %d is %+v, %w", number, o, err)
		}
	}
	return len(p.Objects), nil
}
