package bench

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// WakeupOptions says how to measure wake-ups. The zero value works.
type WakeupOptions struct {
	RoundTrips int           // timed round trips of each kind. Default 5,000
	Pause      time.Duration // between two round trips, so that both sides are asleep. Default 0
	Python     string        // interpreter. Default as for Compare
	Root       string        // repository. Default as for Compare
	Logger     *slog.Logger  // Default: discard
}

// Wakeup is what one way of waking cost.
type Wakeup struct {
	Kind     string  `json:"kind"` // one of wakeupKinds
	MedianUs float64 `json:"median_us"`
	P99Us    float64 `json:"p99_us"`
	MinUs    float64 `json:"min_us"`
}

// WakeupReport holds round trips between a Go and a Python process: Go wakes
// Python, Python wakes Go, each of them asleep in the kernel until then.
type WakeupReport struct {
	RoundTrips int      `json:"round_trips"`
	PauseUs    float64  `json:"pause_us"`
	Wakeups    []Wakeup `json:"wakeups"`
}

// Print writes the report as a table.
func (r *WakeupReport) Print(w io.Writer) error {
	p := &printer{w: w}
	lines := [][]string{{"round trip Go <-> Python", "median us", "p99 us", "min us"}}
	for _, k := range r.Wakeups {
		lines = append(lines, []string{k.Kind, number(k.MedianUs), number(k.P99Us), number(k.MinUs)})
	}
	p.table(lines)
	return p.err
}

// wakeupKinds are measured in this order. With "netpoll" the Go side waits in the
// runtime's poller, as a goroutine that reads a file does; otherwise its thread
// sleeps in the system call itself.
var wakeupKinds = [...]string{"futex", "eventfd", "seqpacket", "eventfd netpoll", "seqpacket netpoll"}

