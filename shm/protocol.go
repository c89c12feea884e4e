package shm

import (
	"encoding/json"
	"fmt"
)

// Protocol versions of the session socket. A release speaks its own version and
// the one before it; 1 is the first.
const (
	ProtocolMin = 1
	ProtocolMax = 1
)

// Transports of a session.
const (
	TransportRing   = "ring"   // shared memory, no copy
	TransportSocket = "socket" // every batch copied over the socket
)

// FeatureSeeding is a daemon's that looks at Open.Seeding: others would give another
// order without a word.
const FeatureSeeding = "seeding"

// RawPacketBytes is how batches are cut for TransportSocket.
const RawPacketBytes = MaxMessageBytes

// Message types. A client speaks first and gets one final answer a request;
// Oversized and Bye come unasked.
const (
	TypeHello         = "hello"
	TypeDatasetAdd    = "dataset_add"
	TypeDatasetList   = "dataset_list"
	TypeDatasetInfo   = "dataset_info"
	TypeDataset       = "dataset"
	TypeDatasets      = "datasets"
	TypeProgress      = "progress"
	TypeOpen          = "open"
	TypeOpened        = "opened"
	TypeSeek          = "seek"
	TypeSeeked        = "seeked"
	TypeSample        = "sample"
	TypeStats         = "stats"
	TypeNext          = "next"
	TypeBatch         = "batch"
	TypeClose         = "close"
	TypeClosed        = "closed"
	TypeOversized     = "oversized"
	TypeBye           = "bye"
	TypeError         = "error"
	TypeLong          = "long"
	TypeRebuild       = "dataset_rebuild"
	TypeDatasetLint   = "dataset_lint"
	TypeFindings      = "findings"
	TypeLint          = "lint"
	TypeKeys          = "keys"
	codeVersionNeeded = "version"
)

// Failure is an error on the wire: what failed, where, and what to do next.
type Failure struct {
	Code   string `json:"code"`
	What   string `json:"what"`
	Where  string `json:"where,omitempty"`
	Remedy string `json:"remedy,omitempty"`
}

// Error makes a Failure an error on the receiving side.
func (f *Failure) Error() string {
	text := f.What
	if f.Where != "" {
		text = f.Where + ": " + text
	}
	if f.Remedy != "" {
		text += " (" + f.Remedy + ")"
	}
	return text
}

// Envelope is the part of every message that says what the rest is.
type Envelope struct {
	Type string `json:"type"`
}

// Long stands for a message that does not fit a packet: its JSON is Bytes long and
// lies in the first descriptor.
type Long struct {
	Type  string `json:"type"`
	Bytes int64  `json:"bytes"`
}

// Hello opens a connection, from both sides.
type Hello struct {
	Type     string   `json:"type"`
	Min      int      `json:"min,omitempty"`     // client: oldest version it speaks
	Max      int      `json:"max,omitempty"`     // client: newest
	Version  int      `json:"version,omitempty"` // daemon: the one chosen
	Features []string `json:"features,omitempty"`
	Client   string   `json:"client,omitempty"`
	Daemon   string   `json:"daemon,omitempty"`
	PID      int      `json:"pid,omitempty"`
}

// Negotiate chooses the highest version both sides speak.
func Negotiate(clientMin, clientMax int) (int, *Failure) {
	version := min(clientMax, ProtocolMax)
	if clientMin < 1 || clientMax < clientMin || version < max(clientMin, ProtocolMin) {
		return 0, &Failure{
			Code: codeVersionNeeded,
			What: fmt.Sprintf("no common protocol version: the client speaks %d to %d, the daemon %d to %d",
				clientMin, clientMax, ProtocolMin, ProtocolMax),
			Remedy: "install a Python package and a daemon of the same or of neighbouring releases",
		}
	}
	return version, nil
}

