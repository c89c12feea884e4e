package tar

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset"
	"github.com/stokerio/stoker/loader/dataset/internal/dirstore"
)

// linted runs a lint.
func linted(t testing.TB, store backend.Store, opts Options) ([]dataset.Finding, dataset.LintSummary) {
	t.Helper()
	var findings []dataset.Finding
	summary, err := Lint(context.Background(), store, opts, func(f dataset.Finding) error {
		findings = append(findings, f)
		return nil
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return findings, summary
}

// places are findings as "code file@offset key".
func places(findings []dataset.Finding) []string {
	var all []string
	for _, f := range findings {
		all = append(all, strings.TrimSpace(fmt.Sprintf("%s %s@%d %s", f.Code, f.File, f.Offset, f.Key)))
	}
	return all
}

func packGzip(b []byte) []byte {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, _ = w.Write(b)
	_ = w.Close()
	return z.Bytes()
}

// samplesOf is an archive of n samples of a jpg and a cls, and what change makes of it.
func samplesOf(prefix string, n int, change func(i int, a *archive, name string) bool) []byte {
	var a archive
	for i := range n {
		name := fmt.Sprintf("%s%04d", prefix, i)
		if change == nil || !change(i, &a, name) {
			a.file(name+".cls", "7").file(name+".jpg", "picture")
		}
	}
	return a.end()
}

func TestLintFindsWhatIsWrongWithAnArchiveAndWhere(t *testing.T) {
	good := samplesOf("", 4, nil)
	for name, c := range map[string]struct {
		archive []byte
		want    []string
	}{
		"good":           {good, nil},
		"empty":          {nil, []string{"empty-shard a.tar@0"}},
		"no-tar":         {[]byte(strings.Repeat("text ", 300)), []string{"no-tar a.tar@0"}},
		"truncated":      {good[:9*512+100], []string{"truncated a.tar@4096 0002.cls"}},
		"garbage":        {append(good[:4*512:4*512], append(bytes.Repeat([]byte("g"), 512), good[4*512:]...)...), []string{"garbage a.tar@2048"}},
		"bad-header":     {new(archive).pax('x', "size=x").file("a.x", "1").end(), []string{"bad-header a.tar@0"}},
		"long-name":      {new(archive).pax('x', "path="+strings.Repeat("n", 5000)).file("a.x", "1").end(), []string{"long-name a.tar@0"}},
		"duplicate-part": {archiveOf("a.x", "a.X", "a.y", "b.x", "b.x"), []string{"duplicate-part a.tar@1024 a", "duplicate-part a.tar@4096 b"}},
		"reserved-part":  {archiveOf("a.x", "b.__key__", "c.x"), []string{"reserved-part a.tar@1024 b"}},
		"too-many-parts": {endlessSample(MaxParts + 10), []string{"too-many-parts a.tar@2097152 img"}},
		"duplicate-key":  {archiveOf("a.x", "b.x", "a.x"), []string{"unsorted a.tar@2048", "duplicate-key a.tar@2048 a"}},
		"case-collision": {archiveOf("A.x", "a.x", "aB.x", "ab.x"), []string{"case-collision a.tar@1024 a", "case-collision a.tar@3072 ab"}},
		"missing-part": {samplesOf("", 9, func(i int, a *archive, name string) bool {
			if i%4 == 2 {
				a.file(name+".jpg", "alone")
			}
			return i%4 == 2
		}), []string{"missing-part a.tar@4096 0002"}},
		"no-samples":     {archiveOf("noname", "dir/noname"), []string{"no-samples a.tar@-1", "empty-dataset @-1"}},
		"zeros":          {make([]byte, 4096), []string{"no-samples a.tar@-1", "empty-dataset @-1"}},
		"no name":        {archiveOf("a.x", "a.", "b/.", "b/.x", "c.x", "c."), []string{"empty-part-name a.tar@1024 a"}},
		"data-after-end": {append(bytes.Clone(good), good...), []string{"data-after-end a.tar@9216"}},
		"one block":      {good[:len(good)-512], []string{"unusual-end a.tar@8192"}},
		"no block":       {good[:len(good)-1024], []string{"unusual-end a.tar@8192"}},
		"pickle":         {archiveOf("a.seg.pkl", "a.x"), []string{"pickle a.tar@0 a"}},
		"unsorted":       {archiveOf("b.x", "a.x", "c.x"), []string{"unsorted a.tar@1024"}},
		"empty-part":     {new(archive).file("a.x", "1").file("b.x", "").file("c.x", "").end(), []string{"empty-part a.tar@1024 b"}},
		"sparse-member":  {oldSparse(100, 50, 5), []string{"sparse-member a.tar@0"}},
		"odd-name":       {archiveOf("../a.x", "b\x01.x", "c\xff.x"), []string{"odd-name a.tar@0"}},
		"absolute":       {archiveOf("/a.x"), []string{"odd-name a.tar@0"}},
		"not odd":        {archiveOf("a..b/c...d.x", "ä/ö.x"), nil},
		"no-part":        {archiveOf("a.x", "README", "b.x", "__index__"), []string{"no-part a.tar@1024"}},
		"compressed":     {packGzip(good), []string{"compressed-archive a.tar@-1"}},
		"cut gzip":       {packGzip(good)[:60], []string{"compressed-archive a.tar@-1", "bad-compression a.tar@-1"}},
		"zip":            {[]byte("PK\x03\x04" + strings.Repeat("z", 600)), []string{"bad-compression a.tar@-1"}},
		"gzip of garbage": {packGzip(append(archiveOf("a.x")[:1024:1024], bytes.Repeat([]byte("g"), 1024)...)),
			[]string{"compressed-archive a.tar@-1", "garbage a.tar@1024"}},
	} {
		t.Run(name, func(t *testing.T) {
			findings, summary := linted(t, shards(t, map[string][]byte{"a.tar": c.archive}), Options{})
			if got := places(findings); !slices.Equal(got, c.want) {
				t.Errorf("found %q\nwant %q", got, c.want)
			}
			checkFindings(t, findings, summary)
		})
	}
}

// checkFindings fails unless findings are complete and counted.
func checkFindings(t *testing.T, findings []dataset.Finding, summary dataset.LintSummary) {
	t.Helper()
	counted := map[string]int64{}
	bySeverity := map[string]int64{}
	for _, f := range findings {
		counted[f.Code]++
		bySeverity[f.Severity]++
		if f.What == "" || f.Remedy == "" || f.Severity == "" {
			t.Errorf("finding %+v is not complete", f)
		}
	}
	if fmt.Sprint(counted) != fmt.Sprint(summary.Findings) || summary.Format != Format || bySeverity["error"] != summary.Errors ||
		bySeverity["warning"] != summary.Warnings || bySeverity["note"] != summary.Notes {
		t.Errorf("%v, %v counted as %+v", counted, bySeverity, summary)
	}
}

func TestLintComparesShardsWithEachOther(t *testing.T) {
	big := new(archive).file("big.jpg", strings.Repeat("b", tinyShard+hugePart)).file("big.cls", "1").end()
	store := shards(t, map[string][]byte{
		"a.tar": big, "b.tar": samplesOf("b", 5, nil), "d/c.tar": samplesOf("b", 2, nil), "e.tar.gz": packGzip(samplesOf("e", 2, nil)),
		"f.tar": archiveOf("noclass.jpg", "x.jpg"), "f.idx": []byte("v1.1 1\njpg 512 11\n"), ".hidden.tar": big[:1], "notes.txt": []byte("n"), "z.tar": samplesOf("z", 1, nil),
	})
	later(t, store, "f.idx")
	findings, summary := linted(t, store, Options{})
	want := []string{
		"left-out .hidden.tar@-1",
		"tiny-shard b.tar@-1",
		"tiny-shard d/c.tar@-1", "duplicate-key d/c.tar@0 b0000", "duplicate-key d/c.tar@2048 b0001",
		"compressed-archive e.tar.gz@-1", "tiny-shard e.tar.gz@-1",
		"index-misfit f.tar@1024", "tiny-shard f.tar@-1",
		"mixed-archives @-1",
		"missing-part f.tar@0 noclass",
		"huge-part a.tar@0 big",
	}
	if got := places(findings); !slices.Equal(got, want) {
		t.Errorf("found %q\nwant %q", got, want)
	}
	checkFindings(t, findings, summary)
	if summary.Files != 6 || summary.Samples != 1+5+2+2+2+1 {
		t.Errorf("%+v", summary)
	}
	if b, err := json.Marshal(findings[3]); err != nil || !strings.Contains(string(b), `"key":"b0000"`) || strings.Contains(string(b), "Key") {
		t.Errorf("%s, %v", b, err)
	}
}

func TestLintTellsOfMorePartsThanASessionCanLack(t *testing.T) {
	var names []string
	for i := range maxPresent + 1 {
		names = append(names, fmt.Sprintf("0.p%02d", i))
	}
	for _, c := range []struct {
		names []string
		want  []string
	}{
		{names, nil},
		{append(names[1:len(names):len(names)], "1.p01"), nil},
		{append(names[:len(names):len(names)], "1.p00"), []string{"many-parts @-1"}},
	} {
		findings, summary := linted(t, shards(t, map[string][]byte{"a.tar": archiveOf(c.names...)}), Options{})
		if got := places(findings); !slices.Equal(got, c.want) {
			t.Errorf("%q, want %q", got, c.want)
		}
		if len(findings) > 0 && (!strings.Contains(findings[0].What, `"p01" is in 1 of 2`) || findings[0].Severity != dataset.SeverityWarning) {
			t.Errorf("%+v", findings[0])
		}
		checkFindings(t, findings, summary)
	}
}

func TestLintCountsOneInTheSingular(t *testing.T) {
	store := shards(t, map[string][]byte{
		"a.tar": archiveOf("../b.pkl", "a.pkl", "README", "c.pkl", "c.jpg", "d.jpg", "d.pkl", "e.jpg", "e.pkl", "f.jpg", "f.pkl"), "b.tar": archiveOf("noname"),
	})
	var said []string
	findings, _ := linted(t, store, Options{})
	for _, f := range findings {
		said = append(said, f.What)
	}
	for _, want := range []string{
		`1 member has a name that other programs may stumble over: "../b.pkl"`, `1 file is part of no sample: "README"`,
		"it holds no sample; 1 of its files is part of none", `6 samples have a part "pkl"; this is the first`,
	} {
		if !slices.Contains(said, want) {
			t.Errorf("%q is not said in %q", want, said)
		}
	}
	findings, _ = linted(t, shards(t, map[string][]byte{"a.txt": nil}), Options{})
	if len(findings) != 1 || !strings.Contains(findings[0].What, "saw 1 other file") || strings.HasSuffix(findings[0].What, "files") {
		t.Errorf("%+v", findings)
	}
}

func TestLintFindsManySmallShards(t *testing.T) {
	files := map[string][]byte{}
	for i := range severalShards {
		files[fmt.Sprintf("%d.tar", i)] = samplesOf(fmt.Sprint(i), 2, nil)
	}
	findings, _ := linted(t, shards(t, files), Options{})
	if got := places(findings); !slices.Equal(got, []string{"small-shards @-1"}) {
		t.Errorf("%q", got)
	}
	delete(files, "0.tar")
	if findings, _ := linted(t, shards(t, files), Options{}); len(findings) > 0 {
		t.Errorf("%v", findings)
	}
	if findings, _ := linted(t, shards(t, map[string][]byte{"x.txt": nil}), Options{}); len(findings) != 1 || findings[0].Code != "no-files" {
		t.Errorf("%v", findings)
	}
}

func TestLintSaysThatAShardIsHuge(t *testing.T) {
	store := shards(t, map[string][]byte{"a.tar": samplesOf("", 2, nil)})
	if err := os.Truncate(filepath.Join(store.Dir, "a.tar"), hugeShard+1); err != nil { // of zeros, which take no room
		t.Fatal(err)
	}
	if findings, _ := linted(t, store, Options{}); !slices.Equal(places(findings), []string{"huge-shard a.tar@-1"}) {
		t.Errorf("%v", findings)
	}
}

func TestLintComparesIndexesWithTheirShards(t *testing.T) {
	archive := samplesOf("", 6, nil)
	dali, energon := daliIndexOf(t, archive, true), energonIndexOf(archive)
	for name, c := range map[string]struct {
		file  string
		index []byte
		want  []string
	}{
		"dali":                  {"a.idx", dali, nil},
		"dali v1.1":             {"a.idx", daliIndexOf(t, archive, false), nil},
		"energon":               {"a.tar.idx", energon, nil},
		"dali of another":       {"a.idx", daliIndexOf(t, samplesOf("", 3, nil), true), []string{"index-misfit a.tar@6144"}},
		"dali with more":        {"a.idx", append(bytes.Replace(dali, []byte("v1.2 6"), []byte("v1.2 7"), 1), "x 12800 0 x.x\n"...), []string{"index-misfit a.tar@12288"}},
		"energon with fewer":    {"a.tar.idx", energon[8:], []string{"index-misfit a.tar@0"}},
		"energon with one less": {"a.tar.idx", append(energon[:40:40], energon[48:]...), []string{"index-misfit a.tar@10240"}},
		"not an index":          {"a.idx", []byte("hello"), []string{"index-misfit a.idx@-1"}},
		"odd bytes":             {"a.tar.idx", []byte("hello"), []string{"index-misfit a.tar.idx@-1"}},
	} {
		store := shards(t, map[string][]byte{"a.tar": archive, c.file: c.index})
		later(t, store, c.file)
		findings, summary := linted(t, store, Options{})
		if got := places(findings); !slices.Equal(got, c.want) {
			t.Errorf("%s: found %q\nwant %q", name, got, c.want)
		}
		checkFindings(t, findings, summary)
	}
	store := shards(t, map[string][]byte{"a.tar": archive, "a.idx": dali})
	if err := os.Chtimes(filepath.Join(store.Dir, "a.idx"), time.Time{}, time.Unix(1000, 0)); err != nil {
		t.Fatal(err)
	}
	if findings, _ := linted(t, store, Options{}); !slices.Equal(places(findings), []string{"index-old a.idx@-1"}) {
		t.Errorf("%v", findings)
	}
}

func TestLintTellsOfTooManyKindsOfSamples(t *testing.T) {
	var a archive
	for i := range maxShapes + 2 {
		a.header(header{name: fmt.Sprintf("%06d.%06d.jpg", i, i), kind: '0'}, 0)
	}
	findings, _ := linted(t, shards(t, map[string][]byte{"a.tar": a.end()}), Options{})
	if !slices.Contains(places(findings), "too-many-kinds a.tar@-1") {
		t.Errorf("%.2000q", places(findings))
	}
}

func TestLintShowsSoManyFindingsAndCountsAll(t *testing.T) {
	files := map[string][]byte{}
	for _, name := range []string{"a.tar", "b.tar", "c.tar"} {
		files[name] = samplesOf("", dataset.MaxShownFindings, nil)
	}
	findings, summary := linted(t, shards(t, files), Options{})
	if len(findings) != dataset.MaxShownFindings+1 || summary.Findings["duplicate-key"] != 2*dataset.MaxShownFindings || summary.Warnings != 2*dataset.MaxShownFindings {
		t.Errorf("%d findings, %+v", len(findings), summary)
	}
	if last := findings[len(findings)-1]; last.File != "" || !strings.Contains(last.What, fmt.Sprint(dataset.MaxShownFindings)) {
		t.Errorf("%+v", last)
	}
	var names []string
	for range 2 * dataset.MaxShownFindings { // within one shard
		names = append(names, "a.x", "a.x")
	}
	for i := range names {
		names[i] = fmt.Sprintf("%04d%s", i/2, names[i])
	}
	_, summary = linted(t, shards(t, map[string][]byte{"a.tar": archiveOf(names...)}), Options{})
	if summary.Errors != 2*dataset.MaxShownFindings {
		t.Errorf("%+v", summary)
	}
}

func TestLintComparesSoManyKeysAcrossShards(t *testing.T) {
	l := &linter{Lint: dataset.NewLint(Format, func(dataset.Finding) error { return nil }), keys: newKeyTable(9)}
	for shard, keys := range []string{"abc", "cdd", "cee"} {
		l.shards = append(l.shards, backend.Object{Name: fmt.Appendf(nil, "%d.tar", shard)})
		r := &shardReport{object: &l.shards[shard]}
		r.keys.seed = l.keys.seed
		for i := range keys {
			r.keys.add([]byte(keys[i:i+1]), 0)
		}
		if err := l.mergeKeys(shard, r.object, r); err != nil {
			t.Fatal(err)
		}
	}
	if n := l.Summary.Findings; n["duplicate-key"] != 3 || n["keys-unchecked"] != 1 {
		t.Errorf("%v: want c and d of the second shard, e of the third", n)
	}
}

func TestTheTableOfKeysFindsWhatWasInserted(t *testing.T) {
	table := newKeyTable(0)
	for i := range 20_000 {
		if _, found := table.insert(spread(uint64(i+1)), uint32(i)); found {
			t.Fatalf("%d is there already", i)
		}
	}
	for i := range 20_000 {
		if shard, found := table.insert(spread(uint64(i+1)), 7); !found || shard != uint32(i) {
			t.Fatalf("%d: %d, %v", i, shard, found)
		}
	}
}

func TestLintGoesOnBehindAFileThatCannotBeRead(t *testing.T) {
	store := shards(t, map[string][]byte{"a.tar": samplesOf("a", 2, nil), "b.tar": samplesOf("b", 2, nil), "c.tar": samplesOf("c", 2, nil)})
	findings, summary := linted(t, unreadable{store, "b.tar"}, Options{})
	if !slices.Equal(places(findings), []string{"unreadable b.tar@-1"}) || summary.Samples != 4 {
		t.Errorf("%v, %+v", findings, summary)
	}
}

// unreadable is a store of which one file cannot be opened.
type unreadable struct {
	dirstore.Store
	name string
}

func (u unreadable) ReadAt(ctx context.Context, c backend.Chunk, p []byte, off int64) error {
	if string(c.Object.Name) == u.name {
		return &backend.Error{Kind: backend.Permission, Op: "open", Object: u.name, Err: os.ErrPermission}
	}
	return u.Store.ReadAt(ctx, c, p, off)
}

func TestLintIsCancelledAndEndsWithItsVisitor(t *testing.T) {
	files := map[string][]byte{}
	for i := range 40 {
		files[fmt.Sprintf("%02d.tar", i)] = archiveOf("a.x", "a.x")
	}
	store := shards(t, files)
	enough := errors.New("enough")
	n := 0
	_, err := Lint(context.Background(), store, Options{}, func(dataset.Finding) error {
		if n++; n == 3 {
			return enough
		}
		return nil
	}, nil)
	if !errors.Is(err, enough) || n != 3 {
		t.Errorf("%v after %d", err, n)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	_, err = Lint(ctx, store, Options{}, func(dataset.Finding) error {
		cancel(enough)
		return nil
	}, nil)
	if !errors.Is(err, enough) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestLintReportsItsProgress(t *testing.T) {
	store := shards(t, map[string][]byte{"a.tar": samplesOf("a", 600, nil), "b.tar.gz": packGzip(samplesOf("b", 300, nil)), "c.tar": []byte("none")})
	var last dataset.Done
	_, err := Lint(context.Background(), store, Options{}, func(dataset.Finding) error { return nil }, func(d dataset.Done) {
		if d.Files < last.Files || d.Bytes < last.Bytes || d.Samples < last.Samples {
			t.Errorf("%+v after %+v", d, last)
		}
		last = d
	})
	if err != nil || last.Files != 3 || last.FilesTotal != 3 || last.Bytes != last.BytesTotal || last.Samples != 900 {
		t.Errorf("%v, %+v", err, last)
	}
}

func TestEveryFaultHasItsCodeInTheTable(t *testing.T) {
	codes := map[string]bool{}
	for _, c := range dataset.LintCodes() {
		codes[c.Code] = c.Severity == dataset.SeverityError
	}
	for code := range remedies {
		if !codes[string(code)] {
			t.Errorf("%s is no error in the table", code)
		}
	}
}
