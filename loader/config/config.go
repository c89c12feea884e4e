// Package config is stokerd's configuration: the YAML file's fields with their
// units, defaults and limits, and the rule by which directories are found.
//
// Parsing, completing and validating are separate steps:
//
//	cfg, err := config.Load(path, env) // defaults, then the file; path "" = no file
//	cfg.DataDir = ...                  // what flags override
//	cfg.Complete(env)                  // fields left at "chosen by Stoker"
//	err = cfg.Validate()               // every conflict at once
//
// The package reads no environment variables: whoever calls it passes the
// lookup in an Environment. Secrets are named by file, never written in the
// YAML, and read into a Secret, which no log or JSON shows.
//
// The annotated example deploy/stokerd.yaml is generated from the comments on
// the fields below, so these comments speak to the person who edits that file.
package config

import "time"

// Config is the whole file. A zero value is not a working configuration: start
// from Default or Load.
type Config struct {
	// Directory of the sockets session.sock, api.sock and admin.sock.
	// Empty: $XDG_RUNTIME_DIR/stoker, else /run/stoker where it is writable,
	// else /tmp/stoker-<uid>.
	RuntimeDir string `yaml:"runtime_dir"`

	// Directory of the sample indexes. Stoker keeps no sample bytes there.
	// Empty: $XDG_DATA_HOME/stoker, else ~/.local/share/stoker, else
	// /var/lib/stoker.
	DataDir string `yaml:"data_dir"`

	// How long a clean shutdown may take before what is left is cut off.
	// Go notation, for example 500ms, 10s, 2m.
	ShutdownTimeout time.Duration `yaml:"shutdown_timeout"`

	// What the daemon writes to standard error.
	Log Log `yaml:"log"`

	// Sessions and their rings.
	Session Session `yaml:"session"`

	// Reading files.
	IO IO `yaml:"io"`

	// Fetching what will be read before it is asked for.
	Prefetch Prefetch `yaml:"prefetch"`

	// Chunks kept on local flash, across restarts. Sessions do not read through it yet.
	Flash Flash `yaml:"flash"`

	// Libraries for reading into GPU memory. stoker doctor --config loads them from
	// there; sessions do not read into GPUs yet.
	GPU GPU `yaml:"gpu"`

	// The HTTP API. api.sock is always served, to the daemon's own user and root.
	API API `yaml:"api"`

	// The admin socket: profiles, and every verb that changes something.
	Admin Admin `yaml:"admin"`

	// Continuous profiling. Off while server_address is empty.
	Pyroscope Pyroscope `yaml:"pyroscope"`
}

// Log chooses what is logged and how.
type Log struct {
	// Least severe level written: debug, info, warn or error.
	Level string `yaml:"level"`

	// text for people, json for machines.
	Format string `yaml:"format"`
}

// Session bounds what sessions may use. Sizes are bytes, or strings such as
// 64mb and 1GiB; every multiplier is 1024.
type Session struct {
	// Threads that fill batches, per session. 0: cores - 1, at least 1, at most 4.
	Readers int `yaml:"readers"`

	// Batches that a ring holds. 0: 8, or as few as 4 where 8 do not fit
	// ring_bytes_max. A trainer that would hold all but 2 of them gets copies.
	Slots int `yaml:"slots"`

	// Largest ring of one session, bytes.
	RingBytesMax Bytes `yaml:"ring_bytes_max"`

	// All rings of this node together, bytes. 0: 8 GiB or a quarter of the
	// memory, whichever is less.
	RingBytesTotal Bytes `yaml:"ring_bytes_total"`

	// Tables of the orders "torch" and "numpy", of this node together, bytes: 4 a
	// sample and epoch, for the epoch in use and the next, shared by sessions of
	// equal seed. Other orders need none.
	OrderTableBytes Bytes `yaml:"order_table_bytes"`

	// Sessions open at one time.
	SessionsMax int `yaml:"sessions_max"`

	// Sessions that one client process may hold open.
	SessionsPerClientMax int `yaml:"sessions_per_client_max"`

	// Largest batch, bytes. One that is larger than a slot travels in memory
	// of its own; one that is larger than this is an error.
	BatchBytesMax Bytes `yaml:"batch_bytes_max"`

	// Messages per second that one connection to session.sock is served; what
	// is above it waits. Batches in a ring are no messages.
	MessageRateMax int `yaml:"message_rate_max"`
}

