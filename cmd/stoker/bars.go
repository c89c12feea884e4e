package main

import (
	"math"
	"strings"
)

// cause is one thing that trainers wait on: its name, and the letter and colour
// (an ECMA-48 code) that stand for it in bars.
type cause struct {
	name   string
	letter string
	colour string
}

// causes are all causes in the order of bars.
var causes = []cause{
	{"disk", "d", "31"}, {"index", "i", "35"}, {"order", "o", "34"}, {"ring", "r", "32"}, {"wake", "w", "33"},
	{"transform", "t", "36"}, {"other", "?", "37"},
}

// values are the shares in the order of causes.
func (s stallShares) values() []float64 {
	return []float64{s.Disk, s.Index, s.Order, s.Ring, s.Wake, s.Transform, s.Other}
}

// stallBar draws shares of a whole as cells of letters; the rest is dots. Each
// boundary is rounded, so that cells never add up to more than there are, and what
// is there but too little for a cell shows in none.
func stallBar(shares []float64, cells int, colours bool) string {
	var bar strings.Builder
	sum, drawn := 0.0, 0
	for i, share := range shares {
		sum += share
		until := min(int(math.Round(sum*float64(cells))), cells)
		if until > drawn {
			bar.WriteString(paint(colours, causes[i].colour, strings.Repeat(causes[i].letter, until-drawn)))
			drawn = until
		}
	}
	return bar.String() + strings.Repeat("·", cells-drawn)
}

// ringGaugeCells is the width of a gauge; a smaller ring has a cell a slot.
const ringGaugeCells = 12

// ringGauge draws a ring's slots: ready, held, free.
func ringGauge(ready, held, slots int64, colours bool) string {
	if slots <= 0 {
		return ""
	}
	cells := int(min(slots, ringGaugeCells))
	upTo := func(count int64) int {
		return int(math.Round(float64(min(max(count, 0), slots)) * float64(cells) / float64(slots)))
	}
	full, taken := upTo(ready), upTo(ready+max(held, 0))
	return paint(colours, "32", strings.Repeat("█", full)) + paint(colours, "33", strings.Repeat("▒", taken-full)) + strings.Repeat("·", cells-taken)
}

// paint writes text in a colour, if colours are wanted.
func paint(colours bool, code, text string) string {
	if !colours || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}