// DatasetAdd registers a directory, whose descriptor comes with the message.
type DatasetAdd struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Format  string   `json:"format"` // "auto", "raw", "tokens", "tar"
	Path    string   `json:"path"`   // as the client sees it; for people
	Include []string `json:"include,omitempty"`
	DType   string   `json:"dtype,omitempty"` // token files without a header
	Bad     string   `json:"bad,omitempty"`   // damaged files and samples: "fail" (the default) or "skip"
	Replace bool     `json:"replace,omitempty"`
}

// DatasetRebuild scans a dataset's directory again and installs the new index.
// What has not changed is taken from the old one. Answered as DatasetAdd.
type DatasetRebuild struct {
	Type string `json:"type"`
	Name string `json:"name"`
}

// DatasetLint looks for what breaks or slows training: in a dataset by name, or in
// the directory whose descriptor comes with the message. Answered by progress
// notes, findings, and a summary.
type DatasetLint struct {
	Type    string   `json:"type"`
	Name    string   `json:"name,omitempty"`
	Format  string   `json:"format,omitempty"`
	Include []string `json:"include,omitempty"`
	DType   string   `json:"dtype,omitempty"`
}

// Finding is one thing that a lint found; see the table of codes in package dataset.
type Finding struct {
	Severity string `json:"severity"` // "error", "warning", "note"
	Code     string `json:"code"`
	File     string `json:"file"`
	Offset   int64  `json:"offset"` // bytes; -1: the whole file
	Key      string `json:"key,omitempty"`
	What     string `json:"what"`
	Remedy   string `json:"remedy"`

	// FileBytes and KeyBytes are as in SampleKey.
	FileBytes []byte `json:"file_bytes,omitempty"`
	KeyBytes  []byte `json:"key_bytes,omitempty"`
}

// FindingsNote carries some of a lint's findings.
type FindingsNote struct {
	Type     string    `json:"type"`
	Findings []Finding `json:"findings"`
}

// LintSummary sums a lint up.
type LintSummary struct {
	Format   string           `json:"format"`
	Files    int64            `json:"files"`
	Samples  int64            `json:"samples"`
	Bytes    int64            `json:"bytes"`
	Findings map[string]int64 `json:"findings"` // by code
	Errors   int64            `json:"errors"`
	Warnings int64            `json:"warnings"`
	Notes    int64            `json:"notes"`
}

// LintAnswer ends a lint.
type LintAnswer struct {
	Type    string      `json:"type"`
	Summary LintSummary `json:"summary"`
}

// MaxKeys bounds how many keys one request may ask for.
const MaxKeys = 4096

// KeysRequest asks for the names of samples.
type KeysRequest struct {
	Type      string  `json:"type"`
	Dataset   string  `json:"dataset"`
	Samples   []int64 `json:"samples"`
	BlockSize int64   `json:"block_size,omitempty"`
	IndexID   string  `json:"index_id,omitempty"` // refuse any other
}

// SampleKey names one sample: its file, and its key within the dataset.
type SampleKey struct {
	File string `json:"file"`
	Key  string `json:"key"`

	FileBytes []byte `json:"file_bytes,omitempty"` // what it is, where that is no UTF-8: File is then for people
	KeyBytes  []byte `json:"key_bytes,omitempty"`
}

// KeysAnswer answers KeysRequest, in its order.
type KeysAnswer struct {
	Type string      `json:"type"`
	Keys []SampleKey `json:"keys"`
}

// SelectColumn is one column of a session over a dataset whose samples have parts:
// the first of Parts that the sample has.
type SelectColumn struct {
	Name  string   `json:"name"`
	Parts []string `json:"parts"`
}

// DatasetRequest asks for one dataset.
type DatasetRequest struct {
	Type string `json:"type"`
	Name string `json:"name"`
}

