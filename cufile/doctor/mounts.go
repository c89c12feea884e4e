package doctor

import "strings"

// mount is one line of /proc/self/mountinfo, proc_pid_mountinfo(5).
type mount struct {
	number  string // major:minor of the device
	point   string
	kind    string // ext4, xfs, overlay
	source  string
	options []string // of the mount, and of the file system
}

// value is an option's, "" without one.
func (m *mount) value(name string) string {
	for _, option := range m.options {
		if value, ok := strings.CutPrefix(option, name+"="); ok {
			return value
		}
	}
	return ""
}

// mounts parses a mount table. Lines that are none are left out.
func mounts(table string) []mount {
	var all []mount
	for line := range strings.SplitSeq(table, "\n") {
		if m, ok := parseMount(line); ok {
			all = append(all, m)
		}
	}
	return all
}

// parseMount reads "36 35 98:0 /root /point rw,noatime shared:1 - ext3 /dev/root rw,data=ordered".
func parseMount(line string) (m mount, ok bool) {
	own, behind, ok := strings.Cut(line, " - ")
	fields, rest := strings.Fields(own), strings.Fields(behind)
	if !ok || len(fields) < 6 || len(rest) < 2 {
		return m, false
	}
	m = mount{number: fields[2], point: unescape(fields[4]), kind: rest[0], source: unescape(rest[1])}
	m.options = strings.Split(fields[5], ",")
	if len(rest) > 2 {
		m.options = append(m.options, strings.Split(rest[2], ",")...)
	}
	return m, true
}

// unescape undoes the octal escapes of the kernel's tables: \040 is a space.
func unescape(text string) string {
	if !strings.Contains(text, `\`) {
		return text
	}
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+3 < len(text) && isOctal(text[i+1:i+4]) {
			out.WriteByte((text[i+1]-'0')<<6 | (text[i+2]-'0')<<3 | (text[i+3] - '0'))
			i += 3
			continue
		}
		out.WriteByte(text[i])
	}
	return out.String()
}

// isOctal says whether three digits make a byte.
func isOctal(digits string) bool {
	return digits[0] >= '0' && digits[0] <= '3' && digits[1] >= '0' && digits[1] <= '7' && digits[2] >= '0' && digits[2] <= '7'
}

// mountOf is the mount that a path is on: the longest point above it, and of several on
// one point the last, which hides the others. Nil if the table has none.
func (m *Machine) mountOf(path string) *mount {
	table, err := m.read("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var best *mount
	all := mounts(table)
	for i := range all {
		point := strings.TrimSuffix(all[i].point, "/")
		if (path == point || strings.HasPrefix(path, point+"/")) && (best == nil || len(all[i].point) >= len(best.point)) {
			best = &all[i]
		}
	}
	return best
}
