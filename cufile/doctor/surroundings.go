package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"
)

// The inode numbers of the namespaces that a machine starts with; linux/proc_ns.h. A
// process that has others is in a container.
const (
	firstIPC = "ipc:[4026531839]"
	firstPID = "pid:[4026531836]"
)

// shareUdev is what gives a container the folder that cuFile looks drives up in.
const shareUdev = "docker run -v /run/udev:/run/udev:ro ..."

// sharedMemoryWanted is of /dev/shm: below, DataLoader's workers of other datasets fail,
// as they do with docker's 64 MiB. Stoker itself takes memfds, which do not count there.
const sharedMemoryWanted = 1 << 30

func examineSurroundings(m *Machine) Check {
	parts := []part{m.udev(), m.namespaces(), m.lockedMemory(), m.sharedMemory(), m.memoryLimit()}
	c := joined(parts...)
	if c.Status == OK {
		c.Meaning = "nothing in the surroundings is in the way"
	}
	return c
}

// udev: cuFile finds out by it which drive a file is on, and answers 5030 without
// (https://github.com/rapidsai/kvikio/issues/33).
func (m *Machine) udev() part {
	_, err := fs.ReadDir(m.Files, "run/udev")
	p := part{Warn, "/run/udev cannot be read", "cuFile needs it to find a file's drive, and fails with 5030", "sudo chmod a+rx /run/udev"}
	switch {
	case err == nil:
		return part{OK, "/run/udev can be read", "", ""}
	case errors.Is(err, fs.ErrNotExist):
		p.found, p.remedy = "there is no /run/udev", shareUdev
	}
	if !m.hasStorage() {
		return part{OK, p.found, "", ""}
	}
	return p
}

func (m *Machine) namespaces() part {
	var own []string
	ipc, pid := m.link("/proc/self/ns/ipc"), m.link("/proc/self/ns/pid")
	if ipc != "" && ipc != firstIPC {
		own = append(own, "IPC")
	}
	if pid != "" && pid != firstPID {
		own = append(own, "PID")
	}
	switch {
	case len(own) > 0:
		return part{Info, "namespaces of its own: " + strings.Join(own, ", "), "this is a container; slabs cross to trainers in other ones by descriptor, not by CUDA IPC", ""}
	case ipc == "" || pid == "":
		return part{OK, "its namespaces cannot be read", "", ""}
	}
	return part{OK, "the machine's own namespaces", "", ""}
}

// lockedMemory is bounded for what is pinned; the GPU driver's own pinning is not counted.
func (m *Machine) lockedMemory() part {
	line, err := m.lineWith("/proc/self/limits", "Max locked memory")
	fields := strings.Fields(line)
	if err != nil || len(fields) < 4 {
		return part{OK, "", "", ""}
	}
	limit := fields[3]
	if limit == "unlimited" {
		return part{OK, "locked memory unlimited", "", ""}
	}
	n, err := strconv.ParseInt(limit, 10, 64)
	if err != nil {
		return part{OK, "", "", ""}
	}
	return part{OK, "locked memory up to " + sized(n), "", ""}
}

func (m *Machine) sharedMemory() part {
	at := m.mountOf("/dev/shm")
	if at == nil || at.point != "/dev/shm" {
		return part{Info, "there is no /dev/shm", "Stoker does not need it; DataLoader's workers do", "docker run --shm-size=8g ..."}
	}
	size := sizeOption(at.value("size"))
	if size == 0 {
		return part{OK, "/dev/shm takes up to half of the memory", "", ""}
	}
	if size < sharedMemoryWanted {
		return part{Info, "/dev/shm has " + sized(size), "Stoker does not need it; DataLoader's workers of other datasets may fail", "docker run --shm-size=8g ... (or --ipc=host)"}
	}
	return part{OK, "/dev/shm has " + sized(size), "", ""}
}