// DatasetInfo describes a dataset.
type DatasetInfo struct {
	Name     string         `json:"name"`
	Format   string         `json:"format"`
	Path     string         `json:"path"`
	State    string         `json:"state"` // "ready", or "detached": the directory is not where it was
	Problem  string         `json:"problem,omitempty"`
	OwnerUID uint32         `json:"owner_uid"`
	AddedAt  string         `json:"added_at"` // RFC 3339
	IndexID  string         `json:"index_id"`
	Samples  int64          `json:"samples"`
	Tokens   int64          `json:"tokens,omitempty"`
	DType    string         `json:"dtype,omitempty"`
	Files    int64          `json:"files"`
	Bytes    int64          `json:"bytes"`
	Classes  []string       `json:"classes,omitempty"`
	Parts    []PartInfo     `json:"parts,omitempty"`    // tar: what samples are made of, by name
	Archives map[string]int `json:"archives,omitempty"` // tar: how shards are stored -> shards
	Indexes  map[string]int `json:"indexes,omitempty"`  // tar: what became of indexes beside shards -> shards
	Skipped  map[string]int `json:"skipped,omitempty"`
	Saw      string         `json:"saw,omitempty"` // what the scan recognised, in words

	IndexPath string `json:"index_path,omitempty"` // of the index file, in the daemon's data directory
}

// PartInfo sums up one part over a dataset.
type PartInfo struct {
	Name     string `json:"name"`
	Samples  int64  `json:"samples"` // that have it
	Bytes    int64  `json:"bytes"`
	MaxBytes int64  `json:"max_bytes"`
}

// DatasetAnswer carries one dataset.
type DatasetAnswer struct {
	Type    string      `json:"type"`
	Dataset DatasetInfo `json:"dataset"`
}

// DatasetsAnswer carries all datasets that the client may use.
type DatasetsAnswer struct {
	Type     string        `json:"type"`
	Datasets []DatasetInfo `json:"datasets"`
}

// ProgressNote tells how far a scan is. Totals are 0 while they are not known.
type ProgressNote struct {
	Type        string `json:"type"`
	FilesDone   int64  `json:"files_done"`
	FilesTotal  int64  `json:"files_total"`
	BytesDone   int64  `json:"bytes_done"`
	BytesTotal  int64  `json:"bytes_total"`
	SamplesDone int64  `json:"samples_done"`
}

// Open opens a session.
type Open struct {
	Type            string `json:"type"`
	Dataset         string `json:"dataset"`
	BatchSize       int    `json:"batch_size"`
	Order           string `json:"order"`            // "global", "windowed", "sequential", "torch", "numpy"
	Window          int64  `json:"window,omitempty"` // samples
	Seed            uint64 `json:"seed"`
	Seeding         string `json:"seeding,omitempty"` // "torch" and "numpy": as order.Seeding; needs FeatureSeeding
	Epoch           int64  `json:"epoch"`
	SamplesConsumed int64  `json:"samples_consumed"` // of the epoch, over all ranks; more than there are where "torch" pads it
	Rank            int    `json:"rank"`
	WorldSize       int    `json:"world_size"`
	DropLast        bool   `json:"drop_last"`
	BlockSize       int64  `json:"block_size,omitempty"`    // tokens
	IndexID         string `json:"index_id,omitempty"`      // refuse any other
	OrderVersion    int    `json:"order_version,omitempty"` // refuse any other
	Slots           int    `json:"slots,omitempty"`
	JobID           string `json:"job_id,omitempty"`
	Transport       string `json:"transport"`

	Select  []SelectColumn `json:"select,omitempty"`  // tar: the columns; none: every part
	Missing string         `json:"missing,omitempty"` // tar: a sample that lacks a column is an "error", or has it "empty"
}

// ColumnSpec describes one column of a session's batches.
type ColumnSpec struct {
	Name   string  `json:"name"`
	DType  string  `json:"dtype"`
	Shape  []int64 `json:"shape"`
	Ragged bool    `json:"ragged"`
}

