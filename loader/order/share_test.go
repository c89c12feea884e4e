package order

import (
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// leg is a stretch of an epoch that is read with one world and batch size.
type leg struct {
	world, batch int
	steps        int64 // at most; the last leg reads to the end
}

// readLeg lets all ranks of a leg read up to limit steps from consumed on, counting
// each position in seen. It returns the new consumed.
func readLeg(t *rapid.T, l leg, dropLast bool, samples, consumed int64, seen []int, limit int64) int64 {
	share := Share{WorldSize: l.world, BatchSize: l.batch, DropLast: dropLast}
	remaining := share.Steps(samples, consumed)
	for step := int64(0); step < limit; step++ {
		atRisk := !dropLast && samples-consumed < int64(l.world)
		next := int64(-1)
		for rank := range l.world {
			share.Rank = rank
			s, ok := share.Next(samples, consumed)
			if ok != (step < remaining) {
				t.Fatalf("%+v: step %d of %d with %d of %d consumed: Next says %v", share, step, remaining, consumed, samples, ok)
			}
			if !ok {
				continue
			}
			if next >= 0 && next != s.Consumed {
				t.Fatalf("%+v: consumed %d, rank before says %d", share, s.Consumed, next)
			}
			next = s.Consumed
			if s.Length == 0 && !atRisk || s.Length < 0 || s.Length > int64(l.batch) {
				t.Fatalf("%+v: step of %d samples with %d of %d consumed", share, s.Length, consumed, samples)
			}
			if dropLast && s.Length != int64(l.batch) {
				t.Fatalf("%+v: drop_last step of %d samples", share, s.Length)
			}
			for i := s.Start; i < s.Start+s.Length; i++ {
				seen[i]++
			}
		}
		if next < 0 {
			return consumed
		}
		if next <= consumed || next > samples {
			t.Fatalf("%+v: consumed %d after %d of %d", share, next, consumed, samples)
		}
		consumed = next
		if got := share.Steps(samples, consumed); got != remaining-step-1 {
			t.Fatalf("%+v: %d steps left after step %d of %d", share, got, step, remaining)
		}
	}
	return consumed
}

func TestAnEpochContinuedByOtherWorldsReadsEachSampleOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		samples := rapid.Int64Range(1, 3000).Draw(t, "samples")
		dropLast := rapid.Bool().Draw(t, "drop_last")
		legs := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) leg {
			return leg{
				world: rapid.IntRange(1, 17).Draw(t, "world"),
				batch: rapid.OneOf(rapid.IntRange(1, 3), rapid.IntRange(1, 64)).Draw(t, "batch"),
				steps: rapid.Int64Range(0, 20).Draw(t, "steps"),
			}
		}), 1, 5).Draw(t, "legs")

		seen, consumed := make([]int, samples), int64(0)
		for i, l := range legs {
			limit := l.steps
			if i == len(legs)-1 {
				limit = math.MaxInt64
			}
			consumed = readLeg(t, l, dropLast, samples, consumed, seen, limit)
		}
		last := legs[len(legs)-1]
		if left := samples - consumed; !dropLast && left != 0 || left >= int64(last.world*last.batch) {
			t.Fatalf("%d of %d samples left at the end of the epoch", left, samples)
		}
		for i, n := range seen {
			if want := int64(i) < consumed; want && n != 1 || !want && n != 0 {
				t.Fatalf("position %d of %d (consumed %d) was read %d times", i, samples, consumed, n)
			}
		}
	})
}

func TestStepsAreNeverEmptyFromTheStartOfAnEpoch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		world := rapid.IntRange(1, 40).Draw(t, "world")
		share := Share{WorldSize: world, BatchSize: rapid.IntRange(2, 20).Draw(t, "batch")}
		samples := rapid.Int64Range(int64(world), 5000).Draw(t, "samples")
		if err := share.Validate(samples); err != nil {
			t.Fatal(err)
		}
		for consumed := int64(0); ; {
			shortest, longest, ok := int64(math.MaxInt64), int64(0), false
			var step Step
			for share.Rank = range world {
				if step, ok = share.Next(samples, consumed); !ok {
					break
				}
				shortest, longest = min(shortest, step.Length), max(longest, step.Length)
			}
			share.Rank = 0
			if !ok {
				return
			}
			if shortest < 1 || longest-shortest > 1 {
				t.Fatalf("%+v: steps of %d to %d samples with %d of %d consumed", share, shortest, longest, consumed, samples)
			}
			consumed = step.Consumed
		}
	})
}

func TestFullStepsGiveEachRankItsSlice(t *testing.T) {
	for rank := range 4 {
		s, ok := Share{Rank: rank, WorldSize: 4, BatchSize: 8}.Next(1000, 64)
		want := Step{Start: 64 + int64(rank)*8, Stride: 1, Length: 8, Consumed: 96}
		if !ok || s != want {
			t.Errorf("rank %d: %+v, %v, want %+v", rank, s, ok, want)
		}
	}
}

