package stub_test

import (
	"debug/elf"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stokerio/stoker/cufile/stub"
)

func exported(t *testing.T, library string) []string {
	t.Helper()
	file, err := elf.Open(library)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	symbols, err := file.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range symbols {
		if s.Section != elf.SHN_UNDEF && elf.ST_BIND(s.Info) == elf.STB_GLOBAL {
			names = append(names, s.Name)
		}
	}
	slices.Sort(names)
	return names
}

// since is what each version of cuFile brought (NVIDIA's release notes).
var since = []struct {
	version stub.Version
	names   string
}{
	{stub.V1_0, `cuFileDriverOpen cuFileDriverClose cuFileDriverGetProperties cuFileDriverSetPollMode
		cuFileDriverSetMaxDirectIOSize cuFileDriverSetMaxCacheSize cuFileDriverSetMaxPinnedMemSize
		cuFileHandleRegister cuFileHandleDeregister cuFileBufRegister cuFileBufDeregister cuFileRead cuFileWrite`},
	{1020, `cuFileBatchIOSetUp cuFileBatchIOSubmit cuFileBatchIOGetStatus cuFileBatchIOCancel cuFileBatchIODestroy`},
	{1040, `cuFileDriverClose_v2 cuFileUseCount`},
	{stub.V1_7, `cuFileReadAsync cuFileWriteAsync cuFileStreamRegister cuFileStreamDeregister`},
	{1080, `cuFileGetVersion`},
	{stub.V1_14, `cuFileGetParameterSizeT cuFileGetParameterBool cuFileGetParameterString cuFileSetParameterSizeT
		cuFileSetParameterBool cuFileSetParameterString cuFileGetParameterMinMaxValue
		cuFileSetParameterPosixPoolSlabArray cuFileGetParameterPosixPoolSlabArray cuFileGetBARSizeInKB`},
	{stub.V1_15, `cuFileSetStatsLevel cuFileGetStatsLevel cuFileStatsStart cuFileStatsStop cuFileStatsReset
		cuFileGetStatsL1 cuFileGetStatsL2 cuFileGetStatsL3`},
	{stub.V1_16, `cuFileDriverSetP2PFlags cuFileDriverGetP2PFlags`},
	{stub.V1_19, `cuFileReadv cuFileWritev`},
}

