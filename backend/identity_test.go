package backend_test

import (
	"bytes"
	"testing"

	"github.com/stokerio/stoker/backend"
)

// identified are chunks whose identities are written down, since those on flash must stay
// what they are. Their names are of lengths below, at and above what is usual.
func identified() []backend.Chunk {
	local := &backend.Object{
		Origin: "file:1:2", Number: 7, Name: []byte("train/0001.tar"),
		Version: backend.Version{Device: 1, Inode: 2, Size: 3 << 20, ModifiedNs: 4, ChangedNs: 5},
	}
	remote := &backend.Object{
		Origin: "s3:bucket/prefix", Name: bytes.Repeat([]byte("n"), 1024),
		Version: backend.Version{Size: 100, Tag: `"0123456789abcdef"`},
	}
	return []backend.Chunk{
		{Object: &backend.Object{}},
		{Object: local, Size: 1 << 20},
		{Object: local, Start: 1 << 20, Size: 2 << 20},
		{Object: remote, Size: 100},
	}
}

func TestIdentitiesStayWhatTheyAre(t *testing.T) {
	for i, want := range []string{
		"6ba212aad7f6eb4e216ceaf270778639e81c565938360246a45e1f51cf2aaf3a",
		"7a2e5b3670af3d6686538e22f7fd53db6845395ae2d9477e221264bcff141728",
		"b11a00ef83c975c77aea8aefbe03508642ecae17eadcbd26d7d0d0dab54463fa",
		"6994e3171f5dd73cb056cd3d484e63931fb66a7ac24dea351ce3ce8cb3ee958f",
	} {
		if found := identified()[i].Identity().String(); found != want {
			t.Errorf("chunk %d: %s, want %s", i, found, want)
		}
	}
}

func TestAnIdentityAllocatesNothing(t *testing.T) {
	c := identified()[1]
	c.Object.Name = bytes.Repeat([]byte("n"), 800)
	var id backend.ChunkID
	if n := testing.AllocsPerRun(100, func() { id = c.Identity() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if id == (backend.ChunkID{}) {
		t.Error("no identity")
	}
}
