package loader

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/shm"
)

// member is one file of a shard.
type member struct {
	name, content string
}

// writeShard writes an archive; a name that ends in .gz is compressed.
func writeShard(t testing.TB, path string, members ...member) {
	t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, m := range members {
		if err := w.WriteHeader(&tar.Header{Name: m.name, Size: int64(len(m.content)), Mode: 0o644, Format: tar.FormatUSTAR}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(m.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	content := archive.Bytes()
	if strings.HasSuffix(path, ".gz") {
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		_, _ = z.Write(content)
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		content = packed.Bytes()
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// writeShards makes count samples in shards of four: jpg in all, cls in all, a txt
// in every third. The last shard is compressed if packed is set.
func writeShards(t testing.TB, count int, packed bool) string {
	t.Helper()
	dir := t.TempDir()
	for start := 0; start < count; start += 4 {
		var members []member
		for i := start; i < min(start+4, count); i++ {
			key := fmt.Sprintf("d/%06d", i)
			members = append(members, member{key + ".cls", fmt.Sprint(i % 7)}, member{key + ".jpg", picture(i)})
			if i%3 == 0 {
				members = append(members, member{key + ".txt", "text of " + key})
			}
		}
		name := fmt.Sprintf("shard-%03d.tar", start/4)
		if packed && start+4 >= count {
			name += ".gz"
		}
		writeShard(t, filepath.Join(dir, name), members...)
	}
	return dir
}

func picture(i int) string { return strings.Repeat(fmt.Sprintf("picture %d|", i), 1+i*37%400) }

// wantPictures compares one batch's jpg column with what writeShards wrote.
func wantPictures(t *testing.T, b *batch, column int) {
	t.Helper()
	for row, sample := range b.index {
		got := string(b.columns[column][b.offsets[column][row]:b.offsets[column][row+1]])
		if want := picture(int(sample)); got != want {
			t.Fatalf("sample %d has %d bytes %.20q, expected %d bytes %.20q", sample, len(got), got, len(want), want)
		}
	}
}

func TestTarBatchesHoldTheSelectedParts(t *testing.T) {
	for _, packed := range []bool{false, true} {
		t.Run(fmt.Sprintf("packed=%v", packed), func(t *testing.T) {
			n := startNode(t, testOptions(t))
			info := n.add("tars", writeShards(t, 22, packed))
			if info.Format != "tar" || info.Samples != 22 || info.Files != 6 || len(info.Parts) != 3 || info.Saw == "" {
				t.Fatalf("dataset %+v", info)
			}
			request := openRequest("tars")
			request.Select = []shm.SelectColumn{{Name: "label", Parts: []string{"cls"}}, {Name: "image", Parts: []string{"png", "jpg"}}}
			request.Order, request.Seed = "global", 3
			c := n.openSession(request)
			if names := []string{c.opened.Columns[0].Name, c.opened.Columns[1].Name}; len(c.opened.Columns) != 2 || names[0] != "label" || names[1] != "image" {
				t.Fatalf("columns %+v", c.opened.Columns)
			}
			seen := map[int64]bool{}
			for b := c.next(); b.Kind != shm.KindEndOfEpoch; b = c.next() {
				if b.Kind == shm.KindError {
					t.Fatal(b.failure)
				}
				wantPictures(t, &b, 1)
				for row, sample := range b.index {
					seen[sample] = true
					if got := string(b.columns[0][b.offsets[0][row]:b.offsets[0][row+1]]); got != fmt.Sprint(sample%7) {
						t.Errorf("sample %d has label %q", sample, got)
					}
				}
			}
			if len(seen) != 22 {
				t.Errorf("an epoch had %d samples of 22", len(seen))
			}
		})
	}
}

func TestSamplesThatLackAPartAreToldOrRefused(t *testing.T) {
	n := startNode(t, testOptions(t))
	n.add("tars", writeShards(t, 12, false))
	c := n.openSession(openRequest("tars"))
	last := c.opened.Columns[len(c.opened.Columns)-1]
	if len(c.opened.Columns) != 4 || last.Name != "__present__" || last.DType != "int64" {
		t.Fatalf("columns %+v", c.opened.Columns)
	}
	b := c.next()
	for row, mask := range int64s(b.columns[3], 0, uint64(len(b.columns[3]))) {
		want := int64(3)
		if b.index[row]%3 == 0 {
			want = 7
		}
		if mask != want {
			t.Errorf("sample %d: mask %b, expected %b", b.index[row], mask, want)
		}
	}
	request := openRequest("tars")
	request.Select = []shm.SelectColumn{{Name: "txt", Parts: []string{"txt"}}}
	for what, change := range map[string]func(*shm.Open){
		"txt":         func(*shm.Open) {},
		"png":         func(r *shm.Open) { r.Select = []shm.SelectColumn{{Name: "png", Parts: []string{"png"}}} },
		"missing":     func(r *shm.Open) { r.Missing = "perhaps" },
		"twice":       func(r *shm.Open) { r.Select = append(r.Select, r.Select[0]) },
		"no parts":    func(r *shm.Open) { r.Select = []shm.SelectColumn{{Name: "none"}} },
		"__present__": func(r *shm.Open) { r.Select = []shm.SelectColumn{{Name: "__present__", Parts: []string{"jpg"}}} },
	} {
		refused := request
		change(&refused)
		if failure := n.greeted().failure(refused); failure.Code != "invalid" {
			t.Errorf("%s: %+v", what, failure)
		}
	}
	raw, _ := writeFiles(t, 4, func(int) int { return 5 })
	n.add("raw", raw)
	request.Dataset = "raw"
	if failure := n.greeted().failure(request); failure.Code != "invalid" || !strings.Contains(failure.What, "raw") {
		t.Errorf("select of a raw dataset: %+v", failure)
	}
}

func TestKeysAndSingleSamplesOfTar(t *testing.T) {
	n := startNode(t, testOptions(t))
	info := n.add("tars", writeShards(t, 10, true))
	c := n.greeted()
	var keys shm.KeysAnswer
	c.ask(shm.KeysRequest{Type: shm.TypeKeys, Dataset: "tars", Samples: []int64{9, 0, 4}, IndexID: info.IndexID}, &keys)
	want := []shm.SampleKey{{File: "shard-002.tar.gz", Key: "d/000009"}, {File: "shard-000.tar", Key: "d/000000"}, {File: "shard-001.tar", Key: "d/000004"}}
	if fmt.Sprint(keys.Keys) != fmt.Sprint(want) {
		t.Errorf("keys %+v, expected %+v", keys.Keys, want)
	}
	for _, number := range []int64{9, 4} {
		var answer shm.SampleAnswer
		fds := c.ask(shm.SampleRequest{Type: shm.TypeSample, Dataset: "tars", Index: number, Select: []shm.SelectColumn{{Name: "jpg", Parts: []string{"jpg"}}}}, &answer)
		content := readAll(t, fds[0], answer.Bytes)
		got := string(content[answer.Columns[0].Offset:][:answer.Columns[0].Bytes])
		if got != picture(int(number)) || answer.Key != fmt.Sprintf("d/%06d", number) || !strings.HasPrefix(answer.File, "shard-") {
			t.Errorf("sample %d: %+v with %.30q", number, answer, got)
		}
	}
	for what, request := range map[string]shm.KeysRequest{
		"out_of_range": {Samples: []int64{10}},
		"changed":      {Samples: []int64{1}, IndexID: "another"},
		"limit":        {Samples: make([]int64, shm.MaxKeys+1)},
	} {
		request.Type, request.Dataset = shm.TypeKeys, "tars"
		if failure := n.greeted().failure(request); failure.Code != what {
			t.Errorf("%+v: %+v, expected %s", request, failure, what)
		}
	}
}

// lint asks for findings.
func (n *testNode) lint(request shm.DatasetLint, descriptors ...int) ([]shm.Finding, shm.LintSummary) {
	n.t.Helper()
	c := n.greeted()
	request.Type = shm.TypeDatasetLint
	if err := c.Send(request, farewell, descriptors...); err != nil {
		n.t.Fatal(err)
	}
	var findings []shm.Finding
	for {
		kind, packet, _, err := c.receive()
		if err != nil {
			n.t.Fatal(err)
		}
		switch kind {
		case shm.TypeFindings:
			var note shm.FindingsNote
			if err := json.Unmarshal(packet, &note); err != nil {
				n.t.Fatal(err)
			}
			findings = append(findings, note.Findings...)
		case shm.TypeLint:
			var answer shm.LintAnswer
			if err := json.Unmarshal(packet, &answer); err != nil {
				n.t.Fatal(err)
			}
			return findings, answer.Summary
		default:
			n.t.Fatalf("lint answered %s", packet)
		}
	}
}

func TestLintOfADatasetAndOfADirectory(t *testing.T) {
	n := startNode(t, testOptions(t))
	dir := writeShards(t, 12, false)
	n.add("tars", dir)
	findings, summary := n.lint(shm.DatasetLint{Name: "tars"})
	if summary.Format != "tar" || summary.Samples != 12 || summary.Errors != 0 {
		t.Errorf("a good dataset: %+v, %+v", summary, findings)
	}
	broken := filepath.Join(dir, "shard-001.tar")
	content, err := os.ReadFile(broken)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(broken, content[:1000], 0o644); err != nil {
		t.Fatal(err)
	}
	findings, summary = n.lint(shm.DatasetLint{Format: "auto"}, openDirectory(t, dir))
	if summary.Errors == 0 {
		t.Fatalf("a truncated shard: %+v, %+v", summary, findings)
	}
	named := false
	for _, f := range findings {
		named = named || f.Severity == "error" && f.File == "shard-001.tar" && f.What != "" && f.Remedy != "" && f.Code != ""
	}
	if !named {
		t.Errorf("no error names the truncated shard: %+v", findings)
	}
	if failure := n.greeted().failure(shm.DatasetLint{Type: shm.TypeDatasetLint}); failure.Code != "invalid" {
		t.Errorf("lint of nothing: %+v", failure)
	}
}

func TestADamagedShardIsRefusedOrSkipped(t *testing.T) {
	n := startNode(t, testOptions(t))
	dir := writeShards(t, 12, false)
	if err := os.Truncate(filepath.Join(dir, "shard-001.tar"), 1000); err != nil {
		t.Fatal(err)
	}
	add := shm.DatasetAdd{Type: shm.TypeDatasetAdd, Name: "tars", Format: "tar", Path: dir}
	failure := n.greeted().failure(add, openDirectory(t, dir))
	if failure.Code != "corrupt" || !strings.Contains(failure.What, "shard-001.tar") {
		t.Errorf("a truncated shard: %+v", failure)
	}
	add.Bad = "skip"
	var answer shm.DatasetAnswer
	n.greeted().ask(add, &answer, openDirectory(t, dir))
	if d := answer.Dataset; d.Samples < 8 || d.Samples > 9 || len(d.Skipped) == 0 {
		t.Errorf("with the shard skipped: %+v", d)
	}
	add.Bad, add.Replace = "maybe", true
	if failure := n.greeted().failure(add, openDirectory(t, dir)); failure.Code != "invalid" {
		t.Errorf("an unknown way to treat bad shards: %+v", failure)
	}
}

func TestRebuildTakesInNewShardsAndLeavesOpenSessionsAlone(t *testing.T) {
	options := testOptions(t)
	n := startNode(t, options)
	dir := writeShards(t, 10, true)
	before := n.add("tars", dir)
	request := openRequest("tars")
	request.Select = []shm.SelectColumn{{Name: "jpg", Parts: []string{"jpg"}}}
	old := n.openSession(request)
	writeShard(t, filepath.Join(dir, "shard-003.tar.gz"), member{"d/000010.jpg", picture(10)}, member{"d/000010.cls", "3"})
	var answer shm.DatasetAnswer
	n.greeted().ask(shm.DatasetRebuild{Type: shm.TypeRebuild, Name: "tars"}, &answer)
	if d := answer.Dataset; d.Samples != 11 || d.IndexID == before.IndexID || d.AddedAt == "" {
		t.Errorf("rebuilt: %+v", d)
	}
	fresh := n.openSession(request)
	for _, c := range []*client{old, fresh, old} {
		for b := c.next(); b.Kind != shm.KindEndOfEpoch; b = c.next() {
			if b.Kind == shm.KindError {
				t.Fatal(b.failure)
			}
			wantPictures(t, &b, 0)
		}
	}
	_ = n.Close()
	again := startNode(t, options) // and after a restart only what the new index needs is left
	c := again.openSession(request)
	for b := c.next(); b.Kind != shm.KindEndOfEpoch; b = c.next() {
		wantPictures(t, &b, 0)
	}
	entries, err := os.ReadDir(filepath.Join(options.DataDir, "datasets", "tars"))
	if err != nil || len(entries) != 4 { // record, index, two seekable forms
		t.Errorf("the dataset's directory holds %v, %v", entries, err)
	}
	if failure := again.greeted().failure(shm.DatasetRebuild{Type: shm.TypeRebuild, Name: "none"}); failure.Code != "not_found" {
		t.Errorf("rebuild of nothing: %+v", failure)
	}
}

// TestAnInterruptedScanIsTakenUpAgain cuts a scan off and looks that its journal
// helps the next one.
func TestAnInterruptedScanLeavesAJournalAndNoDataset(t *testing.T) {
	options := testOptions(t)
	n := startNode(t, options)
	dir := writeShards(t, 12, false)
	if err := os.Truncate(filepath.Join(dir, "shard-002.tar"), 700); err != nil {
		t.Fatal(err)
	}
	add := shm.DatasetAdd{Type: shm.TypeDatasetAdd, Name: "tars", Format: "tar", Path: dir}
	n.greeted().failure(add, openDirectory(t, dir))
	journals, err := filepath.Glob(filepath.Join(options.DataDir, "scans", "*.journal"))
	if err != nil || len(journals) != 1 {
		t.Fatalf("journals of a scan that failed: %v, %v", journals, err)
	}
	if err := n.RemoveDataset(context.Background(), "tars"); err == nil {
		t.Error("a dataset whose scan failed is there")
	}
	writeShard(t, filepath.Join(dir, "shard-002.tar"), member{"d/000008.jpg", picture(8)}, member{"d/000008.cls", "1"})
	if info := n.add("tars", dir); info.Samples != 9 || info.State != api.DatasetReady {
		t.Errorf("after the shard was mended: %+v", info)
	}
	if journals, _ := filepath.Glob(filepath.Join(options.DataDir, "scans", "*.journal")); len(journals) != 0 {
		t.Errorf("a journal outlives its scan: %v", journals)
	}
}