func TestEachVersionExportsWhatNVIDIAsDid(t *testing.T) {
	for _, version := range stub.Versions() {
		t.Run(version.String(), func(t *testing.T) {
			var want []string
			for _, s := range since {
				if s.version <= version {
					want = append(want, strings.Fields(s.names)...)
				}
			}
			slices.Sort(want)
			var got []string
			for _, name := range exported(t, libraries(t, stub.Options{Version: version}).CUFile) {
				if !strings.HasPrefix(name, "stoker_stub") {
					got = append(got, name)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("exports %v\nwant %v", got, want)
			}
		})
	}
}

func TestNoStorageBuildsTheDriverAlone(t *testing.T) {
	dir := t.TempDir()
	l, err := stub.Build(dir, stub.NoStorage)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if l.CUFile != "" || len(entries) != 1 || entries[0].Name() != "libcuda.so.1" {
		t.Errorf("CUFile %q, folder %v", l.CUFile, entries)
	}
}

func TestSymbolsCanBeLeftOut(t *testing.T) {
	l := libraries(t, stub.Options{Version: stub.V1_15, Without: []string{"cuFileGetStatsL3", "cuMemCreate"}})
	if slices.Contains(exported(t, l.CUFile), "cuFileGetStatsL3") || slices.Contains(exported(t, l.CUDA), "cuMemCreate") {
		t.Error("a symbol that was to be left out is there")
	}
	if !slices.Contains(exported(t, l.CUFile), "cuFileGetStatsL2") || !slices.Contains(exported(t, l.CUDA), "cuMemRelease") {
		t.Error("a symbol that was to stay is not there")
	}
}

func TestBuildSaysWhatTheCompilerSaid(t *testing.T) {
	_, err := stub.Compile(t.TempDir(), stub.Options{Version: stub.V1_15, Flags: []string{"-not-a-flag-of-any-compiler"}})
	if err == nil || !strings.Contains(err.Error(), "not-a-flag") || !strings.Contains(err.Error(), "install a C compiler") {
		t.Errorf("error %v", err)
	}
}

func TestSourcesCompileWithoutWarnings(t *testing.T) {
	for _, version := range []stub.Version{stub.V1_0, stub.V1_19} {
		flags := []string{"-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wstrict-prototypes"}
		if _, err := stub.Compile(t.TempDir(), stub.Options{Version: version, Flags: flags}); err != nil {
			t.Error(err)
		}
	}
}

func TestStandInsKeepNVIDIAsRules(t *testing.T) {
	check, file := program(t, "check"), patternFile(t)
	for _, version := range stub.Versions() {
		t.Run(version.String(), func(t *testing.T) {
			l := libraries(t, stub.Options{Version: version})
			wantFine(t, run(t, nil, check, l.CUDA, l.CUFile, file))
		})
	}
}

func TestStandInsLoseNoMemoryUnderValgrind(t *testing.T) {
	check, file := program(t, "check"), patternFile(t)
	l := libraries(t, stub.Options{Version: stub.V1_15})
	wantFine(t, run(t, nil, "valgrind", "--quiet", "--error-exitcode=9", "--leak-check=full", "--show-leak-kinds=definite,indirect,possible",
		check, l.CUDA, l.CUFile, file))
}

func TestStandInsAreCleanUnderSanitizers(t *testing.T) {
	flags := []string{"-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"}
	check, file := program(t, "check", flags...), patternFile(t)
	l := libraries(t, stub.Options{Version: stub.V1_15, Flags: flags})
	wantFine(t, run(t, []string{"ASAN_OPTIONS=detect_leaks=1"}, check, l.CUDA, l.CUFile, file))
}

func TestStandInsServeThreadsAtOnce(t *testing.T) {
	flags := []string{"-fsanitize=thread"}
	threads, file := program(t, "threads", flags...), patternFile(t)
	l := libraries(t, stub.Options{Version: stub.V1_15, Flags: flags})
	wantFine(t, run(t, []string{"TSAN_OPTIONS=halt_on_error=1"}, threads, l.CUDA, l.CUFile, file))
}

func TestMisuseAborts(t *testing.T) {
	misuse, file := program(t, "misuse"), patternFile(t)
	l := libraries(t, stub.Options{Version: stub.V1_15})
	tests := map[string]string{
		"unmap-registered":            "cuMemUnmap of memory at .* that is registered with cuFile",
		"unmap-pending":               "with copies pending",
		"read-pending":                "copy or memset is still pending",
		"close-early":                 "was closed before cuFileHandleDeregister",
		"read-after-close":            "was closed before cuFileHandleDeregister",
		"read-after-deregister":       "which is no handle",
		"deregister-twice":            "which is no handle",
		"fork-and-read":               "in a process forked after cuFileDriverOpen",
		"free-host-pending":           "with copies pending",
		"deregister-file-in-flight":   "cuFileHandleDeregister with 1 reads in flight",
		"deregister-buffer-in-flight": "with 1 reads in flight",
	}
	slow := stub.Fault{Op: "cuFileRead", Kind: stub.Latency, Value: 60_000_000}
	for name, message := range tests {
		t.Run(name, func(t *testing.T) {
			var extra []string
			if strings.HasSuffix(name, "in-flight") {
				extra = append(extra, "STOKER_STUB_FAULTS="+slow.String())
			}
			r := run(t, extra, misuse, l.CUDA, l.CUFile, file, name)
			if r.err == nil || !strings.Contains(r.err.Error(), "abort") {
				t.Errorf("ended with %v, not SIGABRT\n%s%s", r.err, r.stdout, r.stderr)
			}
			first, last, _ := strings.Cut(message, ".*")
			if !strings.Contains(r.stderr, "STUB: misuse: ") || !strings.Contains(r.stderr, first) || !strings.Contains(r.stderr, last) {
				t.Errorf("stderr %q\nwant %q", r.stderr, message)
			}
		})
	}
	r := run(t, nil, misuse, l.CUDA, l.CUFile, file, "read-beside-pending")
	if r.err != nil || r.stdout != "survived\n" {
		t.Errorf("a read beside pending work: %v\n%s", r.err, r.stderr)
	}
}

func TestStorageLoadsAndFailsCleanlyWithoutTheDriver(t *testing.T) {
	data, err := os.ReadFile(libraries(t, stub.Options{Version: stub.V1_15}).CUFile)
	if err != nil {
		t.Fatal(err)
	}
	lonely := filepath.Join(t.TempDir(), "libcufile.so.0")
	if err := os.WriteFile(lonely, data, 0o700); err != nil {
		t.Fatal(err)
	}
	wantFine(t, run(t, nil, program(t, "alone"), lonely))
}

func TestProgramsAreToldThatItIsAStandIn(t *testing.T) {
	check, file := program(t, "check"), patternFile(t)
	l := libraries(t, stub.Options{Version: stub.V1_15})
	r := run(t, []string{"STOKER_STUB_QUIET=0"}, check, l.CUDA, l.CUFile, file)
	wantFine(t, r)
	for _, library := range []string{"libcuda.so.1", "libcufile.so.0"} {
		if strings.Count(r.stderr, "STUB: "+library+" is a stand-in") != 1 {
			t.Errorf("%s is not announced once:\n%s", library, r.stderr)
		}
	}
}

func TestCachedBuildsOnce(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	first := libraries(t, stub.Options{Version: stub.NoStorage})
	before, err := os.Stat(first.CUDA)
	if err != nil {
		t.Fatal(err)
	}
	second := libraries(t, stub.Options{Version: stub.NoStorage})
	after, err := os.Stat(second.CUDA)
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("%v, then %v (%v)", first, second, err)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(first.Dir), ".new-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}
