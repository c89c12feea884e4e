package loader

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/flash"
	"github.com/stokerio/stoker/loader/api"
)

// flashOptions are those of a node with small devices in these directories.
func flashOptions(t testing.TB, directories ...string) Options {
	options := testOptions(t)
	for _, directory := range directories {
		options.Flash.Devices = append(options.Flash.Devices, flash.Device{Path: directory, LimitBytes: 8 << 20, SpanBytes: 64 << 10, SegmentSpans: 4})
	}
	return options
}

// store puts and fills that many chunks of 100 bytes each.
func (n *testNode) store(chunks int) {
	n.t.Helper()
	for i := range chunks {
		content := fmt.Appendf(nil, "%0100d", i)
		if _, err := n.cache.store.Put(n.t.Context(), content); err != nil {
			n.t.Fatal(err)
		}
		copied := backend.Chunk{Object: &backend.Object{Origin: "file:1:2", Name: []byte("shard"), Version: backend.Version{Size: 1 << 20}}, Start: int64(i) * 100, Size: 100}
		if err := n.cache.store.Fill(n.t.Context(), copied, content); err != nil {
			n.t.Fatal(err)
		}
	}
}

func wantCode(t *testing.T, what string, err error, code api.Code) {
	t.Helper()
	var told *api.Error
	if !errors.As(err, &told) || told.Code != code || told.What == "" || told.Remedy == "" {
		t.Errorf("%s: %+v, want %s with what and remedy", what, err, code)
	}
}

func TestWithoutDevicesNothingIsKeptOnFlash(t *testing.T) {
	n := startNode(t, testOptions(t))
	if cache := n.Cache(); n.cache.store != nil || len(cache.Devices)+len(cache.Events)+len(n.Stats().Flash) != 0 {
		t.Errorf("%+v", cache)
	}
	if page, err := n.CacheChunks(t.Context(), api.CachePageRequest{Limit: 10}); err != nil || len(page.Chunks) != 0 || page.Next != "" {
		t.Errorf("%+v, %v", page, err)
	}
	_, err := n.EvictCache(t.Context(), api.CacheEvict{All: true})
	wantCode(t, "evict", err, api.CodeNotFound)
	_, err = n.LimitCache(api.CacheLimit{Path: "/nvme", Bytes: 1 << 30})
	wantCode(t, "limit", err, api.CodeNotFound)
}

