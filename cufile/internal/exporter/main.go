// Command exporter shares one slab of device memory with whoever connects to its
// Unix socket, as the daemon's GPU process does, and obeys a test:
//
//	exporter -socket PATH -bytes N [-device GPU-...] [-legacy] [-seqpacket] [-seed N]
//
// Its standard output is one JSON object a line: first what it shares, then an
// answer to each line of its standard input:
//
//	fill SEED    write the pattern of a seed                        {}
//	check SEED   compare with it                                    {"wrong_at": first byte that differs, or -1}
//	memory       the device's memory in bytes                       {"free": n, "total": n}
//	clients      how many are connected                             {"clients": n}
//	stop         end; so does the end of the input                  {}
//
// An answer that has "error" says what went wrong. The pattern of a seed: the
// little-endian 64-bit word number k is k·0x9E3779B97F4A7C15 + seed, modulo 2^64.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/stokerio/stoker/cufile"
)

func main() {
	var o options
	flag.StringVar(&o.socket, "socket", "", "path of the Unix socket to listen on")
	flag.Int64Var(&o.bytes, "bytes", 64<<20, "length of the slab")
	flag.StringVar(&o.device, "device", "", "UUID of the GPU; default: the first")
	flag.BoolVar(&o.legacy, "legacy", false, "share by legacy CUDA IPC")
	flag.BoolVar(&o.seqpacket, "seqpacket", false, "a seqpacket socket in place of a stream")
	flag.Uint64Var(&o.seed, "seed", 1, "seed of the pattern to begin with")
	flag.Parse()
	if err := run(o, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "exporter:", err)
		os.Exit(1)
	}
}

type options struct {
	socket, device    string
	bytes             int64
	legacy, seqpacket bool
	seed              uint64
}

// shared is the first line of the output.
type shared struct {
	PID     int    `json:"pid"`
	Stub    bool   `json:"stub"`
	Device  string `json:"device"`
	Kind    string `json:"kind"`
	Bytes   int64  `json:"bytes"`
	Mapped  int64  `json:"mapped_bytes"`
	Free    int64  `json:"free"` // before the slab was made
	Total   int64  `json:"total"`
	CUDA    int    `json:"cuda"`
	Address uint64 `json:"address"`
}

func run(o options, in io.Reader, out io.Writer) (err error) {
	driver, err := cufile.Open(cufile.Options{NoStorage: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, driver.Close()) }()
	device, err := openDevice(driver, o.device)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, device.Close()) }()
	free, total, err := device.Memory()
	if err != nil {
		return err
	}
	slab, err := newSlab(device, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, slab.Close()) }()
	if err := fill(slab, o.seed); err != nil {
		return err
	}
	door, err := listen(o, slab)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, door.close()) }()
	versions := driver.Versions()
	answers := json.NewEncoder(out)
	if err := answers.Encode(shared{
		PID: os.Getpid(), Stub: versions.Stub, CUDA: versions.CUDA, Device: slab.Device().String(), Kind: slab.Kind().String(),
		Bytes: slab.Bytes(), Mapped: slab.MappedBytes(), Free: free, Total: total, Address: uint64(slab.Address()),
	}); err != nil {
		return fmt.Errorf("write the first line: %w", err)
	}
	return obey(in, answers, commands{device: device, slab: slab, door: door})
}

// openDevice opens the GPU of a UUID, or the first.
func openDevice(driver *cufile.Driver, name string) (*cufile.Device, error) {
	if name != "" {
		uuid, err := cufile.ParseUUID(name)
		if err != nil {
			return nil, err
		}
		return driver.Device(uuid)
	}
	devices, err := driver.Devices()
	if err != nil {
		return nil, err
	}
	if len(devices) == 0 {
		return nil, errors.New("no GPU is visible: see nvidia-smi -L and CUDA_VISIBLE_DEVICES")
	}
	return driver.Device(devices[0].UUID)
}

func newSlab(device *cufile.Device, o options) (*cufile.Slab, error) {
	if o.legacy {
		return device.NewLegacySlab(o.bytes)
	}
	return device.NewSlab(o.bytes)
}

// obey answers commands until one says stop or the input ends.
func obey(in io.Reader, answers *json.Encoder, c commands) error {
	for lines := bufio.NewScanner(in); lines.Scan(); {
		answer, err := c.obey(lines.Text())
		if err != nil {
			answer = map[string]any{"error": err.Error()}
		}
		if err := answers.Encode(answer); err != nil {
			return fmt.Errorf("write an answer: %w", err)
		}
		if lines.Text() == "stop" {
			return nil
		}
	}
	return nil
}

// commands are what the lines of the input act on.
type commands struct {
	device *cufile.Device
	slab   *cufile.Slab
	door   *door
}

func (c commands) obey(line string) (any, error) {
	verb, argument, _ := strings.Cut(line, " ")
	switch verb {
	case "fill", "check":
		seed, err := strconv.ParseUint(argument, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%q: want a seed: %w", line, err)
		}
		if verb == "fill" {
			return map[string]any{}, fill(c.slab, seed)
		}
		at, err := check(c.slab, seed)
		return map[string]any{"wrong_at": at}, err
	case "memory":
		free, total, err := c.device.Memory()
		return map[string]any{"free": free, "total": total}, err
	case "clients":
		return map[string]any{"clients": c.door.clients()}, nil
	case "stop":
		return map[string]any{}, nil
	}
	return nil, fmt.Errorf("%q: want fill, check, memory, clients or stop", line)
}
