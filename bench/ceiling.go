package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// CeilingOptions says which bare loop to run. It is passed as JSON to a process
// of its own (`stoker bench ceiling JSON`), so that the loop has a fresh heap and
// its CPU time is its own.
type CeilingOptions struct {
	Kind       string  `json:"kind"`       // "raw", "tokens", "tar", "memcpy"
	Dir        string  `json:"dir"`        // raw, tar: folder
	List       string  `json:"list"`       // raw: file of relative paths; tar: as TarData.List
	File       string  `json:"file"`       // tokens: the token file
	RowBytes   int64   `json:"row_bytes"`  // bytes of one sample
	RowStride  int64   `json:"row_stride"` // tokens: bytes from one sample to the next
	Batch      int     `json:"batch"`      // samples a batch
	Threads    int     `json:"threads"`    // reading goroutines
	Slots      int     `json:"slots"`      // batches of memory, filled in turn
	Seconds    float64 `json:"seconds"`    // timed
	Consumer   bool    `json:"consumer"`   // touch every cache line of each batch in one more goroutine
	Seed       uint64  `json:"seed"`       // of the order
	WarmUpPart float64 `json:"warm_up"`    // of Seconds, before it. Default 0.15
}

// CeilingResult is what a bare loop reached.
type CeilingResult struct {
	Rows   int64 `json:"rows"`
	Bytes  int64 `json:"bytes"`
	WallNs int64 `json:"wall_ns"`
	CPUNs  int64 `json:"cpu_ns"`
}

// CeilingMain runs the loop that the JSON argument describes and writes the
// result as JSON: the body of the hidden command `stoker bench ceiling`.
func CeilingMain(ctx context.Context, argument string, w io.Writer) error {
	var o CeilingOptions
	if err := json.Unmarshal([]byte(argument), &o); err != nil {
		return fmt.Errorf("options of the bare loop: %w", err)
	}
	result, err := Ceiling(ctx, o)
	if err != nil {
		return fmt.Errorf("bare loop %q: %w", o.Kind, err)
	}
	return json.NewEncoder(w).Encode(result)
}

// Ceiling runs a bare loop: the system calls that the daemon can not do without,
// into shared memory like a session's, and nothing else.
func Ceiling(ctx context.Context, o CeilingOptions) (CeilingResult, error) {
	if o.WarmUpPart == 0 {
		o.WarmUpPart = 0.15
	}
	if o.Kind == "memcpy" {
		return memcpyCeiling(ctx, o)
	}
	if o.Batch < 1 || o.Threads < 1 || o.Slots < o.Threads || o.RowBytes < 1 {
		return CeilingResult{}, fmt.Errorf("batch %d, threads %d, slots %d, row bytes %d: need at least one of each and a slot a thread",
			o.Batch, o.Threads, o.Slots, o.RowBytes)
	}
	read, samples, closeFiles, err := o.reader()
	if err != nil {
		return CeilingResult{}, err
	}
	defer closeFiles()
	memory, err := sharedMemory(int64(o.Slots) * o.slotBytes())
	if err != nil {
		return CeilingResult{}, err
	}
	defer func() { _ = unix.Munmap(memory) }()
	loop := bareLoop{options: o, read: read, memory: memory, order: permutation(samples, o.Seed)}
	return loop.run(ctx)
}

// slotBytes is the size of a slot: a batch, in whole pages.
func (o CeilingOptions) slotBytes() int64 { return (int64(o.Batch)*o.RowBytes + 4095) &^ 4095 }

// reader returns how to read one sample and how many there are.
func (o CeilingOptions) reader() (read func(sample int32, p []byte) error, samples int, done func(), err error) {
	switch o.Kind {
	case "raw":
		return o.rawReader()
	case "tokens":
		return o.tokenReader()
	case "tar":
		return o.tarReader()
	}
	return nil, 0, nil, fmt.Errorf("kind %q is none of raw, tokens, tar, memcpy", o.Kind)
}

func (o CeilingOptions) rawReader() (func(int32, []byte) error, int, func(), error) {
	content, err := os.ReadFile(o.List)
	if err != nil {
		return nil, 0, nil, err
	}
	var names []string
	for scan := bufio.NewScanner(bytes.NewReader(content)); scan.Scan(); {
		names = append(names, scan.Text())
	}
	dir, err := unix.Open(o.Dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, 0, nil, fmt.Errorf("open %q: %w", o.Dir, err)
	}
	read := func(sample int32, p []byte) error {
		fd, err := unix.Openat(dir, names[sample], unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %q: %w", names[sample], err)
		}
		n, err := unix.Pread(fd, p, 0)
		_ = unix.Close(fd)
		if err != nil || n != len(p) {
			return fmt.Errorf("read %q: %d of %d bytes: %w", names[sample], n, len(p), err)
		}
		return nil
	}
	return read, len(names), func() { _ = unix.Close(dir) }, nil
}

func (o CeilingOptions) tokenReader() (func(int32, []byte) error, int, func(), error) {
	f, err := os.Open(o.File)
	if err != nil {
		return nil, 0, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, 0, nil, err
	}
	fd := int(f.Fd())
	read := func(sample int32, p []byte) error {
		n, err := unix.Pread(fd, p, int64(sample)*o.RowStride)
		if err != nil || n != len(p) {
			return fmt.Errorf("read %q at %d: %d of %d bytes: %w", o.File, int64(sample)*o.RowStride, n, len(p), err)
		}
		return nil
	}
	samples := (info.Size()-o.RowBytes)/o.RowStride + 1
	return read, int(samples), func() { _ = f.Close() }, nil
}

