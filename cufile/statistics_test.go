package cufile

import (
	"encoding/binary"
	"testing"
)

// wordsOf fills a buffer so that each 8 bytes hold their own offset: what is decoded
// then says where it was read.
func wordsOf(bytes int) []byte {
	raw := make([]byte, bytes)
	for offset := 0; offset+8 <= bytes; offset += 8 {
		binary.NativeEndian.PutUint64(raw[offset:], uint64(offset))
	}
	return raw
}

func TestStatisticsAreReadWhereTheHeaderPutsThem(t *testing.T) {
	for _, test := range []struct {
		name    string
		vectors bool
		devices int // offset of num_gpus
	}{
		{"cuFile 1.15", false, 1024},
		{"cuFile 1.19", true, 1136},
	} {
		raw := wordsOf(8192)
		binary.NativeEndian.PutUint32(raw[test.devices:], 2)
		s := decodeStatistics(raw, 3, test.vectors)
		if s.Reads != (Counter{0, 8}) || s.BufferDeregisters != (Counter{80, 88}) || s.ReadBytes != 96 {
			t.Errorf("%s: level 1 is %+v", test.name, s)
		}
		if want := uint64(test.devices - 512); s.ReadSizes[0] != want || s.ReadSizes[31] != want+31*8 {
			t.Errorf("%s: histogram from %d to %d, want from %d", test.name, s.ReadSizes[0], s.ReadSizes[31], want)
		}
		if len(s.Devices) != 2 {
			t.Fatalf("%s: %d devices, want 2", test.name, len(s.Devices))
		}
		at := uint64(test.devices + 8 + 248)
		if d := s.Devices[1]; d.ReadBytes != at+16 || d.P2PReads != at+56 || d.NvidiaFSReads != at+64 ||
			d.PosixReads != at+72 || d.UnalignedReads != at+80 || d.ReadErrors != at+112 || d.RegisteredBytes != at+240 {
			t.Errorf("%s: the second device, at %d, is %+v", test.name, at, d)
		}
	}
}

func TestStatisticsBelieveNoNumberOfDevices(t *testing.T) {
	raw := wordsOf(8192)
	binary.NativeEndian.PutUint32(raw[1024:], 1<<31)
	if got := len(decodeStatistics(raw, 3, false).Devices); got != maxDevices {
		t.Errorf("%d devices, want %d", got, maxDevices)
	}
	if got := decodeStatistics(raw, 1, false); got.Devices != nil || got.ReadSizes != [32]uint64{} {
		t.Errorf("level 1 has what is level 2's: %+v", got)
	}
}

func TestProofsAreJudgedByTheCounters(t *testing.T) {
	for _, test := range []struct {
		name             string
		p2p, nvfs, posix uint64
		want             Route
	}{
		{"all by P2PDMA", 16, 0, 0, PCIP2PDMA},
		{"more by P2PDMA than reads: pieces", 32, 0, 0, PCIP2PDMA},
		{"all by nvidia-fs", 0, 16, 0, NvidiaFS},
		{"all through POSIX", 0, 0, 16, NotDirect},
		{"one through POSIX", 15, 0, 1, NotDirect},
		{"nothing counted", 0, 0, 0, Unknown},
		{"too few counted", 15, 0, 0, Unknown},
		{"both ways", 16, 16, 0, Unknown},
	} {
		p := Proof{Reads: 16}
		before := DeviceStatistics{P2PReads: 100, NvidiaFSReads: 200, PosixReads: 300}
		p.judge(before, DeviceStatistics{P2PReads: 100 + test.p2p, NvidiaFSReads: 200 + test.nvfs, PosixReads: 300 + test.posix})
		if p.Route != test.want || p.Reason == "" || !p.Counted {
			t.Errorf("%s: %s (%s), want %s", test.name, p.Route, p.Reason, test.want)
		}
		if p.Route.Direct() != (test.want == PCIP2PDMA || test.want == NvidiaFS) {
			t.Errorf("%s: Direct is %v", test.name, p.Route.Direct())
		}
	}
}
