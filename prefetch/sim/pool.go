package sim

// pool keeps values by number, and gives numbers of those that were dropped to new ones.
// Number 0 stands for none.
type pool[T any] struct {
	values []T // [0] is not used
	free   []int32
}

func newPool[T any]() pool[T] { return pool[T]{values: make([]T, 1)} }

// at returns a value, until the next add.
func (p *pool[T]) at(number int32) *T { return &p.values[number] }

func (p *pool[T]) add(v T) int32 {
	if last := len(p.free) - 1; last >= 0 {
		number := p.free[last]
		p.free = p.free[:last]
		p.values[number] = v
		return number
	}
	p.values = append(p.values, v)
	return int32(len(p.values) - 1)
}

// drop forgets a value: its place is zero until the number is given again.
func (p *pool[T]) drop(number int32) {
	var none T
	p.values[number] = none
	p.free = append(p.free, number)
}