func TestChunksOnFlashAreListedDroppedAndThereAgainAfterARestart(t *testing.T) {
	const chunks = 30
	directory := t.TempDir()
	options := flashOptions(t, directory)
	n := startNode(t, options)
	n.store(chunks)
	device := n.Cache().Devices[0]
	if device.Path != directory || device.State != api.CacheHealthy || device.Put != (api.CacheChunks{Chunks: chunks, Bytes: 100 * chunks}) || device.Filled.Chunks != chunks {
		t.Errorf("%+v", device)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := n.CacheChunks(t.Context(), api.CachePageRequest{Limit: 1})
	wantCode(t, "listing what is closed", err, api.CodeUnavailable)
	options.DataDir = t.TempDir()
	n = startNode(t, options)
	seen, put := []string{}, 0
	for request := (api.CachePageRequest{Limit: 7}); ; {
		page, err := n.CacheChunks(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Chunks {
			seen = append(seen, e.ID)
			if e.Put {
				put++
			}
			if e.Size != 100 || e.Bytes != 100 || filepath.Dir(filepath.Dir(e.Path)) != directory {
				t.Errorf("%+v", e)
			}
		}
		if request.After = page.Next; page.Next == "" {
			break
		}
	}
	if !slices.IsSorted(seen) || len(slices.Compact(slices.Clone(seen))) != 2*chunks || put != chunks {
		t.Errorf("listed are %d chunks, %d of them put: %q", len(seen), put, seen)
	}
	dropped, err := n.EvictCache(t.Context(), api.CacheEvict{Chunks: seen, Device: directory})
	if err != nil || dropped.Chunks != chunks || dropped.Put != chunks || dropped.Missing != 0 {
		t.Errorf("%+v, %v", dropped, err)
	}
	if dropped, err := n.EvictCache(t.Context(), api.CacheEvict{All: true}); err != nil || dropped.Chunks != 0 {
		t.Errorf("nothing is left to be dropped: %+v, %v", dropped, err)
	}
	if device := n.Cache().Devices[0]; device.Filled.Chunks != 0 || device.Put.Chunks != chunks || device.EvictedTotal != chunks {
		t.Errorf("%+v", device)
	}
}

func TestWhatCannotBeDroppedOrLimitedIsSaid(t *testing.T) {
	directory := t.TempDir()
	n := startNode(t, flashOptions(t, directory))
	for _, request := range []api.CacheEvict{{}, {All: true, Bytes: 1}, {Bytes: -1}} {
		_, err := n.EvictCache(t.Context(), request)
		wantCode(t, fmt.Sprintf("evict %+v", request), err, api.CodeOutOfRange)
	}
	_, err := n.EvictCache(t.Context(), api.CacheEvict{All: true, Device: "/elsewhere"})
	wantCode(t, "evict from elsewhere", err, api.CodeNotFound)
	_, err = n.EvictCache(t.Context(), api.CacheEvict{Chunks: []string{"x"}})
	wantCode(t, "evict what is no id", err, api.CodeInvalid)
	_, err = n.CacheChunks(t.Context(), api.CachePageRequest{After: "x", Limit: 1})
	wantCode(t, "list after what is no id", err, api.CodeInvalid)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = n.CacheChunks(gone, api.CachePageRequest{Limit: 1})
	wantCode(t, "list for nobody", err, api.CodeUnavailable)
	_, err = n.LimitCache(api.CacheLimit{Path: "/elsewhere", Bytes: 1 << 20})
	wantCode(t, "limit elsewhere", err, api.CodeNotFound)
	for _, bytes := range []int64{0, -1} {
		_, err = n.LimitCache(api.CacheLimit{Path: directory, Bytes: bytes})
		wantCode(t, "a limit that is none", err, api.CodeOutOfRange)
	}
	limited, err := n.LimitCache(api.CacheLimit{Path: directory, Bytes: 4 << 20})
	if err != nil || limited.Devices[0].LimitBytes != 4<<20 || n.Stats().Flash[0].LimitBytes != 4<<20 {
		t.Errorf("%+v, %v", limited, err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = n.LimitCache(api.CacheLimit{Path: directory, Bytes: 1 << 20})
	wantCode(t, "a limit for what is closed", err, api.CodeUnavailable)
}

func TestTheCacheMayBeAskedWhileTheNodeCloses(t *testing.T) {
	directory := t.TempDir()
	n := startNode(t, flashOptions(t, directory))
	n.store(20)
	asked := map[string]func() error{
		"stats": func() error { n.Stats(); return nil },
		"page":  func() error { _, err := n.CacheChunks(t.Context(), api.CachePageRequest{Limit: 5}); return err },
		"evict": func() error { _, err := n.EvictCache(t.Context(), api.CacheEvict{Bytes: 1}); return err },
		"limit": func() error { _, err := n.LimitCache(api.CacheLimit{Path: directory, Bytes: 8 << 20}); return err },
	}
	var asking, begun sync.WaitGroup
	closed := make(chan struct{})
	for what, ask := range asked {
		begun.Add(1)
		asking.Go(func() {
			err := ask()
			begun.Done()
			for ended := false; !ended; {
				select {
				case <-closed:
					ended = true // once more, of what is closed
				default:
				}
				if err == nil {
					err = ask()
				}
			}
			var told *api.Error
			if what != "stats" && (!errors.As(err, &told) || told.Code != api.CodeUnavailable) {
				t.Errorf("%s of what is closed: %v", what, err)
			}
		})
	}
	begun.Wait()
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	close(closed)
	asking.Wait()
}

func TestASecondNodeOnADirectoryIsRefusedAndSaysWho(t *testing.T) {
	options := flashOptions(t, t.TempDir())
	startNode(t, options)
	options.DataDir = t.TempDir()
	second, err := Open(options)
	if err == nil {
		t.Fatal("it was opened twice", second.Close())
	}
	for _, want := range []string{options.Flash.Devices[0].Path, "another process has it", fmt.Sprint(os.Getpid()), "take flash.devices out of the configuration"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

func TestANodeGoesOnWithTheDevicesThatCanBeOpened(t *testing.T) {
	strange := t.TempDir()
	if err := os.WriteFile(filepath.Join(strange, "thesis.tex"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	n := startNode(t, flashOptions(t, strange, t.TempDir()))
	n.store(3)
	cache := n.Cache()
	if len(cache.Devices) != 2 || cache.Devices[0].State != api.CacheHealthy || cache.Devices[0].Put.Chunks != 3 {
		t.Fatalf("%+v", cache.Devices)
	}
	if failed := cache.Devices[1]; failed.Path != strange || failed.State != api.CacheFailed || failed.Events["device_failed"] != 1 {
		t.Errorf("%+v", failed)
	}
	if len(cache.Events) == 0 || !slices.ContainsFunc(cache.Events, func(e api.CacheEvent) bool {
		return e.Kind == "device_failed" && e.Device == strange && strings.Contains(e.Error, "thesis.tex") && !e.At.IsZero()
	}) {
		t.Errorf("%+v", cache.Events)
	}
}

func TestTheLastEventsAreKeptNewestFirst(t *testing.T) {
	var n Node
	id := backend.ChunkID{1, 2, 3}
	for i := range 3 * api.CacheEventsKept {
		n.cache.note(flash.Event{Kind: flash.ChunkCorrupt, Device: "/nvme", Block: i, Chunk: id, Err: errors.New("EIO")})
	}
	n.cache.note(flash.Event{Kind: flash.ScrubDone, Device: "/nvme", Detail: "nothing is damaged"})
	events := n.Cache().Events
	if len(events) != api.CacheEventsKept || events[0].Kind != "scrub_done" || events[0].Chunk != "" || events[0].Error != "" {
		t.Fatalf("%d events, %+v", len(events), events[0])
	}
	for i, e := range events[1:] {
		if e.Block != 3*api.CacheEventsKept-1-i || e.Error != "EIO" || !strings.HasPrefix(e.Chunk, "010203") || len(e.Chunk) != 64 {
			t.Fatalf("event %d is %+v", i+1, e)
		}
	}
}

// What the daemon answers is what flash says of itself, to the byte: so a client may decode
// either into the types of flash.
func TestTheAPIAnswersWhatFlashSays(t *testing.T) {
	want := flash.Stats{Devices: make([]flash.DeviceStats, 2)}
	next := int64(0)
	fillWithNumbers(reflect.ValueOf(&want.Devices[0]).Elem(), &next)
	want.Devices[1] = flash.DeviceStats{Errors: map[string]int64{}, Events: map[flash.EventKind]int64{}}
	var got api.Cache
	for i := range want.Devices {
		got.Devices = append(got.Devices, apiCacheDevice(&want.Devices[i]))
	}
	var decoded flash.Stats
	if err := json.Unmarshal(encoded(t, got), &decoded); err != nil {
		t.Fatal(err)
	}
	if string(encoded(t, decoded)) != string(encoded(t, want)) {
		t.Errorf("flash says\n%s\nand is answered as\n%s", encoded(t, want), encoded(t, got))
	}
	if next < 50 {
		t.Errorf("only %d fields were compared", next)
	}
}

func encoded(t *testing.T, value any) []byte {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// fillWithNumbers gives every field a value of its own.
func fillWithNumbers(v reflect.Value, next *int64) {
	*next++
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Unix(*next, 0).UTC()))
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			fillWithNumbers(v.Field(i), next)
		}
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fillWithNumbers(v.Index(i), next)
		}
	case v.Kind() == reflect.Array:
		for i := range v.Len() {
			v.Index(i).SetUint(uint64(*next % 256))
		}
	case v.Kind() == reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fillWithNumbers(key, next)
		fillWithNumbers(value, next)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case v.Kind() == reflect.String:
		v.SetString(fmt.Sprint("text ", *next))
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.CanInt():
		v.SetInt(*next)
	case v.CanUint():
		v.SetUint(uint64(*next))
	default:
		v.SetFloat(float64(*next))
	}
}

// The labels of metrics are those that flash's source has.
func TestTheAPIKnowsFlashsKindsOfEventsAndErrors(t *testing.T) {
	var kinds, steps []string
	for _, file := range sourceOfFlash(t) {
		ast.Inspect(file, func(node ast.Node) bool {
			switch x := node.(type) {
			case *ast.ValueSpec:
				if name, ok := x.Type.(*ast.Ident); ok && name.Name == "EventKind" {
					kinds = append(kinds, literals(x.Values)...)
				}
			case *ast.CallExpr:
				if called, ok := x.Fun.(*ast.SelectorExpr); ok && slices.Contains([]string{"failing", "retire", "note"}, called.Sel.Name) && len(x.Args) == 3 {
					steps = append(steps, literals(x.Args[1:2])...)
				}
			}
			return true
		})
	}
	slices.Sort(steps)
	known := api.CacheSteps()
	slices.Sort(known)
	if !slices.Equal(kinds, api.CacheEventKinds()) {
		t.Errorf("flash has events %q, the API knows %q", kinds, api.CacheEventKinds())
	}
	if steps = slices.Compact(steps); !slices.Equal(steps, known) {
		t.Errorf("flash counts errors of %q, the API knows %q", steps, known)
	}
	states := fmt.Sprint([]flash.DeviceState{flash.DeviceHealthy, flash.DeviceReads, flash.DeviceGone})
	if states != fmt.Sprint(api.CacheStates()) {
		t.Errorf("flash has states %s, the API knows %v", states, api.CacheStates())
	}
}

func literals(of []ast.Expr) (values []string) {
	for _, e := range of {
		if literal, ok := e.(*ast.BasicLit); ok {
			if text, err := strconv.Unquote(literal.Value); err == nil {
				values = append(values, text)
			}
		}
	}
	return values
}

func sourceOfFlash(t *testing.T) (files []*ast.File) {
	t.Helper()
	names, err := filepath.Glob("../backend/flash/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}
