package api

import (
	"encoding/json"
	"errors"
	"io"

	"strings"
	"testing"

	"github.com/stokerio/stoker/loader/config"
)

func everything() access { return access{change: true} }

func TestEveryRouteAnswersItsShape(t *testing.T) {
	s := serveInMemory(t, everything())
	for path, want := range map[string]string{
		"/healthz":          `{"status":"ok"}`,
		"/readyz":           `{"status":"ready"}`,
		"/v1/version":       `{"version":"0.1.0","revision":"abc","go":"go1.26.0","protocol":1,"pid":42}`,
		"/v1/datasets/pets": `{"name":"pets","format":"raw","path":"/data/pets","state":"ready","owner_uid":1000,"added_at":"2026-11-22T17:00:00Z","index_id":"ab12","samples":10485,"files":10485,"bytes":1073741824,"classes":["cat","dog"],"skipped":{"empty":2}}`,
	} {
		status, header, body := s.do(t, "GET", path)
		if status != 200 || strings.TrimSpace(body) != want || header.Get("Content-Type") != "application/json" {
			t.Errorf("GET %s: %d %s %s, want %s", path, status, header.Get("Content-Type"), body, want)
		}
		if header.Get("Cache-Control") != "no-store" || header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("GET %s: headers %v", path, header)
		}
	}
	var datasets datasetList
	_, _, body := s.do(t, "GET", "/v1/datasets")
	if err := json.Unmarshal([]byte(body), &datasets); err != nil || len(datasets.Datasets) != 2 {
		t.Errorf("datasets: %s, %v", body, err)
	}
	var sessions sessionList
	_, _, body = s.do(t, "GET", "/v1/sessions")
	if err := json.Unmarshal([]byte(body), &sessions); err != nil || len(sessions.Sessions) != 1 || sessions.Sessions[0].Ring.Ready != 3 {
		t.Errorf("sessions: %s, %v", body, err)
	}
	if status, _, body := s.do(t, "GET", "/v1/sessions/s-1"); status != 200 || !strings.Contains(body, `"id":"s-1"`) {
		t.Errorf("session: %d %s", status, body)
	}
	status, header, body := s.do(t, "GET", "/v1/sessions/s-2")
	wantProblem(t, status, header, body, 404, CodeNotFound)
	if status, _, body := s.do(t, "HEAD", "/v1/datasets"); status != 200 || body != "" {
		t.Errorf("HEAD: %d %q", status, body)
	}
}

func TestListsAreNeverNull(t *testing.T) {
	s := serveInMemory(t, everything())
	s.node.list = nil
	if _, _, body := s.do(t, "GET", "/v1/datasets"); strings.TrimSpace(body) != `{"datasets":[]}` {
		t.Errorf("no datasets: %s", body)
	}
}

func TestRemovingADataset(t *testing.T) {
	s := serveInMemory(t, everything())
	if status, _, body := s.do(t, "DELETE", "/v1/datasets/pets"); status != 204 || body != "" {
		t.Errorf("delete: %d %q", status, body)
	}
	status, header, body := s.do(t, "DELETE", "/v1/datasets/pets")
	wantProblem(t, status, header, body, 404, CodeNotFound)
	status, header, body = s.do(t, "DELETE", "/v1/datasets/text")
	if problem := wantProblem(t, status, header, body, 409, CodeConflict); problem.Where != "text" || problem.Remedy == "" {
		t.Errorf("conflict: %+v", problem)
	}
}

func TestNotReadyIsSaidWithItsReason(t *testing.T) {
	s := serveInMemory(t, everything())
	s.node.ready = errors.New("reading the list of datasets")
	status, header, body := s.do(t, "GET", "/readyz")
	if problem := wantProblem(t, status, header, body, 503, CodeUnavailable); problem.What != "reading the list of datasets" {
		t.Errorf("%+v", problem)
	}
	if status, _, _ := s.do(t, "GET", "/healthz"); status != 200 {
		t.Errorf("healthz of a daemon that is not ready: %d", status)
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	s := serveInMemory(t, everything())
	for _, path := range []string{
		"/", "/v1", "/v1/", "/v1/datasets/", "/v1/datasets/pets/", "/v1/datasets/pets/more", "//v1/version", "/v1/./version",
		"/v1/datasets/../version", "/V1/version", "/v1/version/", "/debug/pprof/", "/v1/datasets/%zz", "/metrics/x", "/v1%2Fversion",
	} {
		status, header, body := s.do(t, "GET", path)
		wantProblem(t, status, header, body, 404, CodeNotFound)
	}
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"} {
		status, header, body := s.do(t, method, "/v1/version")
		wantProblem(t, status, header, body, 405, CodeMethodNotAllowed)
		if header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: Allow %q", method, header.Get("Allow"))
		}
	}
	status, header, body := s.do(t, "DELETE", "/v1/datasets")
	wantProblem(t, status, header, body, 405, CodeMethodNotAllowed)
	_, header, _ = s.do(t, "POST", "/v1/datasets/pets")
	if header.Get("Allow") != "GET, HEAD, DELETE" {
		t.Errorf("Allow %q", header.Get("Allow"))
	}
}

