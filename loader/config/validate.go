package config

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// socketPathMax is the longest path of a Unix socket: sun_path has 108 bytes,
// one of which ends it (unix(7)).
const socketPathMax = 107

// longestSocket is the longest name that the daemon puts into RuntimeDir,
// including the temporary name under which a socket is made.
const longestSocket = "session.sock.new"

// Invalid lists everything that is wrong with a configuration.
type Invalid struct {
	Problems []string // each "field: what is wrong and what to write instead"
}

// Error puts the problems on one line each.
func (e *Invalid) Error() string {
	if len(e.Problems) == 1 {
		return "invalid configuration: " + e.Problems[0]
	}
	return fmt.Sprintf("invalid configuration, %d problems:\n  %s",
		len(e.Problems), strings.Join(e.Problems, "\n  "))
}

// problems collects what is wrong.
type problems struct{ list []string }

func (p *problems) add(field, format string, args ...any) {
	p.list = append(p.list, field+": "+fmt.Sprintf(format, args...))
}

func (p *problems) within(field string, value, low, high int64) {
	if value < low || value > high {
		p.add(field, "%d is out of range: give %d to %d", value, low, high)
	}
}

func (p *problems) bytesWithin(field string, value, low, high Bytes) {
	if value < low || value > high {
		p.add(field, "%s is out of range: give %s to %s", value, low, high)
	}
}

// Validate reports every conflict of a completed configuration at once, as an
// *Invalid. It opens no files.
func (c *Config) Validate() error {
	var p problems
	c.validateDirectories(&p)
	c.Log.validate(&p)
	c.Session.validate(&p)
	p.within("io.cold_reads", int64(c.IO.ColdReads), 1, 4096)
	p.within("io.open_files", int64(c.IO.OpenFiles), 0, 1<<20)
	c.Prefetch.validate(&p)
	c.validateFlash(&p)
	c.GPU.validate(&p)
	c.API.validate(&p)
	c.Pyroscope.validate(&p)
	if c.ShutdownTimeout < 100*time.Millisecond || c.ShutdownTimeout > 10*time.Minute {
		p.add("shutdown_timeout", "%s is out of range: give 100ms to 10m", c.ShutdownTimeout)
	}
	if len(p.list) > 0 {
		return &Invalid{Problems: p.list}
	}
	return nil
}

func (c *Config) validateDirectories(p *problems) {
	for _, directory := range []struct{ field, path string }{
		{"runtime_dir", c.RuntimeDir}, {"data_dir", c.DataDir},
	} {
		if !filepath.IsAbs(directory.path) {
			p.add(directory.field, "%q is no absolute path", directory.path)
		}
		if strings.ContainsRune(directory.path, 0) {
			p.add(directory.field, "%q holds a NUL byte", directory.path)
		}
	}
	longest := filepath.Join(c.RuntimeDir, longestSocket)
	if excess := len(longest) - socketPathMax; excess > 0 {
		p.add("runtime_dir", "%q is %d bytes too long for a Unix socket in it: choose a shorter one", c.RuntimeDir, excess)
	}
}

func (l Log) validate(p *problems) {
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, l.Level) {
		p.add("log.level", "%q is unknown: give debug, info, warn or error", l.Level)
	}
	if l.Format != "text" && l.Format != "json" {
		p.add("log.format", "%q is unknown: give text or json", l.Format)
	}
}

func (s Session) validate(p *problems) {
	p.within("session.readers", int64(s.Readers), 1, 256)
	if s.Slots != 0 {
		p.within("session.slots", int64(s.Slots), 4, 1024)
	}
	p.bytesWithin("session.ring_bytes_max", s.RingBytesMax, mebibyte, tebibyte)
	p.bytesWithin("session.ring_bytes_total", s.RingBytesTotal, mebibyte, 64*tebibyte)
	p.bytesWithin("session.order_table_bytes", s.OrderTableBytes, mebibyte, tebibyte)
	p.bytesWithin("session.batch_bytes_max", s.BatchBytesMax, mebibyte, tebibyte)
	p.within("session.sessions_max", int64(s.SessionsMax), 1, 4096)
	p.within("session.sessions_per_client_max", int64(s.SessionsPerClientMax), 1, 4096)
	p.within("session.message_rate_max", int64(s.MessageRateMax), 1, 1_000_000)
	if s.RingBytesTotal < s.RingBytesMax {
		p.add("session.ring_bytes_total", "%s is less than ring_bytes_max, %s: not one full ring would fit",
			s.RingBytesTotal, s.RingBytesMax)
	}
	if s.SessionsPerClientMax > s.SessionsMax {
		p.add("session.sessions_per_client_max", "%d is more than sessions_max, %d: one client could not reach it",
			s.SessionsPerClientMax, s.SessionsMax)
	}
}

