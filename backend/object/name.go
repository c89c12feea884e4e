package object

import "bytes"

// maxNameBytes is the longest object name: the kernel's PATH_MAX less its NUL.
const maxNameBytes = 4095

// nameBuffer holds one NUL-terminated name for the kernel.
type nameBuffer [maxNameBytes + 1]byte

// put copies name and a NUL into the buffer and returns both together.
// 0 <= len(name) <= maxNameBytes.
func (b *nameBuffer) put(name []byte) []byte {
	n := copy(b[:maxNameBytes], name)
	b[n] = 0
	return b[:n+1]
}

// checkName says what is wrong with an object name, "" if nothing is.
//
// A good name is 1 to 4095 bytes of components joined by single slashes, with no
// "." or ".." component, no slash at either end and no NUL: exactly the names
// that a listing produces, so that one file has one name and no name leads out.
func checkName(name []byte) (complaint string) {
	switch {
	case len(name) == 0:
		return "the name is empty"
	case len(name) > maxNameBytes:
		return "the name is longer than 4095 bytes"
	case name[0] == '/':
		return "the name is absolute; names are relative to the dataset's directory"
	case bytes.IndexByte(name, 0) >= 0:
		return "the name contains a NUL byte"
	}
	for rest := name; ; {
		slash := bytes.IndexByte(rest, '/')
		component := rest
		if slash >= 0 {
			component = rest[:slash]
		}
		if complaint := checkComponent(component); complaint != "" {
			return complaint
		}
		if slash < 0 {
			return ""
		}
		rest = rest[slash+1:]
	}
}

func checkComponent(component []byte) (complaint string) {
	switch string(component) {
	case "":
		return "the name has an empty component"
	case ".":
		return "the name has a \".\" component"
	case "..":
		return "the name has a \"..\" component"
	}
	if len(component) > 255 {
		return "the name has a component longer than 255 bytes"
	}
	return ""
}
