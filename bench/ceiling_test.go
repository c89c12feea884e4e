package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func ceilingOptions(d Data) []CeilingOptions {
	return []CeilingOptions{
		{Kind: "raw", Dir: d.RawDir, List: d.RawList, RowBytes: rawFileBytes, Batch: 8, Threads: 2, Slots: 3, Seconds: 0.05},
		{Kind: "raw", Dir: d.RawDir, List: d.RawList, RowBytes: rawFileBytes, Batch: 8, Threads: 1, Slots: 2, Seconds: 0.05, Consumer: true},
		{Kind: "tokens", File: d.Tokens, RowBytes: 4098, RowStride: 4096, Batch: 64, Threads: 2, Slots: 4, Seconds: 0.05, Consumer: true},
		{Kind: "tar", Dir: d.Tar.Dir, List: d.Tar.List, RowBytes: rawFileBytes, Batch: 8, Threads: 2, Slots: 3, Seconds: 0.05, Consumer: true},
		{Kind: "tar", Dir: d.TarSmall.Dir, List: d.TarSmall.List, RowBytes: tarSmallBytes, Batch: 64, Threads: 1, Slots: 2, Seconds: 0.05},
		{Kind: "memcpy", Seconds: 0.02},
	}
}

func TestBareLoopsReadAndCount(t *testing.T) {
	_, d := smallData(t, t.TempDir())
	for _, o := range ceilingOptions(d) {
		argument, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := CeilingMain(context.Background(), string(argument), &out); err != nil {
			t.Fatal(err)
		}
		var r CeilingResult
		if err := json.Unmarshal(out.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		if r.Bytes <= 0 || r.WallNs <= 0 || r.CPUNs <= 0 || r.Bytes != r.Rows*o.RowBytes && o.Kind != "memcpy" {
			t.Errorf("%s: %+v", o.Kind, r)
		}
	}
}

func TestBareLoopFillsItsMemoryWithTheFiles(t *testing.T) {
	_, d := smallData(t, t.TempDir())
	o := CeilingOptions{Kind: "raw", Dir: d.RawDir, List: d.RawList, RowBytes: rawFileBytes}
	read, samples, done, err := o.reader()
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	if samples != d.RawFiles {
		t.Fatalf("%d samples", samples)
	}
	got, want := make([]byte, rawFileBytes), make([]byte, rawFileBytes)
	if err := read(33, got); err != nil {
		t.Fatal(err)
	}
	fillRaw(want, 33)
	if !bytes.Equal(got, want) {
		t.Error("file 33 holds other bytes")
	}
}

func TestBareLoopFillsItsMemoryWithTheMembers(t *testing.T) {
	_, d := smallData(t, t.TempDir())
	o := CeilingOptions{Kind: "tar", Dir: d.Tar.Dir, List: d.Tar.List, RowBytes: rawFileBytes}
	read, samples, done, err := o.reader()
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	if samples != d.Tar.Samples {
		t.Fatalf("%d samples", samples)
	}
	got, want := make([]byte, rawFileBytes), make([]byte, rawFileBytes)
	if err := read(33, got); err != nil {
		t.Fatal(err)
	}
	fillRaw(want, 33)
	if !bytes.Equal(got, want) {
		t.Error("member 33 holds other bytes")
	}
}

func TestBareLoopErrorsNameWhatIsWrong(t *testing.T) {
	_, d := smallData(t, t.TempDir())
	for want, o := range map[string]CeilingOptions{
		"none of raw":     {Kind: "x", Batch: 1, Threads: 1, Slots: 1, RowBytes: 1},
		"slot a thread":   {Kind: "raw", Batch: 1, Threads: 2, Slots: 1, RowBytes: 1},
		".bin\": no such": {Kind: "raw", Dir: t.TempDir(), List: d.RawList, RowBytes: 10, Batch: 70, Threads: 1, Slots: 1, Seconds: 0.05},
	} {
		if _, err := Ceiling(context.Background(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestCancelEndsABareLoop(t *testing.T) {
	_, d := smallData(t, t.TempDir())
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	o := ceilingOptions(d)[0]
	o.Seconds = 3600
	if _, err := Ceiling(ctx, o); err == nil {
		t.Error("no error")
	}
}
