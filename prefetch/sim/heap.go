package sim

// heap is a binary heap, the first on top. Its values are not boxed, as those of
// container/heap are: a run pushes and pops millions.
type heap[T interface{ Before(T) bool }] []T

func (h *heap[T]) push(v T) {
	*h = append(*h, v)
	h.up(len(*h) - 1)
}

// pop takes the first value; the heap must not be empty.
func (h *heap[T]) pop() T { return h.remove(0) }

// remove takes the value at a place out.
func (h *heap[T]) remove(i int) T {
	all := *h
	v, last := all[i], len(all)-1
	all[i] = all[last]
	*h = all[:last]
	if i < last {
		h.down(i)
		h.up(i)
	}
	return v
}

func (h *heap[T]) up(i int) {
	for all := *h; i > 0; {
		parent := (i - 1) / 2
		if !all[i].Before(all[parent]) {
			return
		}
		all[i], all[parent] = all[parent], all[i]
		i = parent
	}
}

func (h *heap[T]) down(i int) {
	for all := *h; ; {
		child := 2*i + 1
		if child >= len(all) {
			return
		}
		if child+1 < len(all) && all[child+1].Before(all[child]) {
			child++
		}
		if !all[child].Before(all[i]) {
			return
		}
		all[i], all[child] = all[child], all[i]
		i = child
	}
}
