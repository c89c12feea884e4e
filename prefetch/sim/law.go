package sim

import (
	"math"
	"math/rand/v2"
	"time"
)

// Law is how long requests take until their first byte.
type Law interface {
	// Draw gives the latency of the next request.
	Draw(random *rand.Rand) time.Duration
	// Mean is what draws come to on average.
	Mean() time.Duration
}

// Constant latency.
type Constant time.Duration

// Draw implements Law.
func (c Constant) Draw(*rand.Rand) time.Duration { return time.Duration(c) }

// Mean implements Law.
func (c Constant) Mean() time.Duration { return time.Duration(c) }

// Exponential latency, by its mean.
type Exponential time.Duration

// Draw implements Law.
func (e Exponential) Draw(random *rand.Rand) time.Duration {
	return time.Duration(float64(e) * random.ExpFloat64())
}

// Mean implements Law.
func (e Exponential) Mean() time.Duration { return time.Duration(e) }

// Lognormal latency.
type Lognormal struct {
	Average time.Duration
	Spread  float64 // the coefficient of variation
}

// Draw implements Law.
func (l Lognormal) Draw(random *rand.Rand) time.Duration {
	return time.Duration(float64(l.Average) * lognormal(random, l.Spread))
}

// Mean implements Law.
func (l Lognormal) Mean() time.Duration { return l.Average }

// lognormal draws from the lognormal law of mean 1 with that coefficient of variation.
func lognormal(random *rand.Rand, spread float64) float64 {
	variance := math.Log(1 + spread*spread)
	return math.Exp(math.Sqrt(variance)*random.NormFloat64() - variance/2)
}

// Mixture is Common for most requests and Rare for a share of them.
type Mixture struct {
	Common, Rare time.Duration
	Share        float64 // of Rare, [0, 1]
}

// Draw implements Law.
func (m Mixture) Draw(random *rand.Rand) time.Duration {
	if random.Float64() < m.Share {
		return m.Rare
	}
	return m.Common
}

// Mean implements Law.
func (m Mixture) Mean() time.Duration {
	return time.Duration((1-m.Share)*float64(m.Common) + m.Share*float64(m.Rare))
}

// Measured latency: quantiles at equal distances, the least and the greatest included,
// ascending; between them it is linear. Empty means 0.
type Measured []time.Duration

// Draw implements Law.
func (m Measured) Draw(random *rand.Rand) time.Duration {
	if len(m) < 2 {
		return m.Mean()
	}
	at := random.Float64() * float64(len(m)-1)
	i := min(int(at), len(m)-2)
	return m[i] + time.Duration((at-float64(i))*float64(m[i+1]-m[i]))
}

// Mean implements Law.
func (m Measured) Mean() time.Duration {
	switch len(m) {
	case 0:
		return 0
	case 1:
		return m[0]
	}
	var sum float64
	for i := range len(m) - 1 {
		sum += float64(m[i]+m[i+1]) / 2
	}
	return time.Duration(sum / float64(len(m)-1))
}
