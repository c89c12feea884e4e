// Command stoker is the command line: a thin client of stokerd's sockets. Each
// verb has a file of its own. The environment is read here and nowhere below.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"github.com/stokerio/stoker/loader/config"
)

// Set by the linker; see the Makefile.
var (
	version  = "0.1.0-dev"
	revision = ""
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	a := &app{
		clock:       systemClock(),
		environment: config.System(os.LookupEnv),
		in:          os.Stdin,
		out:         os.Stdout,
		err:         os.Stderr,
		terminal:    isTerminal(os.Stderr),
		screen:      isTerminal(os.Stdin) && isTerminal(os.Stdout),
	}
	code := a.run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func isTerminal(file *os.File) bool { return term.IsTerminal(int(file.Fd())) }
