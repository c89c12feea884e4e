//go:build race

package tar

const raceEnabled = true
