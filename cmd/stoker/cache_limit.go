package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/loader/config"
)

func (a *app) cacheLimitCommand() *cobra.Command {
	var device string
	command := &cobra.Command{
		Use:   "limit SIZE",
		Short: "Change what a device may hold, while stokerd runs",
		Long: `Change what the files of a device may take, until stokerd ends; to keep it, change limit
under flash.devices in its configuration as well. What lies beyond a lower limit is
emptied in the background: copies are dropped, what was put moves, or stays where there
is no room for it. stoker cache stat shows how far that is.`,
		Example: `  stoker cache limit 800GiB
  stoker cache limit 1.5TiB --device /mnt/nvme0/stoker`,
		Args: exactly("SIZE"),
		RunE: func(command *cobra.Command, args []string) error {
			bytes, err := config.ParseBytes(args[0])
			if err != nil || bytes < 1 {
				return &failure{Code: "usage", What: args[0] + " is no size", Remedy: "give a size such as 800GiB or 2tb", exit: exitUsage}
			}
			return a.limitCache(command.Context(), device, int64(bytes))
		},
	}
	command.Flags().StringVar(&device, "device", "", "the path of the device; needed if there are several")
	a.must(command.RegisterFlagCompletionFunc("device", a.completeDevice))
	a.addJSON(command)
	return command
}

func (a *app) limitCache(ctx context.Context, path string, bytes int64) error {
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	before, err := daemonCache{c}.stats(ctx)
	if err != nil {
		return err
	}
	device, err := oneDevice(&before, path)
	if err != nil {
		return err
	}
	var after api.Cache
	if err := c.send(ctx, http.MethodPost, api.CacheLimit{Path: device.Path, Bytes: bytes}, &after, "v1", "cache", "limit"); err != nil {
		return err
	}
	if a.json {
		return a.writeJSON(after)
	}
	then := ""
	if used := device.Room.UsedBytes; used > bytes {
		then = fmt.Sprintf("; it takes %s: what is beyond the limit is emptied", humanBytes(used))
	}
	_, err = fmt.Fprintf(a.out, "%s may take %s, it was %s%s\n", printable(device.Path), humanBytes(bytes), humanBytes(device.LimitBytes), then)
	return err
}

// oneDevice is the device of a path, or for none the only one.
func oneDevice(c *api.Cache, path string) (*api.CacheDevice, error) {
	var paths []string
	for i := range c.Devices {
		if d := &c.Devices[i]; d.Path == path || path == "" && len(c.Devices) == 1 {
			return d, nil
		}
		paths = append(paths, printable(c.Devices[i].Path))
	}
	switch {
	case len(paths) == 0:
		return nil, &failure{Code: string(api.CodeNotFound), What: "stokerd keeps nothing on flash", Remedy: "give it flash.devices in its configuration", exit: exitError}
	case path == "":
		return nil, &failure{Code: "usage", What: "there are several devices", Remedy: "give --device, one of " + strings.Join(paths, ", "), exit: exitUsage}
	}
	return nil, &failure{Code: string(api.CodeNotFound), What: "stokerd has no such device", Where: path, Remedy: "it has " + strings.Join(paths, ", "), exit: exitError}
}

// completeDevice asks the daemon for the paths of its devices.
func (a *app) completeDevice(command *cobra.Command, _ []string, typed string) (paths []string, _ cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(command.Context(), completionPatience)
	defer cancel()
	c, err := a.connect(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer c.close()
	stats, _ := daemonCache{c}.stats(ctx)
	for i := range stats.Devices {
		if path := stats.Devices[i].Path; strings.HasPrefix(path, typed) && printable(path) == path {
			paths = append(paths, path)
		}
	}
	return paths, cobra.ShellCompDirectiveNoFileComp
}