func TestShareWorksUpToTheLargestNumbers(t *testing.T) {
	share := Share{Rank: 1, WorldSize: 1 << 20, BatchSize: 1 << 20}
	if err := share.Validate(math.MaxInt64); err != nil {
		t.Fatal(err)
	}
	if s, ok := share.Next(math.MaxInt64, math.MaxInt64-1<<41); !ok || s.Length != 1<<20 {
		t.Errorf("Next = %+v, %v", s, ok)
	}
	if got, want := share.Steps(math.MaxInt64, 0), int64(1<<23); got != want {
		t.Errorf("Steps = %d, want %d", got, want)
	}
}

func TestValidateSaysWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		share   Share
		samples int64
		want    string
	}{
		{Share{WorldSize: 0, BatchSize: 1}, 10, "world_size 0"},
		{Share{Rank: 2, WorldSize: 2, BatchSize: 1}, 10, "rank 2"},
		{Share{Rank: -1, WorldSize: 2, BatchSize: 1}, 10, "rank -1"},
		{Share{WorldSize: 1, BatchSize: 0}, 10, "batch_size 0"},
		{Share{WorldSize: math.MaxInt64 / 2, BatchSize: 3}, 10, "more samples a step"},
		{Share{WorldSize: 11, BatchSize: 1}, 10, "larger than the dataset"},
		{Share{WorldSize: 2, BatchSize: 6, DropLast: true}, 10, "leaves no step"},
		{Share{WorldSize: 2, BatchSize: 5, DropLast: true}, 10, ""},
		{Share{WorldSize: 10, BatchSize: 64}, 10, ""},
		{Share{WorldSize: 11, BatchSize: 1, Padded: true}, 10, ""},
		{Share{WorldSize: 11, BatchSize: 1, Padded: true, DropLast: true}, 10, "leaves no step"},
		{Share{WorldSize: 1, BatchSize: 1, Padded: true}, math.MaxInt64, "a padded order has at most"},
	} {
		err := c.share.Validate(c.samples)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%+v of %d: %v", c.share, c.samples, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%+v of %d: error %v, want one with %q", c.share, c.samples, err, c.want)
		}
	}
}

func TestOnlyTheWorldThatBeganAPaddedEpochContinuesIt(t *testing.T) {
	for _, c := range []struct {
		share    Share
		consumed int64
		want     string
	}{
		{Share{WorldSize: 3, BatchSize: 2}, 10, ""},
		{Share{WorldSize: 3, BatchSize: 2}, 11, "the epoch has 10 samples"},
		{Share{WorldSize: 3, BatchSize: 2}, -1, "samples_consumed is -1"},
		{Share{WorldSize: 3, BatchSize: 2, Padded: true}, 6, ""},
		{Share{WorldSize: 3, BatchSize: 2, Padded: true}, 12, ""},
		{Share{WorldSize: 3, BatchSize: 2, Padded: true, DropLast: true}, 12, ""},
		{Share{WorldSize: 3, BatchSize: 2, Padded: true}, 15, "the epoch has 12 samples"},
		{Share{WorldSize: 3, BatchSize: 2, Padded: true}, 4, "world_size 3 does not divide"},
	} {
		err := c.share.Continues(10, c.consumed)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v after %d of 10: error %v, want one with %q", c.share, c.consumed, err, c.want)
		}
	}
}

// Another batch size may continue a padded epoch: each rank's samples stay the same.
func TestAPaddedEpochContinuedByAnotherBatchSizeGivesEachRankItsSamples(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		samples := rapid.Int64Range(1, 300).Draw(t, "samples")
		share := Share{WorldSize: rapid.IntRange(1, 12).Draw(t, "world"), Padded: true}
		share.Rank = rapid.IntRange(0, share.WorldSize-1).Draw(t, "rank")
		consumed, want := int64(0), int64(share.Rank)
		for {
			share.BatchSize = rapid.IntRange(1, 40).Draw(t, "batch")
			step, more := share.Next(samples, consumed)
			if steps := share.Steps(samples, consumed); more != (steps > 0) {
				t.Fatalf("%d steps left, Next says %v", steps, more)
			}
			if !more {
				break
			}
			for i := range step.Length {
				if got := step.Position(i, samples); got != want%samples {
					t.Fatalf("position %d, want %d", got, want%samples)
				}
				want += int64(share.WorldSize)
			}
			if err := share.Continues(samples, step.Consumed); err != nil {
				t.Fatal(err)
			}
			consumed = step.Consumed
		}
		if consumed < samples || consumed >= samples+int64(share.WorldSize) {
			t.Fatalf("the epoch of %d samples ends at %d", samples, consumed)
		}
	})
}

func TestSharesAllocateNothing(t *testing.T) {
	share, sum := Share{Rank: 3, WorldSize: 8, BatchSize: 32}, int64(0)
	allocs := testing.AllocsPerRun(100, func() {
		for consumed := int64(0); ; {
			s, ok := share.Next(10007, consumed)
			if !ok {
				return
			}
			sum, consumed = sum+s.Start, s.Consumed
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations an epoch, want 0", allocs)
	}
}