func TestNamesAreDecodedOnceAndKept(t *testing.T) {
	s := serveInMemory(t, everything())
	s.do(t, "GET", "/v1/datasets/a%2Fb%252F%C3%A9")
	s.do(t, "GET", "/v1/datasets/..%2f..%2fetc")
	for range 20 {
		s.do(t, "GET", "/v1/datasets/zzzzzzzzzzzzzzzzzzz")
	}
	if s.node.asked[0] != "a/b%2Fé" || s.node.asked[1] != "../../etc" {
		t.Errorf("names became %q", s.node.asked[:2])
	}
}

func TestWhatTheAPIDoesNotKnowIsRefused(t *testing.T) {
	s := serveInMemory(t, everything())
	for _, path := range []string{"/v1/datasets?format=tar", "/healthz?x", "/metrics?name[]=go_goroutines", "/v1/datasets/pets?force=1"} {
		for _, method := range []string{"GET", "HEAD"} {
			status, header, body := s.do(t, method, path)
			if method == "GET" {
				wantProblem(t, status, header, body, 400, CodeInvalid)
			} else if status != 400 || body != "" {
				t.Errorf("HEAD %s: %d %q", path, status, body)
			}
		}
	}
	if status, _, _ := s.do(t, "GET", "/v1/version?"); status != 200 {
		t.Errorf("an empty query: %d", status)
	}
	response := s.raw(t, "DELETE /v1/datasets/pets HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}")
	if response == nil || response.StatusCode != 400 || len(s.node.asked) != 0 {
		t.Errorf("a body: %+v, and the node was asked for %q", response, s.node.asked)
	}
}

func TestAnswersAreJSONWhateverIsAccepted(t *testing.T) {
	s := serveInMemory(t, everything())
	for _, accept := range []string{"text/html", "application/xml;q=1", "*/*", "nonsense", "application/json;q=0"} {
		if status, header, _ := s.do(t, "GET", "/v1/version", "Accept", accept); status != 200 || header.Get("Content-Type") != "application/json" {
			t.Errorf("Accept %s: %d %s", accept, status, header.Get("Content-Type"))
		}
		status, header, body := s.do(t, "GET", "/v1/nothing", "Accept", accept)
		wantProblem(t, status, header, body, 404, CodeNotFound)
	}
	for accept, want := range map[string]string{
		"application/openmetrics-text": "text/plain", "text/html": "text/plain",
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited": "application/vnd.google.protobuf",
	} {
		if _, header, _ := s.do(t, "GET", "/metrics", "Accept", accept); !strings.HasPrefix(header.Get("Content-Type"), want+";") {
			t.Errorf("metrics for %s as %s", accept, header.Get("Content-Type"))
		}
	}
}

func TestAPanicIsAnAnswerAndALogLine(t *testing.T) {
	s := serveInMemory(t, everything())
	s.node.panicked = true
	status, header, body := s.do(t, "GET", "/v1/version")
	wantProblem(t, status, header, body, 500, CodeInternal)
	if !strings.Contains(s.log.String(), "a defect") {
		t.Error("the panic is not logged")
	}
	if status, _, _ := s.do(t, "GET", "/healthz"); status != 200 {
		t.Errorf("after a panic: %d", status)
	}
}

func TestOtherErrorsAreInternal(t *testing.T) {
	problem := problemOf(errors.New("disk on fire"), "/v1/x")
	if problem.Code != CodeInternal || problem.Status != 500 || problem.Where != "/v1/x" {
		t.Errorf("%+v", problem)
	}
	for _, code := range Codes() {
		if status := code.status(); status < 400 || status > 599 {
			t.Errorf("%s has status %d", code, status)
		}
		if status := code.status(); code != CodeInternal && code != CodeCorrupt && status == 500 {
			t.Errorf("%s has no status of its own", code)
		}
	}
}

func TestTooManyRequestsAtOnce(t *testing.T) {
	s := serveInMemory(t, everything())
	s.node.hold, s.node.entered = make(chan struct{}), make(chan struct{}, requestsMax)
	answers := make(chan int, requestsMax)
	for range requestsMax {
		go func() {
			status, _, _ := s.do(t, "DELETE", "/v1/datasets/text")
			answers <- status
		}()
	}
	for range requestsMax {
		<-s.node.entered
	}
	status, header, body := s.do(t, "GET", "/v1/version")
	wantProblem(t, status, header, body, 429, CodeLimit)
	if header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		if status, _, _ := s.do(t, "GET", path); status != 200 {
			t.Errorf("%s when others keep the daemon busy: %d", path, status)
		}
	}
	close(s.node.hold)
	for range requestsMax {
		if status := <-answers; status != 409 {
			t.Errorf("a request within the bound: %d", status)
		}
	}
	if status, _, _ := s.do(t, "GET", "/v1/version"); status != 200 {
		t.Errorf("when all is quiet again: %d", status)
	}
}

