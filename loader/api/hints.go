package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/valyala/fasthttp"
)

// hintBytesMax bounds the body of a request for a hint: some two million indices.
const hintBytesMax = 16 << 20

// Hinter is the part of a Node that takes hints.
type Hinter interface {
	// AddHint takes a hint in, of a client that has a lease on it. Errors: CodeNotFound
	// (dataset), CodeInvalid, CodeOutOfRange, CodeChanged, CodeUnavailable, CodeLimit.
	AddHint(ctx context.Context, client Client, request HintRequest) (Hint, error)
	// Hints lists the hints whose leases last, in order of their beginning.
	Hints() []Hint
	// Hint describes one of them, or returns an Error with code NotFound.
	Hint(id string) (Hint, error)
	// RenewHint lets the lease of a hint last for so many seconds from now, 0 standing
	// for the default. Errors: CodeNotFound, CodeInvalid, and CodeConflict where the lease
	// is the client's connection.
	RenewHint(id string, leaseSeconds float64) (Hint, error)
	// EndHint ends a hint and describes it as it was. Errors: CodeNotFound.
	EndHint(id string) (Hint, error)
}

// HintRequest announces what will be read of a dataset: one of Indices, Sampler and
// Files. The session socket takes the same object.
type HintRequest struct {
	Dataset   string       `json:"dataset"`
	BlockSize int64        `json:"block_size,omitempty"` // tokens: what a sample is
	IndexID   string       `json:"index_id,omitempty"`   // refuse any other
	JobID     string       `json:"job_id,omitempty"`
	Select    []HintColumn `json:"select,omitempty"` // tar: the parts that will be read; none: all

	Indices []int64      `json:"indices,omitempty"` // samples, in the order of their use
	Sampler *HintSampler `json:"sampler,omitempty"`
	Window  *HintWindow  `json:"window,omitempty"` // of the sampler's order; none: all of it
	Files   []HintFile   `json:"files,omitempty"`

	DeadlineSeconds  *float64 `json:"deadline_seconds,omitempty"`   // from now, for the whole
	SamplesPerSecond *float64 `json:"samples_per_second,omitempty"` // at which they will be read
	Priority         *float64 `json:"priority,omitempty"`           // weight among hints and jobs; default 1
	LeaseSeconds     *float64 `json:"lease_seconds,omitempty"`      // HTTP only
	BudgetBytes      *int64   `json:"budget_bytes,omitempty"`       // fetched for it at most
}

// HintColumn is one column of samples that have parts: the first of Parts that a
// sample has.
type HintColumn struct {
	Name  string   `json:"name"`
	Parts []string `json:"parts"`
}

// HintSampler is an order that the daemon computes, and one rank's share of it.
type HintSampler struct {
	Kind      string `json:"kind"` // see HintKinds
	Seeding   string `json:"seeding,omitempty"`
	Seed      uint64 `json:"seed,omitempty"`
	Epoch     int64  `json:"epoch,omitempty"`  // the first
	Epochs    int64  `json:"epochs,omitempty"` // how many; 0 stands for 1
	Rank      int    `json:"rank,omitempty"`
	WorldSize int    `json:"world_size,omitempty"` // 0 stands for 1
	BatchSize int    `json:"batch_size,omitempty"` // 0 stands for 1
	DropLast  bool   `json:"drop_last,omitempty"`
	Window    int64  `json:"window,omitempty"` // samples; windowed only
}

// HintKinds are the kinds of samplers.
func HintKinds() []string { return []string{"global", "windowed", "sequential", "torch", "numpy"} }

// HintSeedings are the ways in which the kinds torch and numpy may be seeded, besides anew
// for each epoch.
func HintSeedings() []string {
	return []string{"once", "loader", "loader_persistent", "loader_generator", "in_place"}
}

// HintWindow is a part of what a sampler's rank reads: Count samples from place From.
type HintWindow struct {
	From  int64 `json:"from"`
	Count int64 `json:"count"`
}

// HintFile is a file of the dataset, or a range of it.
type HintFile struct {
	Path   string `json:"path"` // within the dataset's directory
	Offset int64  `json:"offset,omitempty"`
	Length int64  `json:"length,omitempty"` // 0: to the end
}

// HintRenewal renews a lease.
type HintRenewal struct {
	LeaseSeconds float64 `json:"lease_seconds,omitempty"` // from now; 0: the default
}

// States of a hint.
const (
	HintActive     = "active"     // being fetched
	HintComplete   = "complete"   // all of it is there
	HintIncomplete = "incomplete" // all of it was asked for, and some fetches failed: see FailedFetches
	HintSpent      = "spent"      // its budget is used up
	HintFailed     = "failed"     // Problem says why
)

// Hint describes a hint whose lease lasts.
type Hint struct {
	ID        string     `json:"id"`
	Dataset   string     `json:"dataset"`
	Kind      string     `json:"kind"` // "indices", "files", or that of the sampler
	JobID     string     `json:"job_id,omitempty"`
	Client    Client     `json:"client"`
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"` // nil: with the client's connection
	State     string     `json:"state"`
	Problem   string     `json:"problem,omitempty"` // why it failed, or the first fetch that did

	Samples       int64   `json:"samples"` // announced; of files, how many
	Bytes         int64   `json:"bytes"`   // of them
	ResidentBytes int64   `json:"resident_bytes"`
	ResidentShare float64 `json:"resident_share"`
	Estimated     bool    `json:"estimated"` // Bytes, ResidentBytes and ResidentShare are extrapolated

	BudgetBytes   int64   `json:"budget_bytes"`
	FetchBytes    int64   `json:"fetch_bytes"`    // that are still to be fetched within the budget
	FetchedBytes  int64   `json:"fetched_bytes"`  // so far
	FailedFetches int64   `json:"failed_fetches"` // so far; what they were for is not there
	ReadySamples  int64   `json:"ready_samples"`  // brought or found, in the order of their use
	ReadShare     float64 `json:"read_share"`     // of the ready samples, those that sessions then read

	ReadyAt      *time.Time `json:"ready_at,omitempty"`
	ReadyUnknown string     `json:"ready_unknown,omitempty"` // why there is no ReadyAt
}

