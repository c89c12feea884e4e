package bench

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
)

// smallData makes a small dataset in dir.
func smallData(t *testing.T, dir string) (CompareOptions, Data) {
	t.Helper()
	o := CompareOptions{
		DataDir: dir, Cases: Groups(), RawFiles: 70, TokenBytes: 2 * (140*tokenBlock + 1), TarSamples: 140, ScanSamples: 200,
		Progress: func(int, int, string) {},
	}
	d, err := MakeData(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return o, d
}

func TestDataIsTheSameEachTimeAndDoesNotChangeFromReleaseToRelease(t *testing.T) {
	_, d := smallData(t, t.TempDir())
	sum := sha256.New()
	for n := range d.RawFiles {
		content, err := os.ReadFile(filepath.Join(d.RawDir, rawName(n)))
		if err != nil {
			t.Fatal(err)
		}
		if len(content) != rawFileBytes {
			t.Fatalf("file %d has %d bytes", n, len(content))
		}
		sum.Write(content)
	}
	tokens, err := os.ReadFile(d.Tokens)
	if err != nil {
		t.Fatal(err)
	}
	sum.Write(tokens)
	const want = "ad4ba956b588be514baf75c3aa0a21ebb3da1e23c489a362c710cee2f3736b3d"
	if got := hex.EncodeToString(sum.Sum(nil)); got != want {
		t.Errorf("content %s, want %s: raise dataVersion if this is meant", got, want)
	}
}

func TestInterruptedDataIsContinuedToTheSameBytes(t *testing.T) {
	dir := t.TempDir()
	o, d := smallData(t, dir)
	file, tokens := filepath.Join(d.RawDir, rawName(3)), d.Tokens
	wantFile, wantTokens := read(t, file), read(t, tokens)
	// As after a crash: no markers, a short file, a missing file, half of the tokens.
	for _, step := range []error{
		os.Remove(d.RawDir + ".done"), os.Remove(d.TokensDir + ".done"),
		os.Truncate(file, 1000), os.Remove(filepath.Join(d.RawDir, rawName(5))),
		os.Truncate(tokens, int64(len(wantTokens)/2)),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	if _, err := MakeData(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read(t, file), wantFile) || !bytes.Equal(read(t, tokens), wantTokens) {
		t.Error("the continued data differs")
	}
	if len(read(t, filepath.Join(d.RawDir, rawName(5)))) != rawFileBytes {
		t.Error("the missing file is still missing")
	}
}

func TestFinishedDataIsNotWrittenAgain(t *testing.T) {
	dir := t.TempDir()
	o, d := smallData(t, dir)
	before, err := os.Stat(d.Tokens)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := MakeData(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(d.Tokens)
	if err != nil {
		t.Fatal(err)
	}
	if before.ModTime() != after.ModTime() {
		t.Error("the token file was written again")
	}
}

func TestCancelledDataMakingSaysSo(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	o := CompareOptions{DataDir: t.TempDir(), Cases: Groups(), RawFiles: 10, TokenBytes: 1 << 20, Progress: func(int, int, string) {}}
	if _, err := MakeData(ctx, o); err == nil {
		t.Error("no error")
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
