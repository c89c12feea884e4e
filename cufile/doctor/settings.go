package doctor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// settingsFile names the file that libcufile takes its settings from.
const (
	settingsVariable = "CUFILE_ENV_PATH_JSON"
	settingsFile     = "/etc/cufile.json"
	settingsBytesMax = 1 << 20
)

// What cuFile takes where a file says nothing; GPUDirect Storage configuration guide.
const (
	preferredDirectKB = 16384
	defaultPinnedKB   = 32 << 20
	setPinnedKB       = "max_device_pinned_mem_size_kb"
	setDirectKB       = "max_direct_io_size_kb"
	setCompat         = "allow_compat_mode"
	setP2P            = "use_pci_p2pdma"
)

func examineSettings(m *Machine) Check {
	name, given := m.Lookup(settingsVariable)
	if !given || name == "" {
		name = settingsFile
	}
	if !path.IsAbs(name) {
		return Check{
			Status: Warn, Found: settingsVariable + "=" + name, Meaning: "the path is relative, so it depends on where a program was started which file is meant",
			Remedy: "export " + settingsVariable + "=" + settingsFile,
		}
	}
	if no := m.noSettings(name); no != "" {
		remedy := "sudo mv " + name + " " + name + ".old"
		if given && name != settingsFile {
			remedy = "unset " + settingsVariable
		}
		return Check{Status: Bad, Found: name + ": " + no, Meaning: "that is no file of settings, which has some KiB", Remedy: remedy}
	}
	text, err := m.read(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && given && name != settingsFile:
		return Check{Status: Bad, Found: settingsVariable + "=" + name + ": no such file", Meaning: "cuFile's settings are not those that were meant", Remedy: "unset " + settingsVariable}
	case errors.Is(err, fs.ErrNotExist):
		return m.settingsMeaning("no "+settingsFile+": cuFile's built-in settings", settings{})
	case err != nil:
		return Check{Status: Bad, Found: name + ": " + err.Error(), Meaning: "cuFile cannot read its settings", Remedy: "sudo chmod a+r " + word(name)}
	}
	parsed, err := parseSettings(text)
	if err != nil {
		return Check{
			Status: Bad, Found: name + ": " + err.Error(), Meaning: "what cuFile does with a file that it cannot parse is not documented: it may take other settings than were meant",
			Remedy: "python3 -c 'import re,json,sys; json.loads(re.sub(r\"(?m)//.*$\", \"\", open(sys.argv[1]).read()))' " + word(name),
		}
	}
	return m.settingsMeaning(name, parsed)
}

// noSettings is why a file that is there cannot be one of settings; "" if it can be. Who
// opened a pipe would wait for its other end.
func (m *Machine) noSettings(name string) string {
	switch info, err := fs.Stat(m.Files, inside(name)); {
	case err != nil:
		return ""
	case !info.Mode().IsRegular():
		return "no regular file"
	case info.Size() > settingsBytesMax:
		return sized(info.Size())
	}
	return ""
}

// settings are a parsed cufile.json.
type settings struct{ root map[string]any }

// parseSettings reads JSON with comments, as NVIDIA's own file has them.
func parseSettings(text string) (settings, error) {
	var s settings
	if err := json.Unmarshal([]byte(withoutComments(text)), &s.root); err != nil {
		return settings{}, fmt.Errorf("no JSON, comments aside: %w", err)
	}
	return s, nil
}

// withoutComments puts spaces where comments were, so that offsets in errors stay right.
// Lines keep their ends. What looks like a comment within a string is none.
func withoutComments(text string) string {
	out := []byte(text)
	for i := 0; i < len(out); i++ {
		switch {
		case out[i] == '"':
			i = stringEnd(out, i)
		case out[i] == '/' && i+1 < len(out) && out[i+1] == '/':
			i = blank(out, i, len(out), '\n')
		case out[i] == '/' && i+1 < len(out) && out[i+1] == '*':
			end := len(out)
			if at := strings.Index(text[i+2:], "*/"); at >= 0 {
				end = i + 2 + at + 2
			}
			blank(out, i, end, 0)
			i = end - 1
		}
	}
	return string(out)
}

// stringEnd is where the string that begins at i ends: at its quote, or with the text.
func stringEnd(text []byte, i int) int {
	for i++; i < len(text) && text[i] != '"'; i++ {
		if text[i] == '\\' {
			i++
		}
	}
	return i
}

// blank writes spaces from i until end or until a byte, and returns where it stopped.
func blank(out []byte, i, end int, until byte) int {
	for ; i < end && (until == 0 || out[i] != until); i++ {
		if out[i] != '\n' {
			out[i] = ' '
		}
	}
	return i
}

