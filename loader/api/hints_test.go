package api

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stokerio/stoker/loader/config"
)

// hintedDataset is the header by which a test says what dataset its hint names.
const hintedDataset = "X-Test-Dataset"

// addBody gives a request that takes a body one, unless it has a query.
func addBody(request *http.Request, path string) {
	text := ""
	switch {
	case request.Method == http.MethodPost && path == "/v1/hints":
		name := request.Header.Get(hintedDataset)
		if name == "" {
			name = "pets"
		}
		text = fmt.Sprintf(`{"dataset":%q,"indices":[3,1,2]}`, name)
	case request.Method == http.MethodPut && strings.HasPrefix(path, "/v1/hints/"):
		text = `{"lease_seconds":60}`
	case request.Method == http.MethodPost && strings.HasPrefix(path, "/v1/cache/"):
		text = fmt.Sprintf(`{"path":"/nvme/%s","bytes":4096}`, cmp.Or(request.Header.Get(hintedDataset), "pets"))
	default:
		return
	}
	request.Body, request.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
}

func fakeHint() Hint {
	created := time.Date(2026, 11, 22, 18, 0, 0, 0, time.UTC)
	expires, ready := created.Add(time.Minute), created.Add(time.Second)
	return Hint{ID: "h-1", Dataset: "pets", Kind: "indices", JobID: "j-9", Client: Client{PID: 7, UID: 1000, Name: "http"}, CreatedAt: created, ExpiresAt: &expires,
		State: HintActive, Samples: 3, Bytes: 300, ResidentBytes: 100, ResidentShare: 1.0 / 3, BudgetBytes: 1 << 30, FetchBytes: 200, ReadyAt: &ready}
}

func (n *fakeNode) Hints() []Hint { return []Hint{fakeHint()} }

func (n *fakeNode) Hint(id string) (Hint, error) {
	if id == fakeHint().ID {
		return fakeHint(), nil
	}
	return Hint{}, &Error{Code: CodeNotFound, What: "no such hint", Where: "hint " + id, Remedy: "`stoker hint ls` lists hints"}
}

// ofAConnection is the id of a hint that is not listed, and whose lease is a connection.
const ofAConnection = "h-9"

func (n *fakeNode) RenewHint(id string, _ float64) (Hint, error) {
	if id == ofAConnection {
		return Hint{}, &Error{Code: CodeConflict, What: "its lease is its client's connection", Where: "hint " + id, Remedy: "keep the connection open"}
	}
	return n.Hint(id)
}

func (n *fakeNode) EndHint(id string) (Hint, error) { return n.Hint(id) }