func (f Prefetch) validate(p *problems) {
	p.bytesWithin("prefetch.window_bytes", f.WindowBytes, mebibyte, tebibyte)
	p.within("prefetch.workers", int64(f.Workers), 1, 4096)
	if !(f.Epsilon > 0 && f.Epsilon < 1) {
		p.add("prefetch.epsilon", "%v is out of range: give more than 0 and less than 1, such as 0.005", f.Epsilon)
	}
	if !(f.HedgeShare >= 0 && f.HedgeShare <= 0.5) {
		p.add("prefetch.hedge_share", "%v is out of range: give 0 to 0.5", f.HedgeShare)
	}
	p.within("prefetch.hints_max", int64(f.HintsMax), 1, 4096)
	p.bytesWithin("prefetch.hints_bytes_max", f.HintsBytesMax, 1, tebibyte)
	p.within("prefetch.indices_max", int64(f.IndicesMax), 1, 256<<20)
}

// flashDevicesMax is how many devices one store can have.
const flashDevicesMax = 63

func (c *Config) validateFlash(p *problems) {
	f := &c.Flash
	if f.SyncInterval < time.Millisecond || f.SyncInterval > time.Minute {
		p.add("flash.sync_interval", "%s is out of range: give 1ms to 1m", f.SyncInterval)
	}
	if f.ScrubRate != 0 {
		p.bytesWithin("flash.scrub_rate", f.ScrubRate, kibibyte, tebibyte)
	}
	if !f.Scrub && f.ScrubRate != 0 {
		p.add("flash.scrub_rate", "is set, but flash.scrub is false: nothing would be read at that rate; remove one of them")
	}
	if len(f.Devices) > flashDevicesMax {
		p.add("flash.devices", "%d are too many: give at most %d", len(f.Devices), flashDevicesMax)
		return
	}
	for i, d := range f.Devices {
		c.validateDevice(p, fmt.Sprintf("flash.devices[%d]", i), d, f.Devices[:i])
	}
}

// validateDevice checks one device against those before it and the other directories.
func (c *Config) validateDevice(p *problems, field string, d FlashDevice, before []FlashDevice) {
	if d.Limit != 0 {
		p.bytesWithin(field+".limit", d.Limit, 64*mebibyte, 1024*tebibyte)
	}
	if !filepath.IsAbs(d.Path) || strings.ContainsRune(d.Path, 0) || !utf8.ValidString(d.Path) {
		p.add(field+".path", "%q is no absolute path", d.Path)
		return
	}
	for _, other := range []struct{ name, path string }{{"runtime_dir", c.RuntimeDir}, {"data_dir", c.DataDir}} {
		if filepath.IsAbs(other.path) && (contains(d.Path, other.path) || contains(other.path, d.Path)) {
			p.add(field+".path", "%q and %s, %q, are one in the other: give it a directory of its own", d.Path, other.name, other.path)
		}
	}
	for _, other := range before {
		if filepath.IsAbs(other.Path) && (contains(d.Path, other.Path) || contains(other.Path, d.Path)) {
			p.add(field+".path", "%q and %q are one in the other: give each device a directory of its own", d.Path, other.Path)
		}
	}
}

// contains reports whether a path is a directory or lies in it. Both are absolute.
func contains(directory, path string) bool {
	within, err := filepath.Rel(directory, path)
	return err == nil && within != ".." && !strings.HasPrefix(within, "../")
}

func (g GPU) validate(p *problems) {
	for _, library := range []struct{ field, path string }{
		{"gpu.cuda_library", g.CUDALibrary}, {"gpu.cufile_library", g.CuFileLibrary},
	} {
		if library.path != "" && (!filepath.IsAbs(library.path) || strings.ContainsRune(library.path, 0)) {
			p.add(library.field, "%q is no absolute path", library.path)
		}
	}
}

func (a API) validate(p *problems) {
	p.within("api.requests_per_second", int64(a.RequestsPerSecond), 1, 1_000_000)
	if a.TokenFile != "" && a.Listen == "" {
		p.add("api.token_file", "is set, but api.listen is empty: the token would never be asked for; set api.listen or remove it")
	}
	if a.Listen == "" {
		return
	}
	host, port, err := net.SplitHostPort(a.Listen)
	if err != nil || port == "" {
		p.add("api.listen", "%q is no host:port, such as 127.0.0.1:9595", a.Listen)
		return
	}
	if a.TokenFile == "" && !isLoopback(host) {
		p.add("api.listen", "%q is reachable from other machines, and nobody would have to authenticate: set api.token_file, or listen on 127.0.0.1", a.Listen)
	}
}

// isLoopback accepts only what cannot mean another interface. A host name other
// than localhost may, so it counts as reachable.
func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	address := net.ParseIP(host)
	return address != nil && address.IsLoopback()
}

func (y Pyroscope) validate(p *problems) {
	if (y.BasicAuthUser == "") != (y.BasicAuthPasswordFile == "") {
		p.add("pyroscope.basic_auth_user", "and basic_auth_password_file belong together: set both or neither")
	}
	if y.ServerAddress == "" {
		return
	}
	address, err := url.Parse(y.ServerAddress)
	if err != nil || (address.Scheme != "http" && address.Scheme != "https") || address.Host == "" {
		p.add("pyroscope.server_address", "is no address such as http://127.0.0.1:4040")
	} else if address.User != nil {
		p.add("pyroscope.server_address", "holds a user or password: use basic_auth_user and basic_auth_password_file")
	}
	if y.ApplicationName == "" {
		p.add("pyroscope.application_name", "is empty: the profiles would have no name")
	}
}
