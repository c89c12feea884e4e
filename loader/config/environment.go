package config

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// Environment is what the configuration depends on outside its file. Tests
// inject their own; System describes this process.
type Environment struct {
	Lookup      func(name string) (value string, ok bool) // environment variables; os.LookupEnv
	UserID      int
	CPUs        int   // that this process may use
	MemoryBytes int64 // that this process may use; 0 = unknown
	// Writable tells whether files can be made in a directory, or the directory
	// itself can be made because its parent is writable.
	Writable func(directory string) bool
}

// System describes this process. The caller passes the lookup, so that reading
// environment variables stays in package main.
func System(lookup func(string) (string, bool)) Environment {
	return Environment{
		Lookup:      lookup,
		UserID:      os.Getuid(),
		CPUs:        runtime.GOMAXPROCS(0), // knows the cgroup's quota
		MemoryBytes: memoryBytes("/sys/fs/cgroup/memory.max"),
		Writable:    writable,
	}
}

// memoryBytes is the machine's memory, or the limit in limitFile if that is less.
func memoryBytes(limitFile string) int64 {
	var total int64
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		total = int64(info.Totalram) * int64(info.Unit)
	}
	text, err := os.ReadFile(limitFile)
	if err != nil {
		return total // no cgroup v2: the machine's memory is all we know
	}
	limit, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
	if err != nil || limit <= 0 { // "max"
		return total
	}
	if total == 0 {
		return limit
	}
	return min(total, limit)
}

func writable(directory string) bool {
	err := unix.Access(directory, unix.W_OK|unix.X_OK)
	if err == unix.ENOENT {
		err = unix.Access(filepath.Dir(directory), unix.W_OK|unix.X_OK)
	}
	return err == nil
}

// RuntimeDir is where the sockets are unless the file or a flag says otherwise:
// $XDG_RUNTIME_DIR/stoker, else /run/stoker where it is writable, else
// /tmp/stoker-<uid>.
func RuntimeDir(env Environment) string {
	if dir, ok := absolute(env, "XDG_RUNTIME_DIR"); ok {
		return filepath.Join(dir, "stoker")
	}
	if env.Writable != nil && env.Writable("/run/stoker") {
		return "/run/stoker"
	}
	return "/tmp/stoker-" + strconv.Itoa(env.UserID)
}

// RuntimeDirs lists where a client looks for the daemon, likeliest first: all of
// the daemon's defaults, because a client is often started without the
// XDG_RUNTIME_DIR that the daemon's login had.
func RuntimeDirs(env Environment) []string {
	var places []string
	if dir, ok := absolute(env, "XDG_RUNTIME_DIR"); ok {
		places = append(places, filepath.Join(dir, "stoker"))
	}
	return append(places, "/run/stoker", "/tmp/stoker-"+strconv.Itoa(env.UserID))
}

// DataDir is where the indexes are unless the file or a flag says otherwise:
// $XDG_DATA_HOME/stoker, else ~/.local/share/stoker, else /var/lib/stoker.
func DataDir(env Environment) string {
	if dir, ok := absolute(env, "XDG_DATA_HOME"); ok {
		return filepath.Join(dir, "stoker")
	}
	if home, ok := absolute(env, "HOME"); ok && home != "/" {
		return filepath.Join(home, ".local", "share", "stoker")
	}
	return "/var/lib/stoker"
}

// absolute looks a directory up; the XDG base directory specification says that
// relative paths are invalid and to be ignored.
func absolute(env Environment, name string) (string, bool) {
	if env.Lookup == nil {
		return "", false
	}
	value, ok := env.Lookup(name)
	if !ok || !filepath.IsAbs(value) {
		return "", false
	}
	return filepath.Clean(value), true
}