// HintStats are the counters of hints. All count from the daemon's start, except Open.
type HintStats struct {
	Open         int64            // level
	Added        int64            // ever
	Ended        map[string]int64 // reason (see HintReasons) -> hints
	FetchedBytes int64            // for hints
	UnreadBytes  int64            // of them, those that sessions had not read when the hint ended
}

// HintReasons are the label values of stoker_hints_ended_total.
func HintReasons() []string {
	return []string{"deleted", "lease", "client", "dataset", "shutdown", "failed"}
}

// hintList leaves room for fields beside the list.
type hintList struct {
	Hints []Hint `json:"hints"`
}

func (h *handler) hints(ctx *fasthttp.RequestCtx, _ string) error {
	list := hintList{Hints: h.node.Hints()}
	fillIn(&list.Hints)
	return answer(ctx, list)
}

func (h *handler) hint(ctx *fasthttp.RequestCtx, id string) error {
	found, err := h.node.Hint(id)
	if err != nil {
		return err
	}
	return answer(ctx, found)
}

func (h *handler) addHint(ctx *fasthttp.RequestCtx, _ string) error {
	var request HintRequest
	if err := readBody(ctx, &request); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(h.ctx, requestTimeout)
	defer cancel()
	added, err := h.node.AddHint(bounded, clientOf(ctx), request)
	if err != nil {
		return err
	}
	ctx.SetStatusCode(http.StatusCreated)
	ctx.Response.Header.Set("Location", "/v1/hints/"+added.ID)
	return answer(ctx, added)
}

func (h *handler) renewHint(ctx *fasthttp.RequestCtx, id string) error {
	var renewal HintRenewal
	if err := readBody(ctx, &renewal); err != nil {
		return err
	}
	renewed, err := h.node.RenewHint(id, renewal.LeaseSeconds)
	if err != nil {
		return err
	}
	return answer(ctx, renewed)
}

func (h *handler) endHint(ctx *fasthttp.RequestCtx, id string) error {
	if _, err := h.node.EndHint(id); err != nil {
		return err
	}
	ctx.SetStatusCode(http.StatusNoContent)
	return nil
}

// clientOf is who sent a request, as far as the kernel knows.
func clientOf(ctx *fasthttp.RequestCtx) Client {
	if conn, ok := ctx.Conn().(*peerConn); ok && conn.uid != unmappedUID {
		return Client{PID: max(0, int(conn.pid)), UID: conn.uid, Name: "http"}
	}
	return Client{UID: unmappedUID, Name: "http from " + ctx.RemoteIP().String()}
}

// bodyLimit is how large a body may be of a request with this header. Only who may
// change something may send one that is large.
func (d *door) bodyLimit(header *fasthttp.RequestHeader) int {
	large := d.access.change && (d.access.token.IsEmpty() || bearsToken(header, d.wanted))
	if large && takesHint(header) {
		return hintBytesMax
	}
	return bodyBytesMax
}

// takesHint tells the request whose body may be large.
func takesHint(header *fasthttp.RequestHeader) bool {
	return string(header.Method()) == http.MethodPost && string(header.RequestURI()) == "/v1/hints"
}

// readBody decodes a request's body. What the API does not know is refused, and so is
// null: who leaves a field out says so by leaving it out.
func readBody(ctx *fasthttp.RequestCtx, into any) error {
	body := ctx.PostBody()
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(into)
	if err == nil {
		if _, more := decoder.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("there is more behind the object")
		}
	}
	if err == nil && (len(bytes.TrimSpace(body)) == 0 || bytes.TrimSpace(body)[0] != '{' || hasNull(body)) {
		err = errors.New("it is no object, or holds null")
	}
	if err == nil {
		return nil
	}
	problem := newProblem(CodeInvalid, fmt.Sprintf("the body is not what this path takes: %v", err), clipped(ctx.Path()), "see /v1/openapi.json for what it is")
	return &problem
}

// hasNull reports whether valid JSON holds a null.
func hasNull(text []byte) bool {
	if !bytes.Contains(text, []byte("null")) {
		return false
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	for {
		token, err := decoder.Token()
		if err != nil {
			return false
		}
		if token == nil {
			return true
		}
	}
}

func hintMetrics() []metric {
	return []metric{
		gauge("stoker_hints", "Hints whose leases last.",
			func(s *Stats, emit func(float64, ...string)) { emit(float64(s.Hints.Open)) }),
		counter("stoker_hints_added_total", "Hints taken in.",
			func(s *Stats, emit func(float64, ...string)) { emit(float64(s.Hints.Added)) }),
		counter("stoker_hints_ended_total", "Hints ended, by what ended them.",
			func(s *Stats, emit func(float64, ...string)) { emitKnown(HintReasons(), s.Hints.Ended, emit) }, "reason"),
		counter("stoker_hint_fetched_bytes_total", "Bytes fetched for hints.",
			func(s *Stats, emit func(float64, ...string)) { emit(float64(s.Hints.FetchedBytes)) }),
		counter("stoker_hint_unread_bytes_total", "Of the bytes fetched for hints, those that no session had read when the hint ended.",
			func(s *Stats, emit func(float64, ...string)) { emit(float64(s.Hints.UnreadBytes)) }),
	}
}
