package main

import (
	"encoding/binary"
	"fmt"

	"github.com/stokerio/stoker/cufile"
)

const (
	golden     = 0x9E3779B97F4A7C15 // 2^64 over the golden ratio: neighbouring words share no bytes
	pieceBytes = 4 << 20
)

// pattern fills p with what a slab of a seed holds from byte at on, a multiple of 8.
func pattern(p []byte, at int64, seed uint64) {
	word := uint64(at / 8)
	for ; len(p) >= 8; p, word = p[8:], word+1 {
		binary.LittleEndian.PutUint64(p, word*golden+seed)
	}
	var last [8]byte
	binary.LittleEndian.PutUint64(last[:], word*golden+seed)
	copy(p, last[:])
}

// pieces calls f with the bounds of each piece of a slab.
func pieces(slab *cufile.Slab, f func(at int64, n int) error) error {
	for at := int64(0); at < slab.Bytes(); at += pieceBytes {
		if err := f(at, int(min(pieceBytes, slab.Bytes()-at))); err != nil {
			return err
		}
	}
	return nil
}

// fill writes the pattern of a seed.
func fill(slab *cufile.Slab, seed uint64) error {
	buffer := make([]byte, pieceBytes)
	return pieces(slab, func(at int64, n int) error {
		pattern(buffer[:n], at, seed)
		if err := slab.CopyIn(buffer[:n], at); err != nil {
			return fmt.Errorf("write %d bytes from byte %d on: %w", n, at, err)
		}
		return nil
	})
}

// check returns the first byte that is not of the pattern of a seed, or -1.
func check(slab *cufile.Slab, seed uint64) (int64, error) {
	found, want, wrong := make([]byte, pieceBytes), make([]byte, pieceBytes), int64(-1)
	err := pieces(slab, func(at int64, n int) error {
		if wrong >= 0 {
			return nil
		}
		if err := slab.CopyOut(found[:n], at); err != nil {
			return fmt.Errorf("read %d bytes from byte %d on: %w", n, at, err)
		}
		pattern(want[:n], at, seed)
		for i := range n {
			if found[i] != want[i] {
				wrong = at + int64(i)
				break
			}
		}
		return nil
	})
	return wrong, err
}