func TestHostileRequests(t *testing.T) {
	s := serveInMemory(t, everything())
	long := strings.Repeat("x", headerBytesMax)
	for name, test := range map[string]struct {
		text   string
		status int // 0: closing without a word will do as well
	}{
		"garbage":              {"\x00\xff\x13\x37\r\n\r\n", 0},
		"long path":            {"GET /" + long + " HTTP/1.1\r\nHost: a\r\n\r\n", 431},
		"long header":          {"GET / HTTP/1.1\r\nHost: a\r\nX: " + long + "\r\n\r\n", 431},
		"large body":           {"POST /v1/version HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n", 413},
		"large chunked body":   {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n20000\r\n" + strings.Repeat("y", 0x20000) + "\r\n0\r\n\r\n", 413},
		"negative length":      {"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400},
		"two lengths":          {"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400},
		"header without colon": {"GET /healthz HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n", 400},
		"path without slash":   {"GET healthz HTTP/1.1\r\nHost: a\r\n\r\n", 0},
		"absolute form":        {"GET http://elsewhere/healthz HTTP/1.1\r\nHost: a\r\n\r\n", 0},
		"connect":              {"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 0},
		"line breaks in path":  {"GET /v1/datasets/a%0d%0aX:y HTTP/1.1\r\nHost: a\r\n\r\n", 404},
	} {
		response := s.raw(t, test.text)
		if response != nil && response.StatusCode >= 400 && response.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d as %s", name, response.StatusCode, response.Header.Get("Content-Type"))
		}
		switch {
		case response == nil && test.status == 0:
		case response == nil:
			t.Errorf("%s: closed without an answer, want %d", name, test.status)
		case test.status != 0:
			body, _ := io.ReadAll(response.Body)
			if response.StatusCode != test.status || response.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s: %d %s, want a problem with %d", name, response.StatusCode, body, test.status)
			}
		}
	}
	if status, _, _ := s.do(t, "GET", "/healthz"); status != 200 {
		t.Errorf("after hostile requests: %d", status)
	}
}

func TestATokenIsAskedForAndNotLogged(t *testing.T) {
	s := serveInMemory(t, access{change: true, token: config.NewSecret("hunter2")})
	for _, given := range []string{"", "hunter2", "Bearer", "Bearer hunter", "Bearer hunter22", "Basic hunter2", "Bearer  ", "bearer\thunter2"} {
		status, header, body := s.do(t, "GET", "/v1/datasets", "Authorization", given)
		wantProblem(t, status, header, body, 401, CodeUnauthorized)
		if !strings.HasPrefix(header.Get("WWW-Authenticate"), "Bearer") {
			t.Errorf("%q: WWW-Authenticate %q", given, header.Get("WWW-Authenticate"))
		}
	}
	for _, given := range []string{"Bearer hunter2", "bearer hunter2"} {
		if status, _, _ := s.do(t, "GET", "/v1/datasets", "Authorization", given, "Host", "node7:9595"); status != 200 {
			t.Errorf("%q: %d", given, status)
		}
	}
	if strings.Contains(s.log.String(), "hunter2") {
		t.Error("the token is in the log")
	}
}

func TestWithoutATokenTCPOnlyReadsUnderALoopbackName(t *testing.T) {
	s := serveInMemory(t, access{loopbackHost: true})
	for _, host := range []string{"localhost", "127.0.0.1:9595", "[::1]:9595", "LOCALHOST:1"} {
		if status, _, body := s.do(t, "GET", "/healthz", "Host", host); status != 200 {
			t.Errorf("host %s: %d %s", host, status, body)
		}
	}
	for _, host := range []string{"evil.example", "localhost.evil.example", "10.0.0.1", "127.0.0.1.nip.example:80"} {
		status, header, body := s.do(t, "GET", "/healthz", "Host", host)
		wantProblem(t, status, header, body, 403, CodePermission)
	}
	// RFC 9112: what the absolute form names counts, whatever Host says.
	for target, want := range map[string]int{"http://evil.example/healthz": 403, "http://localhost/healthz": 200} {
		response := s.raw(t, "GET "+target+" HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if response == nil || response.StatusCode != want {
			t.Errorf("%s: %+v, want %d", target, response, want)
		}
	}
	status, header, body := s.do(t, "DELETE", "/v1/datasets/pets")
	wantProblem(t, status, header, body, 403, CodePermission)
	if len(s.node.asked) != 0 {
		t.Errorf("the node was asked to remove %q", s.node.asked)
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("/v1/datasets/a%2Fb")
	f.Add("//..%00")
	f.Fuzz(func(t *testing.T, path string) {
		matches := 0
		for _, r := range routes() {
			if argument, ok := match(r.pattern, path); ok {
				matches++
				if strings.Contains(r.pattern, "{") == (argument == "") {
					t.Fatalf("%q matches %q with argument %q", path, r.pattern, argument)
				}
			}
		}
		if matches > 3 {
			t.Fatalf("%q matches %d routes", path, matches)
		}
	})
}
