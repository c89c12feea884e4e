// Package api serves stokerd's HTTP API: health, versions, datasets, sessions and
// Prometheus metrics, on Unix sockets and, when asked for, on TCP.
//
// It knows nothing of how the daemon works: it serves a Node, an interface that
// package loader implements, and owns the JSON shapes and metric names that the
// outside sees. Everything below /v1 is versioned JSON; every error is an
// application/problem+json object (see Error).
//
// # Doors
//
//   - api.sock: the whole of /v1, /metrics, /healthz and /readyz, for the daemon's
//     own uid and root, by the kernel's word for who connects;
//   - admin.sock: the same, and /debug/pprof;
//   - TCP, if configured: with a token the same as api.sock; without one only
//     reading, only under a Host that is a loopback name (so that no web page
//     reaches it through DNS), and the caller must have chosen a loopback address.
//
// # Memory
//
// fasthttp reuses request buffers as soon as a handler returns. Handlers copy
// what they pass on; a Node may keep every string that it is given.
package api

import (
	"context"
	"time"
)

// Node is what the API serves. Methods are called from many goroutines, must not
// block on I/O for long (RemoveDataset may, up to its ctx), and return values that
// the API may keep. Errors that should reach the caller as they are meant are of
// type *Error; any other is answered with code internal.
type Node interface {
	// Version says which daemon this is.
	Version() Version
	// Ready returns nil once sessions can be opened, else why not yet or no longer.
	Ready() error
	// Datasets lists all datasets, sorted by name.
	Datasets() []Dataset
	// Dataset describes one dataset, or returns an Error with code NotFound.
	Dataset(name string) (Dataset, error)
	// RemoveDataset forgets a dataset and its index, never its files. Errors:
	// CodeNotFound, and CodeConflict while sessions use it.
	RemoveDataset(ctx context.Context, name string) error
	// Sessions lists the sessions that are open, in order of their start.
	Sessions() []Session
	// Session describes one open session, or returns an Error with code NotFound.
	Session(id string) (Session, error)
	// Stalls tells what the trainers of the open sessions, and of the last
	// StallsKept that ended, waited on: open ones first, in order of their start,
	// then the others, in order of their end.
	Stalls() []SessionStalls
	// Stats is a consistent snapshot of the node's counters since its start.
	Stats() Stats

	Hinter
	Tracer
	Cacher
}

// Version says which daemon answers.
type Version struct {
	Version  string `json:"version"`  // of the release, "0.1.0"
	Revision string `json:"revision"` // of the source, "" if unknown
	Go       string `json:"go"`       // Go release it was built with
	Protocol int    `json:"protocol"` // highest version of the session socket's protocol
	PID      int    `json:"pid"`
}

// States of a dataset.
const (
	DatasetReady    = "ready"    // sessions can be opened
	DatasetDetached = "detached" // its directory is not open, for example after a restart: add it again
)

// Dataset describes one dataset. The session socket uses the same object.
type Dataset struct {
	Name      string         `json:"name"`
	Format    string         `json:"format"` // "raw", "tokens", "tar"
	Path      string         `json:"path"`   // as the client that added it saw it
	State     string         `json:"state"`
	Problem   string         `json:"problem,omitempty"` // why it is detached
	OwnerUID  uint32         `json:"owner_uid"`
	AddedAt   time.Time      `json:"added_at"`
	IndexID   string         `json:"index_id"`
	IndexPath string         `json:"index_path,omitempty"` // file of the index, as the daemon sees it
	Samples   int64          `json:"samples"`              // raw: files; tokens: 0, as it depends on block_size
	Tokens    int64          `json:"tokens,omitempty"`     // tokens: in all files
	DType     string         `json:"dtype,omitempty"`      // tokens: element type
	Files     int64          `json:"files"`                // source files
	Bytes     int64          `json:"bytes"`                // source bytes of all samples
	Classes   []string       `json:"classes,omitempty"`    // raw: a label is an index into it
	Parts     []Part         `json:"parts,omitempty"`      // tar: what samples are made of, sorted by name
	Archives  map[string]int `json:"archives,omitempty"`   // tar: how shards are stored, "tar", "gzip", ... -> shards
	Indexes   map[string]int `json:"indexes,omitempty"`    // tar: what became of index files beside the shards -> shards
	Skipped   map[string]int `json:"skipped,omitempty"`    // reason -> files left out
	Saw       string         `json:"saw,omitempty"`        // what the scan recognised, in words
}