// find walks down: find("block", "nvme", "use_pci_p2pdma").
func (s settings) find(keys ...string) (any, bool) {
	at, ok := any(s.root), true
	for _, key := range keys {
		var object map[string]any
		if object, ok = at.(map[string]any); ok {
			at, ok = object[key]
		}
		if !ok {
			return nil, false
		}
	}
	return at, true
}

// truth is a setting's that may be written true or "true".
func (s settings) truth(keys ...string) (value, set bool) {
	at, ok := s.find(keys...)
	if !ok {
		return false, false
	}
	value, err := strconv.ParseBool(fmt.Sprint(at))
	return value, err == nil
}

// number is a setting's that may be written 1 or "1".
func (s settings) number(otherwise int64, keys ...string) int64 {
	at, ok := s.find(keys...)
	if !ok {
		return otherwise
	}
	value, err := strconv.ParseFloat(fmt.Sprint(at), 64)
	if err != nil || value < 0 || value > 1<<50 {
		return otherwise
	}
	return int64(value)
}

// settableVersion is the cuFile that takes settings by calls, which win over the
// environment; the environment wins over the file.
const settableVersion = 1140

// truthOf is a variable of the environment that is a truth value.
func (m *Machine) truthOf(name string) (value, set bool) {
	text, set := m.Lookup(name)
	if !set {
		return false, false
	}
	value, err := strconv.ParseBool(text)
	return value, err == nil
}

// settingsMeaning says which settings matter. allow_compat_mode is for information:
// Stoker turns it off for its own reads whatever the file says.
func (m *Machine) settingsMeaning(found string, s settings) Check {
	parts := []part{{OK, found, "its settings do not stand in the way", ""}}
	if forced, _ := m.truthOf("CUFILE_FORCE_COMPAT_MODE"); forced && m.GPU.Versions.CuFile < settableVersion {
		c := joined(append(parts, part{Warn, "CUFILE_FORCE_COMPAT_MODE=true", "every read goes through host memory, and this cuFile cannot be told otherwise", "unset CUFILE_FORCE_COMPAT_MODE"})...)
		return c.against(anyRoute, "CUFILE_FORCE_COMPAT_MODE is set")
	}
	if compat, set := s.truth("properties", setCompat); set {
		parts = append(parts, part{OK, fmt.Sprintf("%s %t (Stoker turns it off for itself)", setCompat, compat), "", ""})
	}
	p2p, against := m.p2pSettings(found, s)
	parts = append(parts, p2p)
	if direct := s.number(preferredDirectKB, "properties", setDirectKB); direct < preferredDirectKB {
		parts = append(parts, part{Info, fmt.Sprintf("%s %d", setDirectKB, direct), "cuFile splits a read into pieces of that size, one after the other: 16384 is faster", "set " + setDirectKB + " to 16384 in " + settingsFile})
	}
	if pinned := s.number(defaultPinnedKB, "properties", setPinnedKB); m.Wanted.SlabBytes > pinned<<10 {
		parts = append(parts, part{Warn, fmt.Sprintf("%s %d", setPinnedKB, pinned), "slabs of " + sized(m.Wanted.SlabBytes) + " are more than cuFile may register: error 5016", "set " + setPinnedKB + " to " + strconv.FormatInt(m.Wanted.SlabBytes>>10, 10) + " in " + settingsFile})
	}
	if parallel, set := s.truth("execution", "parallel_io"); set {
		parts = append(parts, part{OK, fmt.Sprintf("parallel_io %t", parallel), "", ""})
	}
	return joined(parts...).against(byP2PDMA, against)
}

// p2pSettings: P2PDMA needs two keys. "block" belongs at the top, beside "fs"; some files
// have it below "fs".
func (m *Machine) p2pSettings(found string, s settings) (p part, against string) {
	general, _ := s.truth("properties", setP2P)
	origin := "properties." + setP2P
	if value, set := m.truthOf("CUFILE_USE_PCIP2PDMA"); set {
		general, origin = value, "CUFILE_USE_PCIP2PDMA"
	}
	nvme, set := s.truth("block", "nvme", setP2P)
	where := "block.nvme."
	if !set {
		if nvme, set = s.truth("fs", "block", "nvme", setP2P); set {
			where = "fs.block.nvme."
		}
	}
	text := fmt.Sprintf("%s %t, %s%s %t", origin, general, where, setP2P, nvme)
	if general && nvme {
		return part{OK, text, "", ""}, ""
	}
	file := settingsFile
	if strings.HasPrefix(found, "/") {
		file = found
	}
	return part{
		m.unlessNvidiaFS(Warn), text, "cuFile tries P2PDMA only if both keys are true",
		fmt.Sprintf(`set in %s: "properties": {"%s": true}, "block": {"nvme": {"%s": true}}`, file, setP2P, setP2P),
	}, "cuFile's settings do not turn P2PDMA on"
}
