package main

import (
	"fmt"
	"log/slog"

	"github.com/grafana/pyroscope-go"

	"github.com/stokerio/stoker/loader/config"
)

// startPyroscope pushes profiles if the configuration names a server. The
// returned function sends what is left and stops; nil if nothing was started.
func startPyroscope(cfg config.Pyroscope, log *slog.Logger) (func() error, error) {
	if cfg.ServerAddress == "" {
		return nil, nil //nolint:nilnil // documented
	}
	options := pyroscope.Config{
		ApplicationName: cfg.ApplicationName, ServerAddress: cfg.ServerAddress, Tags: cfg.Tags,
		BasicAuthUser: cfg.BasicAuthUser, Logger: pyroscopeLog{log},
		ProfileTypes: []pyroscope.ProfileType{
			pyroscope.ProfileCPU, pyroscope.ProfileAllocObjects, pyroscope.ProfileAllocSpace,
			pyroscope.ProfileInuseObjects, pyroscope.ProfileInuseSpace, pyroscope.ProfileGoroutines,
		},
	}
	if cfg.BasicAuthPasswordFile != "" {
		password, err := config.ReadSecret(cfg.BasicAuthPasswordFile)
		if err != nil {
			return nil, err
		}
		options.BasicAuthPassword = password.Reveal()
	}
	profiler, err := pyroscope.Start(options)
	if err != nil {
		return nil, fmt.Errorf("start pushing profiles to %s: %w", cfg.ServerAddress, err)
	}
	return profiler.Stop, nil
}

// pyroscopeLog lets the profiler speak in our log.
type pyroscopeLog struct{ log *slog.Logger }

func (l pyroscopeLog) Infof(format string, args ...any) {
	l.log.Debug("pyroscope: " + fmt.Sprintf(format, args...))
}
func (l pyroscopeLog) Debugf(format string, args ...any) {
	l.log.Debug("pyroscope: " + fmt.Sprintf(format, args...))
}
func (l pyroscopeLog) Errorf(format string, args ...any) {
	l.log.Warn("pyroscope: " + fmt.Sprintf(format, args...))
}
