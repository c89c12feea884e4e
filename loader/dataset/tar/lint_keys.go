package tar

import (
	"fmt"
	"hash/maphash"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
)

// maxKeys is how many keys a lint compares across shards: 16 bytes each in a table of
// at most twice as many places.
const maxKeys = 8 << 20

// maxKeyText bounds the keys of one shard that are kept to be named.
const maxKeyText = 64 << 20

// folded marks the hash of a key whose capitals were made small.
const folded = 1 << 31

// keyTable is a set of hashes of keys, each with the shard that it was first seen in,
// by open addressing.
type keyTable struct {
	seed   maphash.Seed
	limit  int // keys
	n      int
	hashes []uint64 // 0: free
	shards []uint32 // number, or folded|number
}

func newKeyTable(limit int) *keyTable { return &keyTable{seed: maphash.MakeSeed(), limit: limit} }

// insert notes a hash unless it is there; then it returns what was noted with it.
func (t *keyTable) insert(hash uint64, shard uint32) (there uint32, found bool) {
	if 4*(t.n+1) > 3*len(t.hashes) {
		t.grow()
	}
	slot := t.slot(hash)
	if t.hashes[slot] == hash {
		return t.shards[slot], true
	}
	t.hashes[slot], t.shards[slot] = hash, shard
	t.n++
	return 0, false
}

// slot returns where a hash is, or would be.
func (t *keyTable) slot(hash uint64) int {
	mask := len(t.hashes) - 1
	slot := int(hash) & mask
	for t.hashes[slot] != 0 && t.hashes[slot] != hash {
		slot = (slot + 1) & mask
	}
	return slot
}

func (t *keyTable) grow() {
	hashes, shards := t.hashes, t.shards
	size := max(1024, 2*len(hashes))
	t.hashes, t.shards = make([]uint64, size), make([]uint32, size)
	for i, h := range hashes {
		if h != 0 {
			slot := t.slot(h)
			t.hashes[slot], t.shards[slot] = h, shards[i]
		}
	}
}

// shardKeys are the keys of one shard.
type shardKeys struct {
	seed    maphash.Seed
	entries []shardKey
	text    []byte // the keys, as far as they are kept
	scratch []byte
}

type shardKey struct {
	hash   uint64
	fold   uint64 // of the key without capitals, 0 if it has none
	header int64
	end    uint32 // of the key in text, which begins where the one before ends
}

func (k *shardKeys) add(key []byte, header int64) {
	e := shardKey{hash: hashOf(k.seed, key), header: header}
	if hasCapital(key) {
		k.scratch = appendLower(k.scratch[:0], key)
		e.fold = hashOf(k.seed, k.scratch)
	}
	if len(k.text)+len(key) <= maxKeyText {
		k.text = append(k.text, key...)
	}
	e.end = uint32(len(k.text))
	k.entries = append(k.entries, e)
}

// key returns the text of a key, "" if it was not kept.
func (k *shardKeys) key(i int) string {
	start := uint32(0)
	if i > 0 {
		start = k.entries[i-1].end
	}
	return string(k.text[start:k.entries[i].end])
}

// mergeKeys compares the keys of a shard with those before.
func (l *linter) mergeKeys(shard int, o *backend.Object, r *shardReport) error {
	table := l.keys
	if !l.full && table.n+2*len(r.keys.entries) > table.limit {
		l.full = true
		if err := l.addFile("keys-unchecked", shard, fmt.Sprintf("%d keys were compared up to this archive", table.n)); err != nil {
			return err
		}
	}
	if l.full {
		table = newKeyTable(0)
	}
	for i := range r.keys.entries {
		e := &r.keys.entries[i]
		code, what := l.compareKey(table, uint32(shard), e)
		if code == "" {
			continue
		}
		if err := l.Add(dataset.Finding{Code: code, File: string(o.Name), Offset: e.header, Key: r.keys.key(i), What: what}); err != nil {
			return err
		}
	}
	return nil
}

// compareKey says what is wrong with a key, if anything is.
func (l *linter) compareKey(table *keyTable, shard uint32, e *shardKey) (code, what string) {
	there, found := table.insert(e.hash, shard)
	if found && there&folded == 0 {
		if there == shard {
			return "duplicate-key", "a sample before it in this archive has the same key"
		}
		return "duplicate-key", fmt.Sprintf("a sample in %q has the same key", l.shards[there].Name)
	}
	if !found && e.fold != 0 {
		there, found = table.insert(e.fold, shard|folded)
	}
	if !found {
		return "", ""
	}
	return "case-collision", fmt.Sprintf("a key in %q differs from it in capitals only", l.shards[there&^folded].Name)
}
