package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stokerio/stoker/shm"
)

// rebuilds answers one request to build an index anew.
func rebuilds(indexID string) script {
	return greeted(func(t *testing.T, conn *shm.Conn) {
		var request shm.DatasetRebuild
		take(t, conn, &request)
		if request.Type != shm.TypeRebuild || request.Name != "coco" {
			t.Errorf("%+v", request)
		}
		send(t, conn, shm.ProgressNote{Type: shm.TypeProgress, FilesDone: 6, FilesTotal: 12, BytesDone: 1 << 20, BytesTotal: 2 << 20, SamplesDone: 6000})
		info := shm.DatasetInfo{Name: "coco", Format: "tar", Samples: 12400, Files: 12, Bytes: 1 << 30, IndexID: indexID,
			Parts:    []shm.PartInfo{{Name: "jpg", Samples: 12400, Bytes: 1 << 30}, {Name: "json", Samples: 12, Bytes: 1 << 20}},
			Archives: map[string]int{"tar": 12}, Indexes: map[string]int{"dali used": 12}, Skipped: map[string]int{"damaged": 2}}
		if indexID == "0a1b" {
			info.Samples = 12345
		}
		send(t, conn, shm.DatasetAnswer{Type: shm.TypeDataset, Dataset: info})
	})
}

func TestIndexBuildIsGolden(t *testing.T) {
	for name, test := range map[string]struct {
		id   string
		args []string
	}{
		"index-build":         {"77ff", []string{"coco"}},
		"index-build-same":    {"0a1b", []string{"coco"}},
		"index-build-json":    {"77ff", []string{"coco", "--json"}},
		"index-build-unknown": {"", []string{"cats"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			p.serveAPI(t, newFakeNode())
			if test.id != "" {
				p.serveSessions(t, rebuilds(test.id))
			}
			golden(t, name, p.run(t, append([]string{"index", "build"}, test.args...)...))
		})
	}
}

func TestIndexInfoReadsTheFile(t *testing.T) {
	p, source := newPlace(t), petsOnDisk(t)
	p.serveNode(t)
	if got := p.run(t, "dataset", "add", "pets", source, "--format", "raw"); got.code != exitOK {
		t.Fatalf("%+v", got)
	}
	files, err := filepath.Glob(filepath.Join(p.data, "datasets", "pets", "*.idx"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%q, %v", files, err)
	}
	got := p.run(t, "index", "info", files[0], "--verify")
	for _, want := range []string{"raw, ", "4 files", "samples   4, ", "4.00 KiB (4,096 bytes)", "every byte is as the id says"} {
		if got.code != exitOK || !strings.Contains(got.out, want) {
			t.Errorf("%+v, want %q", got, want)
		}
	}
	var d indexDescription
	got = p.run(t, "index", "info", files[0], "--json")
	if err := json.Unmarshal([]byte(got.out), &d); err != nil || d.Records != 4 || d.Info.Samples != 4 || d.Verified || d.FileBytes == 0 {
		t.Errorf("%+v, %v", got, err)
	}
	got = p.run(t, "index", "info", "pets", "--json")
	if err := json.Unmarshal([]byte(got.out), &d); err != nil || d.Path != files[0] {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestIndexInfoSaysWhatIsWrongWithAFile(t *testing.T) {
	directory := t.TempDir()
	short := filepath.Join(directory, "short.idx")
	if err := os.WriteFile(short, []byte("no index"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{short: "corrupt", filepath.Join(directory, "none.idx"): "a name without a slash means a dataset"} {
		got := newPlace(t).run(t, "index", "info", path)
		if got.code != exitError || !strings.Contains(got.err, want) || !strings.Contains(got.err, path) || !strings.Contains(got.err, "next:") {
			t.Errorf("%s: %+v", path, got)
		}
	}
}

func TestADaemonThatNamesNoIndexIsOfAnotherRelease(t *testing.T) {
	p := newPlace(t)
	p.serveAPI(t, newFakeNode())
	golden(t, "index-info-no-path", p.run(t, "index", "info", "pets"))
}