func (n *fakeNode) AddHint(_ context.Context, client Client, request HintRequest) (Hint, error) {
	if n.failing != nil {
		return Hint{}, n.failing
	}
	if _, err := n.Dataset(request.Dataset); err != nil {
		return Hint{}, err
	}
	if request.Dataset == "text" {
		return Hint{}, &Error{Code: CodeChanged, What: "its samples are others now", Where: request.Dataset, Remedy: "announce anew"}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hinted = append(n.hinted, request)
	hint := fakeHint()
	hint.Client = client
	return hint, nil
}

// post sends a body to /v1/hints.
func (s *served) post(t *testing.T, body string, headers ...string) (int, http.Header, string) {
	t.Helper()
	return s.postTo(t, "/v1/hints", body, headers...)
}

// postTo sends a body to a path.
func (s *served) postTo(t *testing.T, path, body string, headers ...string) (int, http.Header, string) {
	t.Helper()
	request, err := http.NewRequest(http.MethodPost, "http://localhost"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := s.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	wantDescribed(t, http.MethodPost, path, response.StatusCode, response.Header, text)
	return response.StatusCode, response.Header, string(text)
}

func TestHintsAreTakenListedRenewedAndEnded(t *testing.T) {
	s := serveInMemory(t, everything())
	status, header, body := s.do(t, "POST", "/v1/hints")
	if status != 201 || header.Get("Location") != "/v1/hints/h-1" || !strings.Contains(body, `"fetch_bytes":200`) {
		t.Errorf("%d %v %s", status, header, body)
	}
	if got := s.node.hinted; len(got) != 1 || !reflect.DeepEqual(got[0], HintRequest{Dataset: "pets", Indices: []int64{3, 1, 2}}) {
		t.Errorf("the node was given %+v", got)
	}
	for _, path := range []string{"/v1/hints", "/v1/hints/h-1"} {
		if status, _, body := s.do(t, "GET", path); status != 200 || !strings.Contains(body, `"id":"h-1"`) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, _, body := s.do(t, "PUT", "/v1/hints/h-1"); status != 200 || !strings.Contains(body, "expires_at") {
		t.Errorf("renewing: %d %s", status, body)
	}
	if status, _, body := s.do(t, "DELETE", "/v1/hints/h-1"); status != 204 || body != "" {
		t.Errorf("ending: %d %s", status, body)
	}
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		status, header, body := s.do(t, method, "/v1/hints/h-2")
		wantProblem(t, status, header, body, 404, CodeNotFound)
	}
}

func TestEveryFieldOfAHintArrives(t *testing.T) {
	s := serveInMemory(t, everything())
	half, whole, budget := 0.5, 3.0, int64(1<<20)
	want := HintRequest{
		Dataset: "pets", BlockSize: 8, IndexID: "ab12", JobID: "j", Select: []HintColumn{{Name: "image", Parts: []string{"jpg", "png"}}},
		Sampler: &HintSampler{Kind: "torch", Seeding: "once", Seed: 1<<64 - 1, Epoch: 2, Epochs: 3, Rank: 1, WorldSize: 2, BatchSize: 4, DropLast: true, Window: 5},
		Window:  &HintWindow{From: 1, Count: 2}, Files: []HintFile{{Path: "a/b", Offset: 1, Length: 2}}, DeadlineSeconds: &half, SamplesPerSecond: &whole,
		Priority: &whole, LeaseSeconds: &whole, BudgetBytes: &budget,
	}
	body, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if status, _, answer := s.post(t, string(body)); status != 201 || !reflect.DeepEqual(s.node.hinted[0], want) {
		t.Errorf("%d %s; the node was given %+v", status, answer, s.node.hinted)
	}
}

func TestBodiesThatAreNoHintAreRefused(t *testing.T) {
	s := serveInMemory(t, everything())
	for _, body := range []string{
		"", " ", "null", "[]", "3", `"pets"`, "{", `{"dataset":"pets"} x`, `{"dataset":"pets"}{}`, `{"dataset":7}`, `{"dataset":"pets","indexes":[1]}`,
		`{"dataset":"pets","indices":[1.5]}`, `{"dataset":"pets","indices":[1e99]}`, `{"dataset":"pets","indices":null}`, `{"dataset":"pets","priority":NaN}`,
		`{"dataset":"pets","priority":"1"}`, `{"dataset":"pets","sampler":[]}`, `{"dataset":"pets","sampler":{"seed":-1}}`, `{"dataset":"pets","deadline_seconds":1e999}`,
		"\xff\xfe", strings.Repeat("[", 100000),
	} {
		status, header, answer := s.post(t, body)
		wantProblem(t, status, header, answer, 400, CodeInvalid)
	}
	if len(s.node.hinted) != 0 {
		t.Errorf("the node was given %+v", s.node.hinted)
	}
}

func TestALargeBodyIsForHintsOfThoseWhoMaySendThem(t *testing.T) {
	long := `{"dataset":"pets","indices":[` + strings.Repeat("123456,", 100_000) + `1]}`
	s := serveInMemory(t, access{change: true, token: config.NewSecret("t0ken")})
	if status, _, body := s.post(t, long, "Authorization", "Bearer t0ken"); status != 201 || len(s.node.hinted[0].Indices) != 100_001 {
		t.Errorf("%d %s", status, body)
	}
	for name, request := range map[string]string{
		"no token":   "POST /v1/hints HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n",
		"elsewhere":  "PUT /v1/hints/h-1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer t0ken\r\nContent-Length: %d\r\n\r\n",
		"other path": "DELETE /v1/datasets/pets HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer t0ken\r\nContent-Length: %d\r\n\r\n",
	} {
		response := s.raw(t, fmt.Sprintf(request, len(long)))
		if response == nil || response.StatusCode != 413 {
			t.Errorf("%s: %+v", name, response)
		}
	}
	response := s.raw(t, fmt.Sprintf("POST /v1/hints HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer t0ken\r\nContent-Length: %d\r\n\r\n", hintBytesMax+1))
	if response == nil || response.StatusCode != 413 {
		t.Errorf("a hint beyond the bound: %+v", response)
	}
}

func TestReadingDoorsTakeNoHints(t *testing.T) {
	s := serveInMemory(t, access{loopbackHost: true})
	for _, request := range [][2]string{{"POST", "/v1/hints"}, {"PUT", "/v1/hints/h-1"}, {"DELETE", "/v1/hints/h-1"}} {
		status, header, body := s.do(t, request[0], request[1])
		wantProblem(t, status, header, body, 403, CodePermission)
	}
	if status, _, _ := s.do(t, "GET", "/v1/hints"); status != 200 || len(s.node.hinted) != 0 {
		t.Errorf("%d, %+v", status, s.node.hinted)
	}
}

func FuzzHintBodies(f *testing.F) {
	f.Add([]byte(`{"dataset":"pets","sampler":{"kind":"torch","seed":1}}`))
	f.Add([]byte(`{"dataset":null}`))
	s := serveInMemory(f, everything())
	f.Fuzz(func(t *testing.T, body []byte) {
		request := fmt.Sprintf("POST /v1/hints HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		conn := &said{Reader: strings.NewReader(request)}
		_ = s.server.doors[0].server.ServeConn(conn)
		answer := conn.heard.String()
		if !strings.HasPrefix(answer, "HTTP/1.1 201") && !strings.HasPrefix(answer, "HTTP/1.1 4") {
			t.Fatalf("%q is answered with %.300q", body, answer)
		}
	})
}
