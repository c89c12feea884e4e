package flash

import (
	"context"
	"fmt"

	"github.com/stokerio/stoker/backend"
)

// nameOf is what a person would call a chunk.
func nameOf(c *backend.Chunk) string {
	switch {
	case c == nil:
		return "flash"
	case c.Object != nil:
		return fmt.Sprintf("%s [%d, %d)", c.Object.Name, c.Start, c.Start+c.Size)
	}
	return c.ID.String()
}

func rangeError(op string, c *backend.Chunk, off, n int64, detail string) error {
	return &backend.Error{
		Kind: backend.OutOfRange, Op: op, Object: nameOf(c), Detail: fmt.Sprintf("%d bytes from %d of %d: %s", n, off, c.Size, detail),
	}
}

func cancelled(op string, c *backend.Chunk, ctx context.Context) error {
	return &backend.Error{Kind: backend.Unavailable, Op: op, Object: nameOf(c), Err: context.Cause(ctx)}
}