// RingSpec says how large a session's ring is.
type RingSpec struct {
	TotalBytes   int64 `json:"total_bytes"`
	Slots        int   `json:"slots"`
	SlotBytes    int64 `json:"slot_bytes"`
	QueueEntries int   `json:"queue_entries"`
}

// Opened answers Open, with the ring's descriptor for TransportRing.
type Opened struct {
	Type            string       `json:"type"`
	Session         string       `json:"session"`
	Transport       string       `json:"transport"`
	IndexID         string       `json:"index_id"`
	OrderVersion    int          `json:"order_version"`
	Samples         int64        `json:"samples"`
	Format          string       `json:"format"`
	TokensDType     string       `json:"tokens_dtype,omitempty"`
	BlockSize       int64        `json:"block_size,omitempty"`
	Columns         []ColumnSpec `json:"columns"`
	Classes         []string     `json:"classes,omitempty"`
	Ring            RingSpec     `json:"ring"`
	SampleBytesMean int64        `json:"sample_bytes_mean"`
}

// Seek moves a session to another place.
type Seek struct {
	Type            string `json:"type"`
	Epoch           int64  `json:"epoch"`
	SamplesConsumed int64  `json:"samples_consumed"`
}

// Seeked answers Seek: entries below FromSequence belong to the old place.
type Seeked struct {
	Type         string `json:"type"`
	FromSequence uint64 `json:"from_sequence"`
}

// SampleRequest asks for one sample by number.
type SampleRequest struct {
	Type      string `json:"type"`
	Dataset   string `json:"dataset"`
	Index     int64  `json:"index"`
	BlockSize int64  `json:"block_size,omitempty"`
	IndexID   string `json:"index_id,omitempty"`

	Select  []SelectColumn `json:"select,omitempty"`
	Missing string         `json:"missing,omitempty"`
}

// SampleColumn is one column of one sample, in the memfd that comes along.
type SampleColumn struct {
	Name   string  `json:"name"`
	DType  string  `json:"dtype"`
	Shape  []int64 `json:"shape"`
	Offset int64   `json:"offset"`
	Bytes  int64   `json:"bytes"`
}

// SampleAnswer describes one sample.
type SampleAnswer struct {
	Type    string         `json:"type"`
	Samples int64          `json:"samples"`
	IndexID string         `json:"index_id"`
	Columns []SampleColumn `json:"columns"`
	Bytes   int64          `json:"bytes"`

	SampleKey
}

// StatsAnswer carries what the daemon knows of a session; its shape is that of
// the HTTP API.
type StatsAnswer struct {
	Type    string          `json:"type"`
	Session json.RawMessage `json:"session"`
}

// Next asks for a batch under TransportSocket.
type Next struct {
	Type   string         `json:"type"`
	Waited *TransformWait `json:"waited,omitempty"`
}

// TransformWait is how long the trainer waited for its own pool of transforms since its
// last Next, and the batch that it waited for longest. Nothing of it is checked.
type TransformWait struct {
	Total    uint64 `json:"total_ns"`
	Longest  uint64 `json:"longest_ns"`
	Sequence uint64 `json:"sequence"`
	Epoch    uint64 `json:"epoch"`
	Position uint64 `json:"position"`
	Rows     uint32 `json:"rows"`
}

// BatchAnswer precedes the raw packets of a batch under TransportSocket.
type BatchAnswer struct {
	Type       string `json:"type"`
	EntryBytes int    `json:"entry_bytes"`
	Bytes      int64  `json:"bytes"`
}

// OversizedNote carries the descriptor of a batch that did not fit a slot.
type OversizedNote struct {
	Type     string `json:"type"`
	Sequence uint64 `json:"sequence"`
	Bytes    int64  `json:"bytes"`
}

// Bye says that the daemon ends the connection, and why.
type Bye struct {
	Type   string `json:"type"`
	Reason string `json:"reason"`
}

// ErrorAnswer carries a Failure.
type ErrorAnswer struct {
	Type  string  `json:"type"`
	Error Failure `json:"error"`
}
