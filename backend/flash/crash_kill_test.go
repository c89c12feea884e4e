package flash_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/stokerio/stoker/backend/flash"
)

// childDirectory names the variable that makes the test binary a process to be killed:
// the directory that it uses, and childSeed what it does there.
const (
	childDirectory = "STOKER_TEST_FLASH_DIRECTORY"
	childSeed      = "STOKER_TEST_FLASH_SEED"
)

// killed is a small device in a real directory.
func killed(directory string) flash.Device {
	return flash.Device{Path: directory, LimitBytes: 8 << 20, SpanBytes: 64 << 10, SegmentSpans: 8}
}

// Chunks of the processes that are killed. Each of several goroutines has numbers of its
// own.
const (
	killedUsers  = 4
	killedChunks = 48 // that are put
	killedFilled = 400
)

func killedSize(number uint64) int { return int(number*number*7919) % 64000 }

// child starts the test binary again, as a process that uses a directory.
func child(t *testing.T, directory string, seed uint64) (process *exec.Cmd, lines *bufio.Reader) {
	process = exec.Command(os.Args[0], "-test.run=^TestProcessThatIsKilled$")
	process.Env = append(os.Environ(), childDirectory+"="+directory, childSeed+"="+strconv.FormatUint(seed, 10))
	process.Stderr = os.Stderr
	out, err := process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	return process, bufio.NewReader(out)
}

// TestProcessThatIsKilled does nothing but in a process that child started. Each line says
// that a put or a delete of a chunk begins ("p 7", "d 7") or is done ("P 7", "D 7").
func TestProcessThatIsKilled(t *testing.T) {
	directory := os.Getenv(childDirectory)
	if directory == "" {
		return
	}
	s, err := flash.Open(context.Background(), flash.Options{Devices: []flash.Device{killed(directory)}, SyncBytes: 1 << 20})
	if err != nil {
		fmt.Println("!", err)
		os.Exit(1)
	}
	fmt.Println("open")
	seed, _ := strconv.ParseUint(os.Getenv(childSeed), 10, 64)
	for user := range uint64(killedUsers) {
		go useUntilKilled(s, rand.New(rand.NewPCG(seed, user)), user)
	}
	select {}
}

// useUntilKilled says what it does before and after.
func useUntilKilled(s *flash.Store, rng *rand.Rand, user uint64) {
	ctx := context.Background()
	say := func(what string, number uint64, err error) {
		if err == nil {
			_, _ = os.Stdout.WriteString(what + " " + strconv.FormatUint(number, 10) + "\n")
		}
	}
	for {
		number := user + killedUsers*rng.Uint64N(killedChunks/killedUsers)
		size := killedSize(number)
		switch rng.IntN(8) {
		case 0, 1, 2:
			say("p", number, nil)
			_, err := s.Put(ctx, bytesOf(number, size))
			say("P", number, err)
		case 3:
			say("d", number, nil)
			say("D", number, s.Delete(ctx, putOf(number, size)))
		case 4:
			_ = s.Fill(ctx, putOf(number, size), bytesOf(number, size))
		default:
			number = 1000 + rng.Uint64N(killedFilled)
			_ = s.Fill(ctx, filledOf(number, killedSize(number)), bytesOf(number, killedSize(number)))
		}
	}
}

// follow reads what a process says until it ends, and kills it after so many lines.
func (w *witness) follow(process *exec.Cmd, lines *bufio.Reader, after int) {
	for n := 0; ; n++ {
		if n == after {
			w.must(process.Process.Kill())
		}
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			break // a last line without an end is of what was not said
		}
		what, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if what == "!" {
			w.t.Errorf("the process: %s", rest)
			break
		}
		number, _ := strconv.ParseUint(rest, 10, 64)
		c := putOf(number, killedSize(number))
		switch f, found := w.knows(c); {
		case what == "P":
			w.set(number, c, true)
		case what == "d", what == "p" && !(found && f.put):
			w.set(number, c, false)
		}
	}
	_ = process.Wait() // it was killed
}

// A process is killed at 300 random points; after each, what it had put is whole, nothing
// is wrong, and the next one goes on with the same directory.
func TestKilledUnderLoad(t *testing.T) {
	const directories, kills = 2, 150
	for n := range uint64(directories) {
		t.Run(fmt.Sprintf("directory=%d", n), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(n, 9))
			directory, w := t.TempDir(), newWitness(t)
			for number := range uint64(killedFilled) {
				w.set(1000+number, filledOf(1000+number, killedSize(1000+number)), false)
			}
			for number := range uint64(killedChunks) { // they may be filled
				w.set(number, putOf(number, killedSize(number)), false)
			}
			for kill := range kills {
				process, lines := child(t, directory, rng.Uint64())
				w.follow(process, lines, rng.IntN(80))
				s := w.open(killed(directory))
				w.check(s)
				w.close(s)
				if t.Failed() {
					t.Fatalf("after kill %d", kill)
				}
			}
			puts := 0
			for _, f := range w.facts() {
				if f.put {
					puts++
				}
			}
			if puts == 0 {
				t.Error("nothing was put in the end")
			}
		})
	}
}

// A directory that another process uses is refused, with the process's number; once that
// one is gone, however it ended, it is not.
func TestDirectoryOfAnotherProcess(t *testing.T) {
	directory := t.TempDir()
	process, lines := child(t, directory, 1)
	if line, err := lines.ReadString('\n'); err != nil || line != "open\n" {
		t.Fatalf("the other process: %q, %v", line, err)
	}
	_, err := flash.Open(context.Background(), flash.Options{Devices: []flash.Device{killed(directory)}})
	if !errors.Is(err, flash.ErrLocked) || !errors.Is(err, flash.ErrNoDevice) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", process.Process.Pid)) {
		t.Errorf("a directory in use by process %d: %v", process.Process.Pid, err)
	}
	if err := process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, lines)
	_ = process.Wait()
	w := newWitness(t)
	w.close(w.open(killed(directory)))
}

// A directory of memory is used, and it is said that it is one.
func TestDirectoryOnTmpfs(t *testing.T) {
	directory, err := os.MkdirTemp("/dev/shm", "stoker-flash-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(directory) })
	w := newWitness(t)
	s := w.open(killed(directory))
	w.goesOn(s)
	w.close(s)
	w.expect(flash.DeviceWarning)
	if detail := w.mu.events[0].Detail; !strings.Contains(detail, "tmpfs") {
		t.Errorf("it says %q", detail)
	}
}