// Wakeups measures each kind with a Python process of its own.
func Wakeups(ctx context.Context, o WakeupOptions) (*WakeupReport, error) {
	if o.RoundTrips == 0 {
		o.RoundTrips = 5000
	}
	if o.Root == "" {
		o.Root = findRoot()
	}
	if o.Python == "" {
		o.Python = findPython(o.Root)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	dir, err := os.MkdirTemp("", "stoker-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := writeConsumers(dir); err != nil {
		return nil, err
	}
	report := &WakeupReport{RoundTrips: o.RoundTrips, PauseUs: float64(o.Pause) / 1e3}
	for _, kind := range wakeupKinds {
		times, err := roundTrips(ctx, o, dir+"/wakeups.py", kind)
		if err != nil {
			return nil, fmt.Errorf("measure wake-ups by %s: %w", kind, err)
		}
		s := spreadOf(times)
		report.Wakeups = append(report.Wakeups, Wakeup{Kind: kind, MedianUs: s.Median, P99Us: percentile(times, 0.99), MinUs: s.Min})
	}
	return report, nil
}

// pair is one way of waking: ring wakes the other side, await sleeps until it
// has woken us; files are what the other side inherits, in order.
type pair struct {
	files []*os.File
	ring  func() error
	await func() error
	close func() error
}

func newPair(kind string) (*pair, error) {
	switch kind {
	case "futex":
		return futexPair()
	case "eventfd", "eventfd netpoll":
		return eventfdPair(kind != "eventfd")
	}
	return socketPair(kind != "seqpacket")
}

// roundTrips starts the other side and times it; microseconds.
func roundTrips(ctx context.Context, o WakeupOptions, script, kind string) (times []float64, err error) {
	p, err := newPair(kind)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	const warmUp = 200
	answerBy, _, _ := strings.Cut(kind, " ")
	argument, err := json.Marshal(map[string]any{"kind": answerBy, "round_trips": o.RoundTrips + warmUp})
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(o.Python, script, string(argument))
	cmd.ExtraFiles = p.files
	other, err := startChild("wakeups "+kind, cmd, o.Logger)
	if err != nil {
		return nil, err
	}
	finished := make(chan error, 1)
	go func() {
		if !strings.HasSuffix(kind, "netpoll") {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
		}
		var failure error
		times, failure = p.time(o.RoundTrips+warmUp, o.Pause)
		finished <- failure
	}()
	select {
	case err = <-finished:
	case <-ctx.Done():
		// Its end wakes us: what it holds of the pair closes, and all waits are bounded.
		err = errors.Join(context.Cause(ctx), other.end(syscall.SIGTERM))
		<-finished
		return nil, err
	}
	if err := errors.Join(err, other.end(0)); err != nil {
		return nil, fmt.Errorf("%w; the other side said:\n%s", err, other.tail)
	}
	return times[warmUp:], nil
}

// time does n round trips. The first waits for the interpreter to start.
func (p *pair) time(n int, pause time.Duration) ([]float64, error) {
	times := make([]float64, 0, n)
	for range n {
		if pause > 0 {
			time.Sleep(pause)
		}
		begin := time.Now()
		if err := p.ring(); err != nil {
			return times, err
		}
		if err := p.await(); err != nil {
			return times, err
		}
		times = append(times, float64(time.Since(begin))/1e3)
	}
	return times, nil
}

// wakeBound ends a wait for a side that is gone.
const wakeBound = 20 * time.Second

var errNoAnswer = fmt.Errorf("no answer within %s", wakeBound)

// futexPair is two words in a shared page: word 0 counts our wakes, word 16 theirs.
func futexPair() (*pair, error) {
	fd, err := unix.MemfdCreate("stoker-wakeups", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "words")
	if err := f.Truncate(4096); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	memory, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	ours, theirs := (*uint32)(unsafe.Pointer(&memory[0])), (*uint32)(unsafe.Pointer(&memory[64]))
	var seen uint32
	return &pair{
		files: []*os.File{f},
		ring: func() error {
			atomicAdd(ours)
			return futex(ours, futexWake, 1, 0)
		},
		await: func() error {
			defer func() { seen++ }()
			return futexAwait(theirs, seen)
		},
		close: func() error { return errors.Join(unix.Munmap(memory), f.Close()) },
	}, nil
}

func futexAwait(word *uint32, seen uint32) error {
	for deadline := time.Now().Add(wakeBound); atomicLoad(word) == seen; {
		if time.Now().After(deadline) {
			return errNoAnswer
		}
		if err := futex(word, futexWait, seen, time.Second); err != nil {
			return err
		}
	}
	return nil
}

// eventfdPair is two eventfds: ours, which wakes the other side, and theirs.
func eventfdPair(netpoll bool) (*pair, error) {
	ours, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	theirs, err := unix.Eventfd(0, unix.EFD_CLOEXEC|nonblocking(netpoll))
	if err != nil {
		return nil, errors.Join(err, unix.Close(ours))
	}
	// The child's descriptors are files of their own: passing a file on may take it
	// out of the poller.
	inherited := []*os.File{os.NewFile(uintptr(ours), "eventfd")}
	copied, err := unix.FcntlInt(uintptr(theirs), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Join(err, unix.Close(theirs), inherited[0].Close())
	}
	inherited = append(inherited, os.NewFile(uintptr(copied), "eventfd"))
	own, one := os.NewFile(uintptr(theirs), "eventfd"), binary.LittleEndian.AppendUint64(nil, 1)
	return &pair{
		files: inherited,
		ring:  func() error { _, err := unix.Write(ours, one); return err },
		await: awaitFile(own, netpoll, make([]byte, 8)),
		close: func() error { return errors.Join(own.Close(), inherited[0].Close(), inherited[1].Close()) },
	}, nil
}

func socketPair(netpoll bool) (*pair, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if netpoll {
		if err := unix.SetNonblock(fds[0], true); err != nil {
			return nil, errors.Join(err, unix.Close(fds[0]), unix.Close(fds[1]))
		}
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "socket")
	packet := make([]byte, 64)
	return &pair{
		files: []*os.File{theirs},
		ring:  func() error { return unix.Sendto(fds[0], packet, unix.MSG_NOSIGNAL, nil) },
		await: awaitFile(ours, netpoll, make([]byte, 64)),
		close: func() error { return errors.Join(ours.Close(), theirs.Close()) },
	}, nil
}

func nonblocking(yes bool) int {
	if yes {
		return unix.EFD_NONBLOCK
	}
	return 0
}

// awaitFile waits for something to read: in the runtime's poller, or in poll(2).
func awaitFile(f *os.File, netpoll bool, p []byte) func() error {
	if netpoll {
		return func() error {
			if err := f.SetReadDeadline(time.Now().Add(wakeBound)); err != nil {
				return err
			}
			_, err := f.Read(p)
			return err
		}
	}
	fd := int(f.Fd())
	return func() error { return readWhenReady(fd, p) }
}

// readWhenReady sleeps in poll(2), so that the wait has a bound, then reads.
func readWhenReady(fd int, p []byte) error {
	ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for deadline := time.Now().Add(wakeBound); ; {
		n, err := unix.Poll(ready, int(wakeBound.Milliseconds()))
		switch {
		case n > 0:
			if n, err := unix.Read(fd, p); err != nil || n == 0 {
				return errors.Join(io.ErrUnexpectedEOF, err)
			}
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return err
		case time.Now().After(deadline):
			return errNoAnswer
		}
	}
}
