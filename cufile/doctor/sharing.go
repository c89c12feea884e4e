package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/cufile"
)

// sharedBytes is the size of a slab that is shared to see whether that works: one granule.
const sharedBytes = 2 << 20

// waitDelay bounds how long the pipes of a command that was killed may stay open.
const waitDelay = 5 * time.Second

// sharedPattern is what a shared slab holds. No block of 4 KiB is like another.
func sharedPattern() []byte {
	pattern := make([]byte, sharedBytes)
	state := uint64(0x9e3779b97f4a7c15)
	for i := range pattern {
		state = state*6364136223846793005 + 1442695040888963407 // Knuth's MMIX
		pattern[i] = byte(state >> 56)
	}
	return pattern
}

// checksum is CRC32C.
func checksum(p []byte) uint32 { return crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)) }

// ieee is the CRC32 that Python's zlib has.
func ieee(p []byte) uint32 { return crc32.ChecksumIEEE(p) }

// other is the command of another process that maps a slab, and what its environment has
// beside this one's.
type other struct {
	command     []string
	environment []string
}

// other has the other process load the driver from where this one does.
func (o *Options) other(command []string) other {
	if o.Libraries.CUDA == "" {
		return other{command: command}
	}
	return other{command, []string{cufile.DeviceLibraryVariable + "=" + o.Libraries.CUDA}}
}

// mapped is what the other process says, as one line of JSON.
type mapped struct {
	Checksum uint32 `json:"checksum"`
	Error    string `json:"error,omitempty"`
}

// MapSlab is the other process of a probe: it receives a slab of the GPU over the socket
// that is its descriptor, maps it read-only, and writes the checksum of its bytes, or what
// went wrong, to out.
func MapSlab(descriptor uintptr, uuid string, out io.Writer) error {
	var answer mapped
	sum, err := mapAndSum(descriptor, uuid)
	if answer.Checksum = sum; err != nil {
		answer.Error = err.Error()
	}
	return json.NewEncoder(out).Encode(answer)
}

func mapAndSum(descriptor uintptr, uuid string) (sum uint32, err error) {
	id, err := cufile.ParseUUID(uuid)
	if err != nil {
		return 0, err
	}
	conn, err := socketOf(descriptor)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	driver, err := cufile.Open(cufile.Options{NoStorage: true})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, driver.Close()) }()
	device, err := driver.Device(id)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, device.Close()) }()
	slab, err := cufile.ReceiveSlab(conn, device, false)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, slab.Close()) }()
	held := make([]byte, slab.Bytes())
	if err := slab.CopyOut(held, 0); err != nil {
		return 0, err
	}
	return checksum(held), nil
}

// socketOf takes over a descriptor that is a Unix socket, and leaves any other alone: it
// may be one of this process's own.
func socketOf(descriptor uintptr) (*net.UnixConn, error) {
	if domain, err := unix.GetsockoptInt(int(descriptor), unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || domain != unix.AF_UNIX {
		return nil, fmt.Errorf("descriptor %d is no Unix socket: stoker doctor --prove starts this, with one", descriptor)
	}
	file := os.NewFile(descriptor, "socket of the probe")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", descriptor, err)
	}
	return conn.(*net.UnixConn), nil // its domain says so
}

// filledSlab makes a slab that holds the pattern. The caller closes it, and then the
// device.
func filledSlab(driver *cufile.Driver, info *cufile.DeviceInfo) (*cufile.Device, *cufile.Slab, error) {
	device, err := driver.Device(info.UUID)
	if err != nil {
		return nil, nil, err
	}
	slab, err := device.NewSlab(sharedBytes)
	if err != nil {
		return nil, nil, errors.Join(err, device.Close())
	}
	if err := slab.CopyIn(sharedPattern(), 0); err != nil {
		return nil, nil, errors.Join(err, slab.Close(), device.Close())
	}
	return device, slab, nil
}

func proveSharing(ctx context.Context, driver *cufile.Driver, info *cufile.DeviceInfo, peer other) (p SharingProbe) {
	p.Device = info.UUID.String()
	device, slab, err := filledSlab(driver, info)
	if err != nil {
		p.Err = err.Error()
		return p
	}
	defer closing(&p.Err, device.Close)
	defer closing(&p.Err, slab.Close)
	p.Way = "legacy IPC"
	if slab.Kind() == cufile.SlabVMM {
		p.Way = "descriptor"
	}
	var answer mapped
	peer.command = append(slices.Clone(peer.command), p.Device)
	if err := share(ctx, slab, peer, &answer); err != nil {
		p.Err = err.Error()
	} else if answer.Error != "" {
		p.Err = answer.Error
	} else if want := checksum(sharedPattern()); answer.Checksum != want {
		p.Err = fmt.Sprintf("it saw other bytes: CRC32C %08x, want %08x", answer.Checksum, want)
	}
	return p
}

// share starts a command, sends it a slab over its descriptor 3, and reads the JSON that
// it prints into answer. The command is over when share returns.
func share(ctx context.Context, slab *cufile.Slab, to other, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	ours, theirs, err := socketPair()
	if err != nil {
		return err
	}
	defer ours.Close()
	var out, errs bytes.Buffer
	command := exec.CommandContext(ctx, to.command[0], to.command[1:]...)
	command.Env = append(os.Environ(), to.environment...)
	command.ExtraFiles, command.Stdout, command.Stderr = []*os.File{theirs}, &out, &errs
	command.WaitDelay = waitDelay
	err = command.Start()
	theirs.Close()
	if err != nil {
		return fmt.Errorf("start %s: %w", to.command[0], err)
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = ours.SetDeadline(deadline) // without it the command's end unblocks the send
	}
	sendErr := cufile.SendSlab(ours, slab)
	if err := command.Wait(); err != nil {
		return fmt.Errorf("%s: %w%s", to.command[0], err, lastLine(errs.String()))
	}
	if err := json.Unmarshal([]byte(lastOf(out.String())), answer); err != nil { // libraries print too
		return fmt.Errorf("%s printed no answer: %w%s", to.command[0], errors.Join(sendErr, err), lastLine(errs.String()))
	}
	return nil
}

// lastLine is what a program said last, to be added to an error.
func lastLine(text string) string {
	if text = lastOf(text); text == "" {
		return ""
	}
	return ": " + text
}

// lastOf is the last line of a text, without what is blank at its end.
func lastOf(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// socketPair is two ends of a stream: ours, and one for another process.
func socketPair() (ours *net.UnixConn, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket: %w", err)
	}
	theirs = os.NewFile(uintptr(pair[1]), "socket of the other process")
	if ours, err = socketOf(uintptr(pair[0])); err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}