// IO bounds how files are read.
type IO struct {
	// Reads in flight, per dataset, for bytes that are not in the page cache.
	ColdReads int `yaml:"cold_reads"`

	// Files kept open between reads, per dataset. 0: 16384. All datasets together
	// keep at most about three quarters of the process's limit on descriptors.
	OpenFiles int `yaml:"open_files"`
}

// Prefetch configures fetching ahead.
type Prefetch struct {
	// Whether files that are not in the page cache are read ahead of the sessions
	// that will need them, and for hints. It costs nothing where all is cached.
	Enabled bool `yaml:"enabled"`

	// What is read ahead for all sessions and hints together and not used yet,
	// bytes: page cache, not memory of the daemon. They have equal parts of it.
	WindowBytes Bytes `yaml:"window_bytes"`

	// Files that are read ahead at one time, by all sessions together.
	Workers int `yaml:"workers"`

	// Share of its time that a session may wait for what was read ahead too late.
	// A smaller one reads further ahead. 0.005 is half a percent.
	Epsilon float64 `yaml:"epsilon"`

	// Share of the reads ahead that may be made a second time when they are late.
	// 0 for local disks; 0.01 may help where one of several servers answers late.
	HedgeShare float64 `yaml:"hedge_share"`

	// Hints (stoker hint, stoker.hint, POST /v1/hints) that one client may have at
	// a time: a process on session.sock, a user on api.sock, an address on TCP. All
	// clients together may have four times as many.
	HintsMax int `yaml:"hints_max"`

	// What may be fetched for the hints of one client, bytes.
	HintsBytesMax Bytes `yaml:"hints_bytes_max"`

	// Indices that the hints of one client may hold: 4 bytes of memory each.
	IndicesMax int `yaml:"indices_max"`
}

// Flash says where chunks are kept, and how.
type Flash struct {
	// Directories on local NVMe, each on a device of its own, for example
	//   devices:
	//     - {path: /nvme0/stoker, limit: 800GiB}
	//     - {path: /nvme1/stoker}
	// Each is made if need be, and is used by one stokerd at a time. limit is what
	// its files may take; without it nine tenths of what the file system has free
	// at the start, with what the directory has already. Empty: nothing is kept.
	Devices []FlashDevice `yaml:"devices"`

	// Whether chunks are read past the page cache (O_DIRECT), where the file system
	// can: for nodes whose memory is better spent on other things.
	Direct bool `yaml:"direct"`

	// After which time copies that were brought to flash are made durable; a crash
	// loses those of the last two at most. What is stored for good is durable at once.
	SyncInterval time.Duration `yaml:"sync_interval"`

	// Whether what is on flash is read through all the time, to find what has
	// rotted before somebody needs it.
	Scrub bool `yaml:"scrub"`

	// How fast that goes, bytes a second, each device. 0: all that a device may hold
	// within a week, 64KiB to 16MiB.
	ScrubRate Bytes `yaml:"scrub_rate"`
}

// FlashDevice is one directory.
type FlashDevice struct {
	// Its absolute path.
	Path string `yaml:"path"`

	// What its files may take together, bytes. 0: nine tenths of what is free.
	Limit Bytes `yaml:"limit"`
}

// GPU says where the libraries of GPUs are.
type GPU struct {
	// Absolute path of the GPU driver's library. Empty: what STOKER_CUDA_LIB names,
	// else libcuda.so.1 where programs find it.
	CUDALibrary string `yaml:"cuda_library"`

	// Absolute path of the storage library of GPUDirect Storage. Empty: what
	// STOKER_CUFILE_LIB names, else libcufile.so.0 where programs find it, else
	// below /usr/local/cuda.
	CuFileLibrary string `yaml:"cufile_library"`
}