// Part is one kind of member that samples of a tar dataset have.
type Part struct {
	Name     string `json:"name"`      // the suffix: "jpg", "seg.png"
	Samples  int64  `json:"samples"`   // that have it
	Bytes    int64  `json:"bytes"`     // of all of them together
	MaxBytes int64  `json:"max_bytes"` // of the largest
}

// Session describes one open session: one rank of a job.
type Session struct {
	ID              string    `json:"id"`
	Dataset         string    `json:"dataset"`
	Format          string    `json:"format"`  // of the dataset
	Columns         []string  `json:"columns"` // of a batch, in their order
	IndexID         string    `json:"index_id"`
	JobID           string    `json:"job_id,omitempty"`
	Client          Client    `json:"client"`
	StartedAt       time.Time `json:"started_at"`
	Transport       string    `json:"transport"` // "ring", "socket"
	Order           string    `json:"order"`     // "global", "windowed", "sequential", "torch", "numpy"
	Seed            uint64    `json:"seed"`
	Rank            int       `json:"rank"`
	WorldSize       int       `json:"world_size"`
	BatchSize       int       `json:"batch_size"`
	Epoch           int64     `json:"epoch"`            // of the last batch published
	SamplesConsumed int64     `json:"samples_consumed"` // of that epoch, over all ranks
	Samples         int64     `json:"samples"`          // of one epoch, over all ranks
	Ring            Ring      `json:"ring"`
	Traffic         Traffic   `json:"traffic"`
	Stall           Stall     `json:"stall"`
}

// StallsKept is how many sessions that have ended Stalls still tells of.
const StallsKept = 32

// WorstKept is how many slow batches of a session Stalls tells of.
const WorstKept = 10

// SessionStalls is what one session's trainer waited on.
type SessionStalls struct {
	ID          string      `json:"id"`
	Dataset     string      `json:"dataset"`
	JobID       string      `json:"job_id,omitempty"`
	Client      Client      `json:"client"`
	StartedAt   time.Time   `json:"started_at"`
	EndedAt     *time.Time  `json:"ended_at,omitempty"` // nil while it is open
	WallSeconds float64     `json:"wall_seconds"`       // from its start to its end, or to now
	Share       float64     `json:"share"`              // of WallSeconds that the trainer waited, 0 to 1
	Stall       Stall       `json:"stall"`
	Foresight   *Foresight  `json:"foresight,omitempty"` // nil: nothing is read ahead for it
	Worst       []SlowBatch `json:"worst"`               // at most WorstKept, longest wait first
}

// SlowBatch is one batch that the trainer waited for.
type SlowBatch struct {
	Seconds  float64   `json:"seconds"` // waited
	Epoch    int64     `json:"epoch"`
	Position int64     `json:"position"` // of its first sample in the epoch's order
	Causes   Causes    `json:"causes"`
	Files    []string  `json:"files"`               // that it was read from, at most 4
	FirstKey string    `json:"first_key,omitempty"` // of its first sample
	Slowest  *SlowRead `json:"slowest,omitempty"`   // its slowest read from disk, if it had any
}