// tarReader reads members of shards that are all open already.
func (o CeilingOptions) tarReader() (func(int32, []byte) error, int, func(), error) {
	members, err := readMembers(o.List)
	if err != nil {
		return nil, 0, nil, err
	}
	shards, err := openShards(o.Dir, members)
	if err != nil {
		return nil, 0, nil, err
	}
	descriptors := make([]int, len(shards))
	for i, f := range shards {
		descriptors[i] = int(f.Fd())
	}
	read := func(sample int32, p []byte) error {
		m := members[sample]
		n, err := unix.Pread(descriptors[m.shard], p, m.offset)
		if err != nil || n != len(p) {
			return fmt.Errorf("read %q at %d: %d of %d bytes: %w", shards[m.shard].Name(), m.offset, n, len(p), err)
		}
		return nil
	}
	return read, len(members), func() { closeAll(shards) }, nil
}

// sharedMemory maps a new memfd, all pages present, as a session's ring is.
func sharedMemory(size int64) ([]byte, error) {
	fd, err := unix.MemfdCreate("stoker-bench", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create shared memory: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Fallocate(fd, 0, 0, size); err != nil {
		return nil, fmt.Errorf("allocate %d bytes of shared memory: %w", size, err)
	}
	memory, err := unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes of shared memory: %w", size, err)
	}
	return memory, nil
}

func permutation(n int, seed uint64) []int32 {
	order := make([]int32, n)
	for i := range order {
		order[i] = int32(i)
	}
	rand.New(rand.NewPCG(seed, 1)).Shuffle(n, func(i, j int) { order[i], order[j] = order[j], order[i] })
	return order
}

// bareLoop is one run. Slots go round from free to a reader, to the consumer if
// there is one, and back.
type bareLoop struct {
	options CeilingOptions
	read    func(sample int32, p []byte) error
	memory  []byte
	order   []int32

	free  chan int // slots to fill; sent by whoever is done with one, never closed
	ready chan int // filled slots for the consumer; closed once the readers are gone
	next  atomic.Int64
	rows  atomic.Int64
	stop  atomic.Bool
}

func (l *bareLoop) run(ctx context.Context) (CeilingResult, error) {
	l.free, l.ready = make(chan int, l.options.Slots), make(chan int, l.options.Slots)
	for slot := range l.options.Slots {
		l.free <- slot
	}
	var readers, consumers sync.WaitGroup
	failures := make(chan error, l.options.Threads)
	for range l.options.Threads {
		readers.Go(func() { failures <- l.fill() })
	}
	if l.options.Consumer {
		consumers.Go(l.consume)
	}
	result := l.timed(ctx)
	l.stop.Store(true)
	readers.Wait()
	close(l.ready)
	consumers.Wait()
	for range l.options.Threads {
		if err := <-failures; err != nil {
			return result, err
		}
	}
	return result, context.Cause(ctx)
}

// timed waits out warm-up and section and takes the counters at its ends.
func (l *bareLoop) timed(ctx context.Context) CeilingResult {
	section := time.Duration(l.options.Seconds * float64(time.Second))
	wait(ctx, time.Duration(float64(section)*l.options.WarmUpPart))
	rows, cpu, begin := l.rows.Load(), cpuNs(), time.Now()
	wait(ctx, section)
	result := CeilingResult{Rows: l.rows.Load() - rows, WallNs: int64(time.Since(begin)), CPUNs: cpuNs() - cpu}
	result.Bytes = result.Rows * l.options.RowBytes
	return result
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// fill reads batch after batch until told to stop.
func (l *bareLoop) fill() error {
	rowBytes, batch := l.options.RowBytes, int64(l.options.Batch)
	for !l.stop.Load() {
		slot := <-l.free
		memory := l.memory[int64(slot)*l.options.slotBytes():]
		first := (l.next.Add(1) - 1) * batch
		for row := range batch {
			sample := l.order[(first+row)%int64(len(l.order))]
			if err := l.read(sample, memory[row*rowBytes:][:rowBytes]); err != nil {
				l.stop.Store(true)
				l.free <- slot
				return err
			}
		}
		l.rows.Add(batch)
		if l.options.Consumer {
			l.ready <- slot
		} else {
			l.free <- slot
		}
	}
	return nil
}

func (l *bareLoop) consume() {
	var sum byte
	for slot := range l.ready {
		memory := l.memory[int64(slot)*l.options.slotBytes():][:l.options.slotBytes()]
		for i := 0; i < len(memory); i += 64 {
			sum ^= memory[i]
		}
		l.free <- slot
	}
	l.next.Add(int64(sum & 1)) // keeps the loop above from being optimised away
}

// memcpyCeiling copies with one core, from memory to memory too large for its caches.
func memcpyCeiling(ctx context.Context, o CeilingOptions) (CeilingResult, error) {
	const size, piece = 256 << 20, 4 << 20
	from, err := sharedMemory(size)
	if err != nil {
		return CeilingResult{}, err
	}
	defer func() { _ = unix.Munmap(from) }()
	to, err := sharedMemory(size)
	if err != nil {
		return CeilingResult{}, err
	}
	defer func() { _ = unix.Munmap(to) }()
	copy(to, from)
	var result CeilingResult
	cpu, begin := cpuNs(), time.Now()
	for at := 0; time.Since(begin).Seconds() < o.Seconds; at = (at + piece) % size {
		if ctx.Err() != nil {
			return result, context.Cause(ctx)
		}
		result.Bytes += int64(copy(to[at:at+piece], from[at:at+piece]))
	}
	result.WallNs, result.CPUNs = int64(time.Since(begin)), cpuNs()-cpu
	return result, nil
}

// cpuNs is the CPU time of this process so far.
func cpuNs() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		panic(fmt.Sprintf("the CPU clock of this process can not be read: %v", err))
	}
	return ts.Nano()
}
