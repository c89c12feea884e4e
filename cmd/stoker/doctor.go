package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/cufile/doctor"
	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/loader/config"
)

// doctorFlags are what the flags of `stoker doctor` say.
type doctorFlags struct {
	directories []string
	file        string // the daemon's configuration
	gds         string
	slabs       config.Bytes
	prove       bool
	python      string
}

// slabsPreset is the device memory that a GPU's slabs take unless configured.
const slabsPreset = config.Bytes(2 << 30)

func (a *app) doctorCommand() *cobra.Command {
	flags := doctorFlags{slabs: slabsPreset}
	command := &cobra.Command{
		Use:   "doctor",
		Short: "Say how this machine can read into GPU memory, and what stands in the way",
		Long: `Say how this machine can read into GPU memory, and what stands in the way: drivers,
libraries, kernel, file system, drives. Each line says what was read, what that means,
and what to do about it. The last line is the verdict: the best way of reading that is
known to work here, or with --prove, that was seen to work.

--prove tries it: another process maps GPU memory of this one, a file of each directory
is read into a GPU and the reads are counted by route, speeds are sampled for a second
each, and a Python makes a tensor over GPU memory of another process. It takes about
1 GiB of GPU memory, files of up to 256 MiB in the directories while it lasts, and half
a minute.

Exit codes of this command: 0 Stoker can be used; 1 what --gds=require asks for is not
there; 2 something is there and broken: a line that says bad. docs/doctor.md explains
every line.`,
		Example: `  stoker doctor
  stoker doctor --dir /nvme0/stoker --prove
  stoker doctor --prove --gds require --json`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := a.keepOutput(); err != nil {
				return err
			}
			return a.doctor(command.Context(), &flags)
		},
	}
	set := command.Flags()
	set.StringArrayVar(&flags.directories, "dir", nil, "look at this directory (may be repeated; default: those of --config, else of the running stokerd)")
	a.must(command.MarkFlagDirname("dir"))
	set.StringVar(&flags.file, "config", "", "stokerd's configuration, for its flash devices and GPU libraries")
	a.must(command.MarkFlagFilename("config", "yaml", "yml"))
	a.addChoice(command, &flags.gds, "gds", "auto", "what is asked of this machine", []string{"auto", "require", "off"})
	set.Var(&flags.slabs, "slabs", "GPU memory that slabs are to take, each GPU")
	set.BoolVar(&flags.prove, "prove", false, "try it: share GPU memory, read files into it, sample speeds")
	set.StringVar(&flags.python, "python", "python3", "interpreter that --prove tries, for trainers")
	a.must(command.MarkFlagFilename("python"))
	a.addJSON(command)
	command.AddCommand(a.mapSlabCommand())
	return command
}

// mapSlabVerb is the other process of a probe.
const mapSlabVerb = "map-slab"

// slabSocket is the descriptor of the socket in the other process.
const slabSocket = 3

// mapSlabCommand is hidden: doctor starts it.
func (a *app) mapSlabCommand() *cobra.Command {
	return &cobra.Command{
		Use:    mapSlabVerb + " UUID",
		Short:  "Map the slab that comes over descriptor 3, and print its checksum",
		Hidden: true,
		Args:   exactly("UUID"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := a.keepOutput(); err != nil {
				return err
			}
			return doctor.MapSlab(slabSocket, args[0], a.out)
		},
	}
}

// keepOutput makes standard output this program's own, and standard error that of the
// libraries it loads: libcufile prints to standard output, also when the process ends.
func (a *app) keepOutput() error {
	if a.out != io.Writer(os.Stdout) {
		return nil
	}
	own, err := unix.FcntlInt(os.Stdout.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.Dup2(int(os.Stderr.Fd()), int(os.Stdout.Fd()))
	}
	if err != nil {
		return fmt.Errorf("set standard output aside: %w", err)
	}
	a.out = os.NewFile(uintptr(own), os.Stdout.Name())
	return nil
}

func (a *app) doctor(ctx context.Context, flags *doctorFlags) error {
	cfg, err := a.doctorConfig(flags.file)
	if err != nil {
		return err
	}
	options := doctor.Options{
		Lookup: a.environment.Lookup, Directories: a.doctorDirectories(ctx, flags, &cfg),
		Libraries: doctor.Libraries{CUDA: cfg.GPU.CUDALibrary, CuFile: cfg.GPU.CuFileLibrary},
		Wanted:    doctor.Wanted{GDS: flags.gds, SlabBytes: int64(flags.slabs)},
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if flags.prove {
		own, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program, to start it a second time: %w", err)
		}
		options.Prove = &doctor.Prove{Peer: []string{own, "doctor", mapSlabVerb}, Python: flags.python}
	}
	look := doctor.Look
	if a.lookAtMachine != nil {
		look = a.lookAtMachine
	}
	machine, err := interruptible(ctx, endsWithin, func() (*doctor.Machine, error) { return look(ctx, options) })
	if err != nil {
		return err
	}
	report := doctor.Examine(machine)
	if a.json {
		err = a.writeJSON(report)
	} else {
		err = a.writeDoctor(&report)
	}
	if err != nil || report.Verdict.Exit == exitOK {
		return err
	}
	return verdictFailure(&report.Verdict)
}