// Causes divides one wait.
type Causes struct {
	DiskSeconds      float64 `json:"disk_seconds"`
	IndexSeconds     float64 `json:"index_seconds"`
	OrderSeconds     float64 `json:"order_seconds"`
	RingSeconds      float64 `json:"ring_seconds"`
	WakeSeconds      float64 `json:"wake_seconds"`
	TransformSeconds float64 `json:"transform_seconds"`
	OtherSeconds     float64 `json:"other_seconds"` // what the others leave of the wait
}

// SlowRead is one read that was not served from memory.
type SlowRead struct {
	File    string  `json:"file"`
	Offset  int64   `json:"offset"`
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
}

// Client is who holds a session, as the kernel says, except Name.
type Client struct {
	PID  int    `json:"pid"`
	UID  uint32 `json:"uid"`
	Name string `json:"name,omitempty"` // as it called itself: "stoker-python/0.1.0"
}

// Ring is a ring's size and level. Slots = free or being filled + Ready + Held.
type Ring struct {
	Bytes     int64 `json:"bytes"` // memory, whole
	SlotBytes int64 `json:"slot_bytes"`
	Slots     int64 `json:"slots"`
	Ready     int64 `json:"ready"` // published, not yet taken
	Held      int64 `json:"held"`  // taken, not yet given back
}

// Traffic counts what was delivered.
type Traffic struct {
	Batches          int64 `json:"batches"`
	Samples          int64 `json:"samples"`
	PageCacheBytes   int64 `json:"page_cache_bytes"`  // source bytes that were in memory
	DiskBytes        int64 `json:"disk_bytes"`        // source bytes that had to be waited for
	OversizedBatches int64 `json:"oversized_batches"` // larger than a slot
	CopiedBatches    int64 `json:"copied_batches"`    // copied because the trainer kept too many
}

// Stall is the time trainers waited for batches, by what they waited on. Total
// may exceed the sum of the causes by what could not be attributed.
type Stall struct {
	TotalSeconds     float64 `json:"total_seconds"`
	DiskSeconds      float64 `json:"disk_seconds"`
	IndexSeconds     float64 `json:"index_seconds"`
	OrderSeconds     float64 `json:"order_seconds"`
	RingSeconds      float64 `json:"ring_seconds"`      // no slot was free: the consumer was slow
	WakeSeconds      float64 `json:"wake_seconds"`      // from the batch being ready to the trainer running
	TransformSeconds float64 `json:"transform_seconds"` // the trainer's own pool of transforms was not done with it
}

// Stats are the counters behind /metrics. All count from the daemon's start and
// include sessions that have ended, except what is said to be a level.
type Stats struct {
	SessionsOpen   int64            // level
	SessionsOpened int64            // ever
	LeasesEnded    map[string]int64 // reason (see LeaseReasons) -> sessions ended
	Traffic        Traffic
	Stall          Stall
	Rings          Ring             // levels, summed over open sessions; SlotBytes is not used
	Datasets       map[string]int64 // state -> datasets; levels
	Formats        map[string]int64 // format (see Formats) -> datasets; levels
	ScansRunning   int64            // datasets being indexed; level
	ScanBytes      int64            // source bytes that scans have gone through, read or skipped
	ScanSamples    int64            // samples that scans have found
	Errors         map[string]int64 // code -> errors sent to clients of the session socket
	Refused        int64            // connections and requests of the session socket refused for limits or rights
	Hints          HintStats
	Traces         TraceStats
	Foresight      Foresight      // of all sessions; WindowSamples is a level
	Jobs           []JobForesight // of those with sessions open: of these, and of ended ones that Stalls tells of
	Flash          []CacheDevice  // levels, but for what counts what was done
}

// Formats are the label values of stoker_datasets_by_format; a node's other
// formats are counted as "other".
func Formats() []string { return []string{"raw", "tar", "tokens"} }

// LeaseReasons are the label values of stoker_leases_ended_total; a node's other
// reasons are counted as "other".
func LeaseReasons() []string {
	return []string{"close", "eof", "exit", "protocol", "shutdown"}
}
