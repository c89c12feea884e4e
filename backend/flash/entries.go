package flash

import (
	"bytes"
	"container/heap"
	"context"
	"slices"
	"strings"

	"github.com/stokerio/stoker/backend"
)

// Entry is a chunk as the store has it.
type Entry struct {
	ID    backend.ChunkID `json:"id"`
	Size  int64           `json:"size"`  // bytes
	Bytes int64           `json:"bytes"` // of them, those that are there
	Put   bool            `json:"put"`   // durable; false: a copy that may be dropped
	Held  bool            `json:"held"`  // somebody reads it
	Path  string          `json:"path"`  // of the file that it is in
	At    int64           `json:"offset"`
}

// Entries calls visit for every chunk, in no order, until visit returns an error, which
// Entries then returns. What is stored or dropped meanwhile may be visited or not.
func (s *Store) Entries(ctx context.Context, visit func(Entry) error) error {
	return s.each(ctx, "list", visit)
}

// each calls visit for every chunk. It goes by the index, not by the spans: a chunk that
// moves meanwhile is visited once.
func (s *Store) each(ctx context.Context, op string, visit func(Entry) error) error {
	if err := s.enter(op, nil); err != nil {
		return err
	}
	defer s.leave()
	var batch []Entry
	for i := range s.index.shards {
		if ctx.Err() != nil {
			return cancelled(op, nil, ctx)
		}
		batch = s.index.entries(&s.index.shards[i], batch[:0])
		for i := range batch {
			if err := visit(batch[i]); err != nil {
				return err
			}
		}
	}
	if ctx.Err() != nil {
		return cancelled(op, nil, ctx)
	}
	return nil
}

// entries appends the chunks of a shard.
func (i *index) entries(h *shard, all []Entry) []Entry {
	h.mu.Lock()
	defer h.mu.Unlock()
	var of *segment
	var path string
	for _, c := range h.cells {
		if c == noCell || c == tomb {
			continue
		}
		r := ref(c & refMask)
		x, slot := i.store.slotOf(r)
		if x.segment != of {
			of, path = x.segment, x.segment.path()
		}
		all = append(all, Entry{
			ID: slot.id, Size: int64(slot.size), Bytes: slot.bytes(), Put: slot.kind == put, Held: slot.holds > 0,
			Path: path, At: x.segment.device.geometry.extentAt(x.class, r.place()),
		})
	}
	return all
}

// PageRequest asks for a part of the chunks, in the order of their names.
type PageRequest struct {
	After  backend.ChunkID // those behind it
	Prefix string          // hexadecimal digits with which their names begin
	Limit  int             // at most so many; default and most: MaxPage
}

// MaxPage is how many chunks a page has at most.
const MaxPage = 10_000

// Page is a part of the chunks.
type Page struct {
	Chunks []Entry         `json:"chunks"`
	Next   backend.ChunkID `json:"next,omitzero"` // After of the next page; zero: this is the last one
}

// Page returns chunks in the order of their names. It looks at all of them and keeps as
// many as it returns.
func (s *Store) Page(ctx context.Context, r PageRequest) (Page, error) {
	if r.Limit <= 0 || r.Limit > MaxPage {
		r.Limit = MaxPage
	}
	first, prefix := greatestFirst{}, strings.ToLower(r.Prefix)
	err := s.each(ctx, "list", func(e Entry) error {
		switch {
		case bytes.Compare(e.ID[:], r.After[:]) <= 0 && r.After != (backend.ChunkID{}), prefix != "" && !strings.HasPrefix(e.ID.String(), prefix):
			return nil
		case len(first) <= r.Limit: // one more, to know whether there is a next page
			heap.Push(&first, e)
		case bytes.Compare(e.ID[:], first[0].ID[:]) < 0:
			first[0] = e
			heap.Fix(&first, 0)
		}
		return nil
	})
	if err != nil {
		return Page{}, err
	}
	slices.SortFunc(first, func(a, b Entry) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	page := Page{Chunks: append([]Entry{}, first[:min(len(first), r.Limit)]...)}
	if len(first) > r.Limit {
		page.Next = first[r.Limit-1].ID
	}
	return page, nil
}

// greatestFirst is a heap of entries with the greatest name on top.
type greatestFirst []Entry

func (h greatestFirst) Len() int           { return len(h) }
func (h greatestFirst) Less(i, j int) bool { return bytes.Compare(h[i].ID[:], h[j].ID[:]) > 0 }
func (h greatestFirst) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *greatestFirst) Push(x any)        { *h = append(*h, x.(Entry)) }
func (h *greatestFirst) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}
