package stub

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The layout of the state file, as of src/state.h. All numbers are little endian.
const (
	stateBytes    = 204800
	stateLayout   = 1
	atLayout      = 8
	atGeneration  = 12
	atClaimsUsed  = 20
	atReads       = 24
	atFaultTexts  = 256
	faultTexts    = 3840
	atFaultCounts = 4096
	atProcesses   = 8192
	processBytes  = 256
	processes     = 256
	atClaims      = 73728
	claimBytes    = 32
	maximumFaults = 64
)

var stateMagic = []byte("STOKSTUB")

// kinds is the order of enum stub_kind.
var kinds = []string{
	"contexts", "allocations", "mappings", "reservations", "memory", "ipc", "host", "registered_host",
	"streams", "events", "files", "buffers", "drivers",
}

// Route is how a read went, as cuFile's counters tell it.
type Route int

// The routes, in the order of enum stub_route. Unaligned reads are counted besides.
const (
	PCIP2PDMA Route = iota
	NvidiaFS
	POSIX
	Unaligned
)

// State is a file that stub libraries in several processes share. Its methods may be
// called from several goroutines at once, but not with or after Close.
type State struct {
	path string
	data []byte
	mu   sync.Mutex // SetFaults
}

// NewState makes the file at path, or opens the one that a library has made there.
// Close unmaps it; the file stays for the caller to remove.
func NewState(path string) (*State, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("stub state: %w", err)
	}
	defer file.Close()
	// The libraries lock the file while they make it, too.
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("stub state %s: lock: %w", path, err)
	}
	// The mapping keeps the open file, so that closing it would not unlock it.
	defer unix.Flock(int(file.Fd()), unix.LOCK_UN)
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("stub state: %w", err)
	}
	if info.Size() == 0 {
		if err := file.Truncate(stateBytes); err != nil {
			return nil, fmt.Errorf("stub state: %w", err)
		}
	} else if info.Size() != stateBytes {
		return nil, fmt.Errorf("stub state %s: %d bytes, not %d: not a state file of this version; remove it", path, info.Size(), stateBytes)
	}
	data, err := unix.Mmap(int(file.Fd()), 0, stateBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("stub state %s: map: %w", path, err)
	}
	s := &State{path: path, data: data}
	if s.word32(atLayout).Load() == 0 {
		copy(data, stateMagic)
		s.word32(atLayout).Store(stateLayout)
	}
	if !bytes.Equal(data[:8], stateMagic) || s.word32(atLayout).Load() != stateLayout {
		return nil, errors.Join(fmt.Errorf("stub state %s: not a state file of this version; remove it", path), s.Close())
	}
	return s, nil
}

// Close unmaps the file.
func (s *State) Close() error {
	return unix.Munmap(s.data)
}

// Environment makes a process use this state.
func (s *State) Environment() []string {
	return []string{"STOKER_STUB_STATE=" + s.path}
}

func (s *State) word32(at int) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&s.data[at]))
}

func (s *State) word64(at int) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&s.data[at]))
}

// SetFaults replaces all faults, in every process that uses this state and from its
// next call on, and sets their counts to 0. From then on STOKER_STUB_FAULTS is not read.
func (s *State) SetFaults(faults ...Fault) error {
	text := Faults(faults...)
	if len(text) >= faultTexts || len(faults) > maximumFaults {
		return fmt.Errorf("stub state: %d faults of %d bytes are more than %d or %d", len(faults), len(text), maximumFaults, faultTexts)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	generation := s.word32(atGeneration).Load()
	s.word32(atGeneration).Store(generation + 1) // odd: being written
	clear(s.data[atFaultTexts:atProcesses])
	copy(s.data[atFaultTexts:], text)
	s.word32(atGeneration).Store(generation + 2)
	return nil
}

// Seen returns how many calls fault i, counted from 0, was looked up for.
func (s *State) Seen(i int) int {
	return int(s.word64(atFaultCounts + 16*i).Load())
}

// Fired returns how many calls fault i has hit. A test checks that its faults fired.
func (s *State) Fired(i int) int {
	return int(s.word64(atFaultCounts + 16*i + 8).Load())
}

// Reads returns how many cuFile reads went a route, in all processes so far.
func (s *State) Reads(route Route) int {
	return int(s.word64(atReads + 8*int(route)).Load())
}

// Live returns how many things of a kind living processes hold; "" is of all kinds.
// The kinds are those of stoker_stub_live.
func (s *State) Live(kind string) int {
	sum := 0
	for p := range processes {
		if !s.alive(p) {
			continue
		}
		for i, name := range kinds {
			if kind == "" || kind == name {
				sum += int(int64(s.word64(atProcesses + processBytes*p + 16 + 8*i).Load()))
			}
		}
	}
	return sum
}

// Leaked returns how many things living processes left to the end of a context.
func (s *State) Leaked() int {
	sum := 0
	for p := range processes {
		if s.alive(p) {
			sum += int(int64(s.word64(atProcesses + processBytes*p + 144).Load()))
		}
	}
	return sum
}

// DeviceBytes returns how much memory of a device, in the order of STOKER_STUB_DEVICES,
// living processes hold. A slab that several have mapped counts once.
func (s *State) DeviceBytes(device int) int64 {
	held := map[uint64]int64{}
	for i := range int(s.word32(atClaimsUsed).Load()) {
		at := atClaims + claimBytes*i
		inode := s.word64(at).Load()
		process := int(s.word32(at + 20).Load())
		if inode != 0 && int(s.word32(at+16).Load()) == device && s.alive(process) {
			held[inode] = int64(s.word64(at + 8).Load())
		}
	}
	var sum int64
	for _, n := range held {
		sum += n
	}
	return sum
}

// alive: is the process in slot p the one that took it? A zombie holds no memory.
func (s *State) alive(p int) bool {
	at := atProcesses + processBytes*p
	pid := s.word32(at).Load()
	return pid != 0 && startOf(int(pid)) == s.word64(at+8).Load()
}

// startOf is when a process started, in clock ticks since boot (proc_pid_stat(5),
// field 22); 0: there is none.
func startOf(pid int) uint64 {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return 0
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return 0
	}
	return start
}
