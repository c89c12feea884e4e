package main

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"
	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/loader/order"
	"github.com/stokerio/stoker/shm"
)

// servedColumn is one column of a sample that the fake daemon has.
type servedColumn struct {
	name, dtype string
	content     []byte
}

// samples answers requests for samples until the client leaves; contents gives the
// columns of each.
func samples(total int64, asked *[]shm.SampleRequest, contents func(number int64) []servedColumn) script {
	return greeted(func(t *testing.T, conn *shm.Conn) {
		for {
			var request shm.SampleRequest
			take(t, conn, &request)
			if request.Type == "" {
				return // the end
			}
			*asked = append(*asked, request)
			if request.Index >= total {
				send(t, conn, shm.ErrorAnswer{Type: shm.TypeError, Error: shm.Failure{Code: "out_of_range", What: "sample does not exist", Remedy: "ask for one within [0, len)"}})
				continue
			}
			answer, memory := sampleAnswer(t, contents(request.Index))
			answer.Key, answer.File, answer.Samples, answer.IndexID = "dir/"+grouped(request.Index), "train-0000.tar", total, "0a1b"
			if err := conn.Send(answer, sessionPatience, int(memory.Fd())); err != nil {
				t.Error(err)
			}
			memory.Close()
		}
	})
}

func sampleAnswer(t *testing.T, columns []servedColumn) (shm.SampleAnswer, *os.File) {
	t.Helper()
	descriptor, err := unix.MemfdCreate("sample", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	memory := os.NewFile(uintptr(descriptor), "sample")
	answer := shm.SampleAnswer{Type: shm.TypeSample}
	for _, c := range columns {
		column := shm.SampleColumn{Name: c.name, DType: c.dtype, Offset: answer.Bytes, Bytes: int64(len(c.content)), Shape: []int64{}}
		if size := sizeOf(c.dtype); size > 0 && c.name != "label" && c.name != presentColumn {
			column.Shape = []int64{column.Bytes / size}
		}
		answer.Columns = append(answer.Columns, column)
		answer.Bytes += column.Bytes
		if _, err := memory.Write(c.content); err != nil {
			t.Fatal(err)
		}
	}
	return answer, memory
}

func jpegOf(t testing.TB, width, height int) []byte {
	var b bytes.Buffer
	if err := jpeg.Encode(&b, image.NewGray(image.Rect(0, 0, width, height)), nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func npyOf(header string, values int) []byte {
	b := append([]byte("\x93NUMPY\x01\x00"), binary.LittleEndian.AppendUint16(nil, uint16(len(header)))...)
	return append(append(b, header...), make([]byte, values)...)
}

// cocoSample has a part of every kind. Sample 1 lacks some.
func cocoSample(t testing.TB) func(int64) []servedColumn {
	photo := jpegOf(t, 64, 48)
	return func(number int64) []servedColumn {
		columns := []servedColumn{
			{"bin", "uint8", []byte("\x00\x01\x02\x03\xff\xfe more bytes than are shown")},
			{"cls", "uint8", []byte("7\n")},
			{"jpg", "uint8", photo},
			{"json", "uint8", []byte(`{"caption": "a dog\u0007 and \u202e a cat", "boxes": [[1, 2], [3, 4]]}`)},
			{"meta.json", "uint8", []byte(`{"url": "` + strings.Repeat("x", 200) + `", "license": 3}`)},
			{"npy", "uint8", npyOf("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", 24)},
			{"pkl", "uint8", []byte("\x80\x04cposix\nsystem\n.")},
			{"seg.png", "uint8", nil},
			{"txt", "uint8", []byte("A dog.\n\x1b[2J\x1b[31mred \u202edoc\nthree\nfour\n")},
			{presentColumn, "int64", binary.LittleEndian.AppendUint64(nil, 0b101111111)},
		}
		if number == 1 {
			columns[3].content = []byte(`{"caption": `)
			columns[5].content = npyOf("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", 20)
			columns[2].content = []byte("no image")
			columns[1].content = []byte("seven")
			columns[8].content = []byte("\xff\xfe")
		}
		return columns
	}
}

func TestPreviewShowsEveryKindOfPart(t *testing.T) {
	for name, args := range map[string][]string{
		"dataset-preview-tar":      {"dataset", "preview", "coco", "-n", "2"},
		"dataset-preview-tar-json": {"dataset", "preview", "coco", "-n", "1", "--json"},
		"dataset-preview-parts":    {"dataset", "preview", "coco", "-n", "1", "--part", "jpg;png", "--part", "txt"},
		"dataset-preview-far":      {"dataset", "preview", "coco", "--index", "5"},
		"dataset-preview-no-parts": {"dataset", "preview", "pets", "--part", "jpg"},
		"dataset-preview-unknown":  {"dataset", "preview", "cats"},
		"dataset-preview-nothing":  {"dataset", "preview", "coco", "-n", "0"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			p.serveAPI(t, newFakeNode())
			p.serveSessions(t, samples(3, new([]shm.SampleRequest), cocoSample(t)))
			golden(t, name, p.run(t, args...))
		})
	}
}

func TestPreviewAsksForTheChosenParts(t *testing.T) {
	p := newPlace(t)
	p.serveAPI(t, newFakeNode())
	var asked []shm.SampleRequest
	p.serveSessions(t, samples(3, &asked, cocoSample(t)))
	if got := p.run(t, "dataset", "preview", "coco", "-n", "1", "--index", "2", "--part", "jpg;png", "--part", "txt"); got.code != exitOK {
		t.Fatalf("%+v", got)
	}
	last := asked[len(asked)-1]
	if last.Index != 2 || last.Missing != "empty" || len(last.Select) != 2 || last.Select[0].Name != "jpg" || strings.Join(last.Select[0].Parts, " ") != "jpg png" {
		t.Errorf("%+v", last)
	}
}

func TestPreviewShufflesAsTrainingDoes(t *testing.T) {
	p := newPlace(t)
	p.serveAPI(t, newFakeNode())
	var asked []shm.SampleRequest
	p.serveSessions(t, samples(100, &asked, func(int64) []servedColumn { return nil }))
	got := p.run(t, "dataset", "preview", "coco", "-n", "4", "--shuffle", "--seed", "7", "--index", "10", "--json")
	var whole preview
	if err := json.Unmarshal([]byte(got.out), &whole); err != nil || got.code != exitOK || len(whole.Shown) != 4 {
		t.Fatalf("%+v, %v", got, err)
	}
	shuffled, err := order.New(order.Spec{Kind: order.Global, Seed: 7, Samples: 100})
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range whole.Shown {
		if want := shuffled.Epoch(0).At(int64(10 + i)); s.Sample != want {
			t.Errorf("position %d: sample %d, want %d", 10+i, s.Sample, want)
		}
	}
}

func TestPreviewOfAnAnswerThatLiesAboutItsMemory(t *testing.T) {
	p := newPlace(t)
	p.serveAPI(t, newFakeNode())
	p.serveSessions(t, greeted(func(t *testing.T, conn *shm.Conn) {
		take(t, conn, &shm.SampleRequest{})
		answer, memory := sampleAnswer(t, []servedColumn{{"txt", "uint8", []byte("hello")}})
		answer.Samples, answer.Columns[0].Bytes = 1, 1<<60
		if err := conn.Send(answer, sessionPatience, int(memory.Fd())); err != nil {
			t.Error(err)
		}
		memory.Close()
	}))
	if got := p.run(t, "dataset", "preview", "coco"); got.code != exitError || !strings.Contains(got.err, "in a memory of 5 bytes") {
		t.Errorf("%+v", got)
	}
}

func TestPreviewAgainstARealNode(t *testing.T) {
	p, source := newPlace(t), petsOnDisk(t)
	p.serveNode(t)
	if err := os.WriteFile(filepath.Join(source, "cat", "1.jpg"), jpegOf(t, 8, 6), 0o644); err != nil {
		t.Fatal(err)
	}
	ids := make([]byte, 0, 400)
	for i := range 200 {
		ids = binary.LittleEndian.AppendUint16(ids, uint16(1000+i))
	}
	text := t.TempDir()
	if err := os.WriteFile(filepath.Join(text, "train.bin"), ids, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		args []string
		want []string
	}{
		{[]string{"dataset", "add", "pets", source, "--format", "raw"}, []string{"added pets"}},
		{[]string{"dataset", "preview", "pets", "-n", "3"}, []string{"sample 0: cat/1.jpg\n", "8 × 6", "label", "(cat)", "sample 2: dog/1.jpg", "(dog)", "not an image"}},
		{[]string{"dataset", "add", "text", text}, []string{"added text"}},
		{[]string{"dataset", "preview", "text", "-n", "2", "--block-size", "4"}, []string{"49 samples", "1000 1001 1002 1003 1004\n", "sample 1: train.bin[4:9]", "1004 1005"}},
		{[]string{"dataset", "preview", "text", "--block-size", "1000"}, []string{"stoker: "}},
	} {
		got := p.run(t, step.args...)
		for _, want := range step.want {
			if !strings.Contains(got.out+got.err, want) {
				t.Errorf("%q: %+v, want %q", step.args, got, want)
			}
		}
	}
}

// archivesOnDisk is a directory with one archive of such members, each of which holds
// its name.
func archivesOnDisk(t *testing.T, members ...string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range members {
		if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(name)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, name); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	directory := t.TempDir()
	if err := os.WriteFile(filepath.Join(directory, "a.tar"), b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return directory
}

func TestPreviewOfMorePartsThanASessionCanLack(t *testing.T) {
	p := newPlace(t)
	p.serveNode(t)
	complete, lacking, most := []string{}, []string{"0.", "1."}, []string{"1.p00"}
	for i := range 70 {
		complete = append(complete, fmt.Sprintf("0.p%02d", i))
		lacking = append(lacking, fmt.Sprintf("1.p%02d", i))
	}
	most = append(slices.Clone(complete[:mostLackable]), most...)
	for name, members := range map[string][]string{"complete": complete, "lacking": lacking, "most": most, "unnamed": {"a.", "s/."}} {
		if got := p.run(t, "dataset", "add", name, archivesOnDisk(t, members...)); got.code != exitOK {
			t.Fatalf("%+v", got)
		}
	}
	for _, step := range []struct {
		args  string
		want  []string
		shown int
		left  int
	}{
		{"complete -n 1", []string{"p69"}, 70, 0},
		{"lacking -n 1 --index 1", []string{"the first 60 parts are shown; choose from 11 more with --part\n", "(no name)", "p58"}, 60, 11},
		{"lacking -n 1 --index 1 --part p69", []string{"1.p69"}, 1, 0},
		{"most -n 1", []string{"p61"}, 62, 0},
		{"unnamed -n 2", []string{"a.", "s/."}, 1, 0},
		{"unnamed --part ;x", []string{"(no name)", "a."}, 1, 0},
	} {
		args := append([]string{"dataset", "preview"}, strings.Fields(step.args)...)
		got := p.run(t, args...)
		for _, want := range step.want {
			if got.code != exitOK || !strings.Contains(got.out, want) {
				t.Errorf("%s: %+v, want %q", step.args, got, want)
			}
		}
		var whole preview
		got = p.run(t, append(args, "--json")...)
		if err := json.Unmarshal([]byte(got.out), &whole); err != nil || whole.Left != step.left || len(whole.Shown) == 0 || len(whole.Shown[0].Parts) != step.shown {
			t.Errorf("%s: %+v, %v", step.args, got, err)
		}
	}
}

func lookAt(name string, content []byte) look {
	l := look{Name: name, Bytes: int64(len(content))}
	l.at(name, io.NewSectionReader(bytes.NewReader(content), 0, int64(len(content))))
	return l
}

func TestImagesOfEveryFormatShowTheirDimensions(t *testing.T) {
	picture := image.NewPaletted(image.Rect(0, 0, 13, 7), color.Palette{color.Black, color.White})
	encoded := map[string][]byte{
		"jpeg": jpegOf(t, 13, 7),
		// Of a lossy WebP only the frame header matters (RFC 6386, 9.1).
		"webp": []byte("RIFF\x1e\x00\x00\x00WEBPVP8 \x0a\x00\x00\x00\x30\x01\x00\x9d\x01\x2a\x0d\x00\x07\x00"),
	}
	for format, encode := range map[string]func(io.Writer) error{
		"png":  func(w io.Writer) error { return png.Encode(w, picture) },
		"gif":  func(w io.Writer) error { return gif.Encode(w, picture, nil) },
		"bmp":  func(w io.Writer) error { return bmp.Encode(w, picture) },
		"tiff": func(w io.Writer) error { return tiff.Encode(w, picture, nil) },
	} {
		var b bytes.Buffer
		if err := encode(&b); err != nil {
			t.Fatal(err)
		}
		encoded[format] = b.Bytes()
	}
	for format, content := range encoded {
		if l := lookAt("x.any", content); l.Kind != kindImage || l.Format != format || l.Width != 13 || l.Height != 7 {
			t.Errorf("%s: %+v", format, l)
		}
		if l := lookAt("x.any", content[:20]); l.Kind == kindImage && format != "gif" {
			t.Errorf("%s, cut: %+v", format, l)
		}
	}
}

func TestArraysShowTypeAndShape(t *testing.T) {
	for header, want := range map[string]string{
		"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }":        "float32 [2, 3]",
		"{'descr': '|u1', 'fortran_order': False, 'shape': (24,), }":         "uint8 [24]",
		"{'descr': '>i8', 'fortran_order': True, 'shape': (3,), }":           ">i8 [3]",
		"{'descr': '<U2', 'fortran_order': False, 'shape': (3,), }":          "<U2 [3]",
		"{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (6,), }": "structured [6]",
		"{'descr': '<M8[ns]', 'fortran_order': False, 'shape': (3,), }":      "<M8 [3]",
		"{'descr': '<f8', 'fortran_order': False, 'shape': (), }":            "float64 [] (24 bytes follow the header, which needs [] of float64)",
		"{'descr': '<f4', 'shape': (9999999999999, 9999999999999), }":        "its shape",
		"{'descr': '<f4', 'shape': 7}":                                       "names no shape",
		strings.Repeat(" ", 20000):                                           "does not fit",
	} {
		l := lookAt("x.npy", npyOf(header, 24))
		if got := strings.Join(l.lines(), " ") + " (" + l.Problem + ")"; !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", header, got, want)
		}
	}
}

func TestJSONThatNestsDeepIsNotIndented(t *testing.T) {
	deep := strings.Repeat("[", 9000) + strings.Repeat("]", 9000)
	l := lookAt("x.json", []byte(deep))
	if l.Kind != kindJSON || len(l.lines()) != 1 || len(l.lines()[0]) > 2*lineRunes {
		t.Errorf("%s, %d lines", l.Kind, len(l.lines()))
	}
	big := `{"a": "` + strings.Repeat("x", jsonBytes) + `"}`
	if l := lookAt("x.json", []byte(big)); l.Kind != kindJSON || !l.Cut || l.JSON != nil {
		t.Errorf("%s, cut %v", l.Kind, l.Cut)
	}
}

func FuzzALookIsSafe(f *testing.F) {
	for _, c := range cocoSample(f)(0) {
		f.Add("x."+c.name, c.content)
	}
	f.Add("x.webp", []byte("RIFF\x1e\x00\x00\x00WEBPVP8 \x0a\x00\x00\x00\x30\x01\x00\x9d\x01\x2a\x0d\x00\x07\x00"))
	f.Add("x.tiff", []byte("II*\x00\x08\x00\x00\x00\x01\x00\x00\x01\x03\x00\x01\x00\x00\x00\x07\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, name string, content []byte) {
		l := lookAt(name, content)
		if l.Kind == "" {
			t.Fatalf("%q: no kind", name)
		}
		if _, err := json.Marshal(l); err != nil {
			t.Fatal(err)
		}
		rows := l.rows()
		if len(rows) > jsonLines+2 {
			t.Fatalf("%d rows", len(rows))
		}
		for _, row := range rows {
			for _, cell := range row {
				if printable(cell) != cell {
					t.Fatalf("%q can steer a terminal", cell)
				}
			}
		}
	})
}
