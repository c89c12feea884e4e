package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/stokerio/stoker/cufile"
)

// Versions of cuFile that brought something we ask about; release notes of GPUDirect
// Storage, and docs/doctor.md.
const (
	cuFileP2PDMA     = 1130
	cuFileStatistics = 1150
)

const installLibrary = "pip install nvidia-cufile (or the CUDA toolkit's package: sudo apt install libcufile-13-0)"

func examineLibrary(m *Machine) Check {
	v := m.GPU.Versions
	if v.CuFile == 0 {
		return m.withoutLibrary()
	}
	found := fmt.Sprintf("%s, cuFile %s", orElse(v.StoragePath, "libcufile.so.0"), cuFileVersion(v))
	if v.Stub {
		found = "STUB " + found
	}
	parts := []part{{OK, found, "the library answers", ""}}
	if m.GPU.StorageErr != nil {
		parts = append(parts, m.refusal())
	}
	if missing := missingSymbols(m.GPU.Symbols); missing != "" {
		parts = append(parts, part{Info, "this version has no " + missing, "", ""})
	}
	switch {
	case v.CuFile < cuFileP2PDMA:
		c := joined(append(parts, part{m.unlessNvidiaFS(Warn), "", "P2PDMA needs cuFile 1.13 (CUDA 12.8) or newer", installLibrary})...)
		return c.against(byP2PDMA, "cuFile is older than 1.13, which P2PDMA needs")
	case v.CuFile < cuFileStatistics:
		parts = append(parts, part{Warn, "", "the route of a read cannot be proved before cuFile 1.15 (CUDA 13.0): it does not count reads by route", installLibrary})
	case v.CuFile == 1160 && m.nvidiaFS().loaded && !m.nvidiaFS().nvme:
		parts = append(parts, part{Warn, "", "cuFile 1.16.0 with nvidia-fs and an unpatched NVMe driver fails every read", "sudo rmmod nvidia-fs"})
	}
	return joined(parts...)
}

func (m *Machine) withoutLibrary() Check {
	c := Check{
		Status: Info, Found: "there is no libcufile.so.0", Remedy: installLibrary,
		Meaning: "batches go to the GPU through host memory, which is fine for most; the direct route needs the library",
	}
	switch err := m.GPU.StorageErr; {
	case err == nil, errors.Is(err, cufile.ErrNoStorage):
		return c.against(anyRoute, "there is no libcufile")
	case errors.Is(err, cufile.ErrConfiguration):
		return Check{
			Status: None, Found: "not examined: " + said(err), Meaning: "what the library's settings are is the next line's",
		}.against(anyRoute, "cuFile's settings cannot be read")
	case refused(err):
		return joined(m.refusal()).against(anyRoute, refusesToStart)
	}
	return Check{
		Status: Bad, Found: said(m.GPU.StorageErr), Meaning: "the library is there, and cannot be used: a damaged file, or another library's",
		Remedy: "pip install --force-reinstall nvidia-cufile",
	}.against(anyRoute, "libcufile cannot be used")
}

const refusesToStart = "cuFile refuses to start without its compatibility mode"

// refusal is what the library said when its driver was opened with compatibility mode
// off: without any route it refuses, which is the cleanest answer there is.
func (m *Machine) refusal() part {
	meaning, remedy := refusesToStart+", as it sees no direct route: the lines below say why", ""
	if _, err := fs.ReadDir(m.Files, "run/udev"); err != nil {
		meaning, remedy = refusesToStart+"; it needs /run/udev", shareUdev
	}
	return part{Warn, said(m.GPU.StorageErr), meaning, remedy}
}

// said is an error's text without its remedy: a line has its own.
func said(err error) string { return withoutRemedy(err.Error()) }

func withoutRemedy(text string) string {
	text, _, _ = strings.Cut(text, "; remedy: ")
	return text
}

// cuFileVersion writes 1150 as 1.15; older libraries cannot tell theirs.
func cuFileVersion(v cufile.Versions) string {
	text := cudaVersion(v.CuFile)
	if v.Inferred {
		return text + " or a little newer (it cannot tell)"
	}
	return text
}

// missingSymbols are the groups of functions that a library lacks, each by the version
// that brought it.
func missingSymbols(symbols []cufile.Symbol) string {
	count := map[string]int{}
	var versions []string
	for _, s := range symbols {
		if s.Library == "libcufile" && !s.Found {
			count[s.Since]++
			versions = add(versions, s.Since)
		}
	}
	for i, since := range versions {
		versions[i] = fmt.Sprintf("%d functions of cuFile %s", count[since], since)
	}
	return strings.Join(versions, ", ")
}
