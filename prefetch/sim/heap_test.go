package sim

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

type number int

func (n number) Before(m number) bool { return n < m }

func TestHeapsGiveTheLeastAndLoseNone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h heap[number]
		var held []number // what should be in it
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				n := number(rapid.IntRange(0, 9).Draw(t, "number"))
				h.push(n)
				held = append(held, n)
			},
			"pop": func(t *rapid.T) {
				if len(h) == 0 {
					return
				}
				got, want := h.pop(), slices.Min(held)
				if got != want {
					t.Fatalf("%d is not the least of %d", got, held)
				}
				held = slices.Delete(held, slices.Index(held, got), slices.Index(held, got)+1)
			},
			"remove": func(t *rapid.T) {
				if len(h) == 0 {
					return
				}
				i := rapid.IntRange(0, len(h)-1).Draw(t, "place")
				want := h[i]
				if got := h.remove(i); got != want {
					t.Fatalf("removed %d, want %d", got, want)
				}
				held = slices.Delete(held, slices.Index(held, want), slices.Index(held, want)+1)
			},
			"": func(t *rapid.T) {
				if len(h) != len(held) || len(h) > 0 && h[0] != slices.Min(held) {
					t.Fatalf("it has %d, should have %d", h, held)
				}
			},
		})
	})
}

func TestPoolsGiveFreeNumbersAgainAndNoOthers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, held := newPool[int](), map[int32]int{}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				v, spare := rapid.IntRange(1, 99).Draw(t, "value"), len(p.values)-1 > len(held)
				before := len(p.values)
				number := p.add(v)
				if _, twice := held[number]; twice || number <= 0 || spare != (len(p.values) == before) {
					t.Fatalf("number %d while %v are held", number, held)
				}
				held[number] = v
			},
			"drop": func(t *rapid.T) {
				for number := range int32(len(p.values)) {
					if _, is := held[number]; is && rapid.Bool().Draw(t, "this") {
						p.drop(number)
						delete(held, number)
					}
				}
			},
			"": func(t *rapid.T) {
				for number := range p.values {
					if got := *p.at(int32(number)); got != held[int32(number)] {
						t.Fatalf("number %d is %d, want %d", number, got, held[int32(number)])
					}
				}
			},
		})
	})
}