// sizeOption is tmpfs's size=65536k in bytes; 0 if it is not a number.
func sizeOption(text string) int64 {
	scale := int64(1)
	switch {
	case strings.HasSuffix(text, "k"):
		scale = 1 << 10
	case strings.HasSuffix(text, "m"):
		scale = 1 << 20
	case strings.HasSuffix(text, "g"):
		scale = 1 << 30
	}
	n, err := strconv.ParseInt(strings.TrimRight(text, "kmg"), 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/scale {
		return 0
	}
	return n * scale
}

// memoryLimitWanted is what a daemon with its rings takes at most by default.
const memoryLimitWanted = 10 << 30

func (m *Machine) memoryLimit() part {
	limit, known := m.cgroupMemory()
	switch found := "memory limit " + sized(limit); {
	case !known:
		return part{OK, "whether there is a memory limit cannot be read", "", ""}
	case limit == 0:
		return part{OK, "no memory limit", "", ""}
	case limit < memoryLimitWanted:
		return part{Info, found, "rings and page cache count against it: give session.ring_bytes_total less than a quarter of it", ""}
	default:
		return part{OK, found, "", ""}
	}
}

// cgroupMemory is the least limit of the process's control groups, of cgroup v2 and v1; 0
// if there is none. It is not known where no group's files are there.
func (m *Machine) cgroupMemory() (limit int64, known bool) {
	groups, err := m.read("/proc/self/cgroup")
	if err != nil {
		return 0, false
	}
	for line := range strings.SplitSeq(groups, "\n") {
		fields := strings.SplitN(line, ":", 3)
		if len(fields) < 3 {
			continue
		}
		root, file := "/sys/fs/cgroup/memory", "/memory.limit_in_bytes"
		if fields[0] == "0" {
			root, file = "/sys/fs/cgroup", "/memory.max"
		} else if !slices.Contains(strings.Split(fields[1], ","), "memory") {
			continue
		}
		for group := strings.TrimSuffix(fields[2], "/"); ; group = group[:strings.LastIndexByte(group, '/')] {
			n, ok := m.limitIn(root + group + file)
			if known = known || ok; n > 0 && (limit == 0 || n < limit) {
				limit = n
			}
			if !strings.Contains(group, "/") {
				// Of cgroup v2 the root itself has no such file.
				known = known || fields[0] == "0" && m.exists(root+"/cgroup.controllers")
				break
			}
		}
	}
	return limit, known
}

// noLimit is where cgroup v1's numbers begin that mean none.
const noLimit = 1 << 60

// limitIn is what a file of a control group says; 0 for none.
func (m *Machine) limitIn(name string) (limit int64, ok bool) {
	text, err := m.read(name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil || n >= noLimit {
		return 0, true // "max"
	}
	return n, true
}

// memoryTotal is MemTotal of /proc/meminfo in bytes; 0 unknown.
func (m *Machine) memoryTotal() int64 {
	line, err := m.lineWith("/proc/meminfo", "MemTotal:")
	fields := strings.Fields(line)
	if err != nil || len(fields) < 2 {
		return 0
	}
	n, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return n << 10
}

// pageCacheShare is of the memory what may well be cached files.
const pageCacheShare = 0.8

func examinePageCache(m *Machine) Check {
	var files, held, cached int64
	counted, more := false, false
	for i := range m.Directories {
		if d := &m.Directories[i]; d.Counted {
			counted, more = true, more || d.More
			files, held, cached = files+int64(d.Files), held+d.Bytes, cached+d.CachedBytes
		}
	}
	memory := m.memoryTotal()
	if limit, _ := m.cgroupMemory(); limit > 0 && limit < memory {
		memory = limit
	}
	switch {
	case !counted:
		return Check{Status: None, Found: "not examined: what is in the page cache cannot be read (it needs kernel 6.5 and the right to read the files)"}
	case held == 0:
		return Check{Status: None, Found: "the directories hold nothing yet"}
	}
	c := Check{Status: OK, Found: fmt.Sprintf("%d files with %s, of which %s (%d %%) are in the page cache; memory %s", files, sized(held), sized(cached), cached*100/held, sized(memory))}
	c.Meaning = "the files are larger than the memory: reading past the page cache makes sense"
	if more {
		c.Status, c.Found, c.Meaning = Info, "the first "+c.Found, "there are more files than were looked at"
		return c
	}
	if float64(held) <= pageCacheShare*float64(memory) {
		c.Status, c.Meaning = Info, "all files fit into the page cache: from the second epoch on, reading through it is faster than from any drive"
	}
	return c
}