// doctorConfig reads the daemon's configuration, if a file is given.
func (a *app) doctorConfig(file string) (config.Config, error) {
	if file == "" {
		return config.Config{}, nil
	}
	cfg, err := config.Load(file, a.environment)
	if err == nil {
		cfg.Complete(a.environment)
		err = cfg.Validate()
	}
	if err != nil {
		return config.Config{}, &failure{Code: string(api.CodeInvalid), What: "the configuration cannot be used", Where: file, Why: err.Error(), exit: exitError}
	}
	return cfg, nil
}

// endsWithin is how long probes have to clean up when doctor is interrupted.
const endsWithin = 6 * time.Second

// interruptible is look's answer, or the reason of ctx's end: a driver's call may never
// return, in a sandbox above all, and whoever waits for it wants to stop waiting.
func interruptible(ctx context.Context, grace time.Duration, look func() (*doctor.Machine, error)) (*doctor.Machine, error) {
	var machine *doctor.Machine
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		machine, err = look()
	}()
	select {
	case <-done:
		return machine, err
	case <-ctx.Done():
	}
	select {
	case <-done:
	case <-time.After(grace):
	}
	return nil, fmt.Errorf("interrupted: %w", ctx.Err())
}

// doctorDirectories are those that are given, else the configuration's, else those of the
// stokerd that runs. None is no error: whoever has no cache yet asks as well.
func (a *app) doctorDirectories(ctx context.Context, flags *doctorFlags, cfg *config.Config) (directories []string) {
	switch {
	case len(flags.directories) > 0:
		return flags.directories
	case flags.file == "":
		return a.flashDirectories(ctx)
	}
	for _, device := range cfg.Flash.Devices {
		directories = append(directories, device.Path)
	}
	return directories
}

// flashDirectories are those of the stokerd that runs, if one does and answers.
func (a *app) flashDirectories(ctx context.Context) (directories []string) {
	c, err := a.connect(ctx)
	if err != nil {
		return nil
	}
	defer c.close()
	stats, err := daemonCache{c}.stats(ctx)
	if err != nil {
		return nil
	}
	for i := range stats.Devices {
		directories = append(directories, stats.Devices[i].Path)
	}
	return directories
}

// verdictFailure gives the exit code its message.
func verdictFailure(v *doctor.Verdict) *failure {
	f := &failure{Code: "findings", What: "something is broken", Why: v.Reason, Remedy: v.Next, exit: v.Exit}
	if v.Exit == exitError {
		f.What = "the machine cannot do what is required of it"
	}
	return f
}

// statusColours are ECMA-48 codes.
var statusColours = map[doctor.Status]string{doctor.OK: "32", doctor.Info: "36", doctor.Warn: "33", doctor.Bad: "1;31", doctor.None: "2"}

// writeDoctor writes a line, what it means, and what to do, for each check.
func (a *app) writeDoctor(r *doctor.Report) error {
	_, noColour := a.environment.Lookup("NO_COLOR") // https://no-color.org
	colours := a.screen && !noColour
	var text strings.Builder
	if r.Stub {
		text.WriteString("STUB: the GPU libraries are stand-ins for tests; nothing here is true of a GPU\n\n")
	}
	for i := range r.Checks {
		writeDoctorCheck(&text, &r.Checks[i], colours)
	}
	colour := statusColours[doctor.OK]
	if r.Verdict.Exit != exitOK {
		colour = statusColours[doctor.Bad]
	}
	text.WriteString("\n" + paint(colours, colour, printable(r.Verdict.String())) + "\n")
	_, err := fmt.Fprint(a.out, text.String())
	return err
}

// doctorIndent is where the text of a line begins: below its first one.
var doctorIndent = strings.Repeat(" ", len("none  kernel-module  "))

func writeDoctorCheck(text *strings.Builder, c *doctor.Check, colours bool) {
	status := paint(colours, statusColours[c.Status], fmt.Sprintf("%-4s", c.Status))
	fmt.Fprintf(text, "%s  %-13s  %s\n", status, c.Name, printable(c.Found))
	if c.Meaning != "" {
		text.WriteString(doctorIndent + printable(c.Meaning) + "\n")
	}
	if c.Remedy != "" {
		for line := range strings.SplitSeq(c.Remedy, "\n") {
			text.WriteString(doctorIndent + "next: " + printable(line) + "\n")
		}
	}
}
