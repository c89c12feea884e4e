package backend

import (
	"context"
	"errors"
)

// ErrCannotWarm is what Warm answers for an object that a Warmer can do nothing for, such
// as one of a store below it that is none.
var ErrCannotWarm = errors.New("the store cannot bring these bytes nearer")

// Warmer is the optional ability to bring bytes nearer without delivering them.
type Warmer interface {
	// Warm returns once the bytes [off, off+n) of o are where a read finds them without
	// waiting, as far as the store can tell: for local files, in the page cache. Nothing
	// keeps them there. resident says that they were there already.
	//
	// The object's version is checked before and after, as a Gather does. Cancelling ctx
	// ends the call between two pieces. Parallel calls are allowed.
	// Errors: ErrCannotWarm, NotFound, Changed, Corrupt, Unavailable, Permission, OutOfRange.
	Warm(ctx context.Context, o *Object, off, n int64) (resident bool, err error)
}

// Prober is the optional ability to tell how near bytes are.
type Prober interface {
	// Resident says how many of the bytes [off, off+n) of o a read would find without
	// waiting, without bringing any there: for local files, those in the page cache, where
	// pages that are being read already count. known is false where that cannot be told.
	// Parallel calls are allowed.
	// Errors: as Warm.
	Resident(ctx context.Context, o *Object, off, n int64) (bytes int64, known bool, err error)
}

// Warm brings bytes nearer through the store's own ability. ok is false if it cannot. It
// does not look through wrappers, as Gather does not.
func Warm(ctx context.Context, s Store, o *Object, off, n int64) (resident, ok bool, err error) {
	w, ok := s.(Warmer)
	if !ok {
		return false, false, nil
	}
	resident, err = w.Warm(ctx, o, off, n)
	if errors.Is(err, ErrCannotWarm) {
		return false, false, nil
	}
	return resident, true, err
}