// API configures the HTTP API beyond its Unix socket.
type API struct {
	// host:port to listen on with TCP. Empty: no TCP. Without token_file it must
	// be a loopback address, and is served read-only.
	Listen string `yaml:"listen"`

	// File holding the token that every TCP request must bear
	// (Authorization: Bearer TOKEN). Not readable by others. The token crosses
	// the network as it is: beyond loopback put a TLS proxy before it.
	TokenFile string `yaml:"token_file"`

	// Requests per second that one peer is served on one socket: a user on a Unix
	// socket, an address on TCP. Twice as many may come at once; what is above is
	// answered 429. Health and metrics have as many of their own.
	RequestsPerSecond int `yaml:"requests_per_second"`
}

// Admin configures admin.sock.
type Admin struct {
	// Whether admin.sock is served. The daemon's own user and root may use it.
	Enabled bool `yaml:"enabled"`
}

// Pyroscope configures pushing profiles to a Pyroscope server.
type Pyroscope struct {
	// For example http://127.0.0.1:4040. Empty: nothing is pushed.
	ServerAddress string `yaml:"server_address"`

	// Name under which the profiles appear.
	ApplicationName string `yaml:"application_name"`

	// User name of basic authentication. Empty: none.
	BasicAuthUser string `yaml:"basic_auth_user"`

	// File holding its password. Not readable by others.
	BasicAuthPasswordFile string `yaml:"basic_auth_password_file"`

	// Labels added to every profile, as key: value.
	Tags map[string]string `yaml:"tags"`
}

// Default returns the configuration of a daemon that has no file, not yet
// completed: fields that depend on the machine are still zero.
func Default() Config {
	return Config{
		ShutdownTimeout: 10 * time.Second,
		Log:             Log{Level: "info", Format: "text"},
		Session: Session{
			RingBytesMax:         256 * mebibyte,
			OrderTableBytes:      2 * gibibyte,
			SessionsMax:          64,
			SessionsPerClientMax: 16,
			BatchBytesMax:        gibibyte,
			MessageRateMax:       10_000,
		},
		IO:        IO{ColdReads: 32},
		Prefetch:  Prefetch{Enabled: true, WindowBytes: 256 * mebibyte, Workers: 32, Epsilon: 0.005, HintsMax: 64, HintsBytesMax: gibibyte, IndicesMax: 16 << 20},
		Flash:     Flash{SyncInterval: time.Second, Scrub: true},
		API:       API{RequestsPerSecond: 200},
		Admin:     Admin{Enabled: true},
		Pyroscope: Pyroscope{ApplicationName: "stokerd"},
	}
}

// Complete fills what was left to Stoker's choice from env. It changes nothing
// that is set, so calling it again is harmless. IO.OpenFiles stays 0: only the
// process knows its limit when it starts.
func (c *Config) Complete(env Environment) {
	if c.RuntimeDir == "" {
		c.RuntimeDir = RuntimeDir(env)
	}
	if c.DataDir == "" {
		c.DataDir = DataDir(env)
	}
	if c.Session.Readers == 0 {
		c.Session.Readers = min(max(env.CPUs-1, 1), 4)
	}
	if c.Session.RingBytesTotal == 0 {
		c.Session.RingBytesTotal = defaultRingBytesTotal(env, c.Session.RingBytesMax)
	}
}

// defaultRingBytesTotal is 8 GiB or a quarter of the memory, but room for one
// ring: a machine too small for its own default would refuse to start.
func defaultRingBytesTotal(env Environment, ring Bytes) Bytes {
	total := 8 * gibibyte
	if env.MemoryBytes > 0 {
		total = min(total, Bytes(env.MemoryBytes/4))
	}
	return max(total, ring)
}
