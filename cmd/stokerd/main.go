// Command stokerd is the per-node daemon: it reads the configuration, opens the
// node and its sockets, and stops them on a signal. Everything else is in package
// loader.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/stokerio/stoker/loader/config"
)

// Set by the linker; see the Makefile.
var (
	version  = "0.1.0-dev"
	revision = ""
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "stokerd:", err)
		os.Exit(1)
	}
}

// run is the whole life of the daemon.
func run(ctx context.Context, args []string) error {
	flags := newFlags()
	if err := flags.set.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) { // Parse has written it
			return nil
		}
		return err
	}
	if flags.version {
		fmt.Printf("stokerd %s %s\n", version, revision)
		return nil
	}
	if flags.set.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; see stokerd --help", flags.set.Arg(0))
	}
	cfg, err := flags.configuration(config.System(os.LookupEnv))
	if err != nil {
		return err
	}
	d, err := start(cfg)
	if err != nil {
		return err
	}
	return d.wait(ctx)
}

// flags are what the command line may override.
type flags struct {
	set                              *pflag.FlagSet
	file, runtimeDir, dataDir, level string
	format                           string
	readers                          int
	version                          bool
}

func newFlags() *flags {
	f := &flags{set: pflag.NewFlagSet("stokerd", pflag.ContinueOnError)}
	f.set.StringVar(&f.file, "config", "", "YAML file with the configuration (default: none, every field has a default)")
	f.set.StringVar(&f.runtimeDir, "runtime-dir", "", "directory of the sockets (default $XDG_RUNTIME_DIR/stoker, /run/stoker or /tmp/stoker-UID)")
	f.set.StringVar(&f.dataDir, "data-dir", "", "directory of datasets and their indexes (default ~/.local/share/stoker or /var/lib/stoker)")
	f.set.StringVar(&f.level, "log-level", "", "debug, info, warn or error")
	f.set.StringVar(&f.format, "log-format", "", "text or json")
	f.set.IntVar(&f.readers, "readers", 0, "goroutines that fill batches, each session (default cores-1, from 1 to 4)")
	f.set.BoolVar(&f.version, "version", false, "print the version and exit")
	return f
}

// configuration reads the file, lets flags override it, and checks the result.
func (f *flags) configuration(env config.Environment) (config.Config, error) {
	cfg, err := config.Load(f.file, env)
	if err != nil {
		return cfg, err
	}
	if err := errors.Join(overridePath(&cfg.RuntimeDir, f.runtimeDir), overridePath(&cfg.DataDir, f.dataDir)); err != nil {
		return cfg, err
	}
	override(&cfg.Log.Level, f.level)
	override(&cfg.Log.Format, f.format)
	override(&cfg.Session.Readers, f.readers)
	cfg.Complete(env)
	return cfg, cfg.Validate()
}

// overridePath makes a flag's path absolute: on a command line it is meant from where
// one is.
func overridePath(field *string, flag string) error {
	if flag == "" {
		return nil
	}
	path, err := filepath.Abs(flag)
	if err != nil {
		return fmt.Errorf("directory %q: %w", flag, err)
	}
	*field = path
	return nil
}

func override[T comparable](field *T, flag T) {
	var none T
	if flag != none {
		*field = flag
	}
}
