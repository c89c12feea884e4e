package bench

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestShardsAreTheSameEachTimeAndDoNotChangeFromReleaseToRelease(t *testing.T) {
	_, d := smallData(t, t.TempDir())
	sum := sha256.New()
	for _, path := range d.files(GroupTar) {
		sum.Write(read(t, path))
	}
	const want = "b676d75c832f83377372a95de87a4f90ec3fba37edd1788efa911d4fab59042e"
	if got := hex.EncodeToString(sum.Sum(nil)); got != want {
		t.Errorf("content %s, want %s: raise dataVersion if this is meant", got, want)
	}
}

// manyShards is a set of several shards, the last of which is not full.
func manyShards(t *testing.T) TarData {
	t.Helper()
	d := TarData{Dir: t.TempDir(), Samples: 1500, SampleBytes: rawFileBytes, salt: rawSalt}
	d.List = filepath.Join(t.TempDir(), "list.txt")
	if err := d.write(context.Background()); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestListIsWhatPythonsTarfileSays(t *testing.T) {
	d := manyShards(t)
	if d.shards() != 3 {
		t.Fatalf("%d shards", d.shards())
	}
	const script = `
import sys, tarfile
for number, path in enumerate(sys.argv[1:]):
    for member in tarfile.open(path):
        print(number, member.offset_data, member.size, member.name)
`
	out, err := exec.Command("python3", append([]string{"-c", script}, d.files()...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var want strings.Builder
	for n, line := range slices.Collect(strings.Lines(string(read(t, d.List)))) {
		fmt.Fprintf(&want, "%s %06d.bin\n", strings.TrimSpace(line), n)
	}
	if string(out) != want.String() {
		t.Errorf("tarfile says\n%.300s\nthe list says\n%.300s", out, want.String())
	}
}

func TestInterruptedShardsAreWrittenAgainToTheSameBytes(t *testing.T) {
	d := manyShards(t)
	first, second := read(t, d.shard(0)), read(t, d.shard(1))
	for _, step := range []error{os.Truncate(d.shard(0), 1000), os.Remove(d.shard(1))} {
		if step != nil {
			t.Fatal(step)
		}
	}
	if err := d.write(context.Background()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read(t, d.shard(0)), first) || !bytes.Equal(read(t, d.shard(1)), second) {
		t.Error("the shards differ")
	}
	if info, err := os.Stat(d.shard(0)); err != nil || info.Size() > shardBytes {
		t.Errorf("a shard of %d bytes: %v", info.Size(), err)
	}
}

func TestListsThatAreNoneAreRefused(t *testing.T) {
	for _, content := range []string{"0 512\n", "0 512 x\n", "0 512 10 7\n", "\n"} {
		path := filepath.Join(t.TempDir(), "list.txt")
		if err := os.WriteFile(path, []byte("0 512 10\n"+content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readMembers(path); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%q: %v", content, err)
		}
	}
}

func TestShardsThatAreNotThereAreRefused(t *testing.T) {
	d := manyShards(t)
	if err := os.Remove(d.shard(2)); err != nil {
		t.Fatal(err)
	}
	members, err := readMembers(d.List)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openShards(d.Dir, members); err == nil || !strings.Contains(err.Error(), "shard-000002.tar") {
		t.Errorf("got %v", err)
	}
}
