package api

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/stokerio/stoker/loader/config"
)

// provocation makes a server answer every operation with one status.
type provocation struct {
	rules  access
	change func(*served) // nil: the server is as always
	ask    func(t *testing.T, s *served, method, pattern string) (status int, header http.Header, body string)
}

// path fills a pattern's argument in.
func path(pattern, name, id string) string {
	if pattern == tracePath {
		return pattern + "?dataset=" + name
	}
	return strings.NewReplacer("{name}", name, "{id}", id, "{hint}", strings.Replace(id, "s-", "h-", 1)).Replace(pattern)
}

// asking asks for a path with these arguments and whatever follows it.
func asking(name, id, rest string, headers ...string) func(*testing.T, *served, string, string) (int, http.Header, string) {
	return func(t *testing.T, s *served, method, pattern string) (int, http.Header, string) {
		more := rest
		if pattern == tracePath {
			more = strings.Replace(rest, "?", "&", 1) // it has a query already
		}
		return s.do(t, method, path(pattern, name, id)+more, append(headers, hintedDataset, name)...)
	}
}

// sending writes the request line and what follows it as they are.
func sending(rest string) func(*testing.T, *served, string, string) (int, http.Header, string) {
	return func(t *testing.T, s *served, method, pattern string) (int, http.Header, string) {
		response := s.raw(t, method+" "+path(pattern, "pets", "s-1")+" HTTP/1.1\r\nHost: a\r\n"+rest)
		if response == nil {
			return 0, nil, ""
		}
		body, _ := io.ReadAll(response.Body)
		return response.StatusCode, response.Header, string(body)
	}
}

// stalled is a connection whose request does not come to its end in time.
type stalled struct{ *said }

func (s stalled) Read(p []byte) (int, error) {
	if n, err := s.said.Read(p); err == nil {
		return n, nil
	}
	return 0, os.ErrDeadlineExceeded
}

func tooLate(t *testing.T, s *served, method, pattern string) (int, http.Header, string) {
	conn := &said{Reader: strings.NewReader(method + " " + path(pattern, "pets", "s-1") + " HTTP/1.1\r\nHo")}
	if err := s.server.doors[0].server.ServeConn(stalled{conn}); err == nil {
		t.Error("a request that stops in its middle is no error")
	}
	response, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(conn.heard.Bytes())), nil)
	if err != nil {
		t.Fatalf("%v in %q", err, conn.heard.String())
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode, response.Header, string(body)
}

// exhaust leaves the peer of an in-memory connection no request.
func exhaust(s *served) {
	l := newLimiter(1, func() time.Time { return time.Unix(0, 0) })
	for _, watch := range []bool{true, false} {
		for l.take(peer{uid: unmappedUID, watch: watch}) == 0 {
		}
	}
	s.server.doors[0].limiter = l
}

func breakRoutes(s *served) {
	for i := range s.server.handler.routes {
		s.server.handler.routes[i].serve = func(*handler, *fasthttp.RequestCtx, string) error { panic("a defect") }
	}
}

func stop(s *served) {
	s.node.ready = errors.New("the daemon is stopping")
	s.node.failing = context.DeadlineExceeded
}

func provocations() map[string]provocation {
	all, asked := everything(), asking("pets", "s-1", "")
	return map[string]provocation{
		"200": {all, nil, asked},
		"201": {all, nil, asked},
		"204": {all, nil, asked},
		"400": {all, nil, asking("pets", "s-1", "?verbose=1")},
		"401": {access{change: true, token: config.NewSecret("t0ken")}, nil, asked},
		"403": {access{loopbackHost: true}, nil, asking("pets", "s-1", "", "Host", "evil.example")},
		"404": {all, nil, asking("none", "s-99", "")},
		"408": {all, nil, tooLate},
		"409": {all, nil, asking("text", "s-9", "")},
		"413": {all, nil, sending("Content-Length: 99999999\r\n\r\n")},
		"414": {all, nil, asking("pets", "s-1", "?"+strings.Repeat("x", uriBytesMax))},
		"429": {all, exhaust, asked},
		"431": {all, nil, sending("X: " + strings.Repeat("x", headerBytesMax) + "\r\n\r\n")},
		"500": {all, breakRoutes, asked},
		"503": {all, stop, asked},
	}
}

// TestEveryDescribedAnswerIsGiven provokes each status that the description lists
// for an operation; that no other is given, wantDescribed checks in every test.
func TestEveryDescribedAnswerIsGiven(t *testing.T) {
	byStatus := map[string][]string{}
	for name, operation := range operations(t) {
		for status := range operation.Responses.Map() {
			byStatus[status] = append(byStatus[status], name)
		}
	}
	for described, names := range byStatus {
		t.Run(described, func(t *testing.T) {
			t.Parallel()
			p, ok := provocations()[described]
			if !ok {
				t.Fatalf("nothing provokes this, which is described for %q", names)
			}
			s := serveInMemory(t, p.rules)
			if p.change != nil {
				p.change(s)
			}
			for _, name := range names {
				method, pattern, _ := strings.Cut(name, " ")
				status, header, body := p.ask(t, s, method, pattern)
				if strconv.Itoa(status) != described {
					t.Errorf("%s is answered %d %s", name, status, body)
					continue
				}
				wantDescribed(t, method, path(pattern, "pets", "s-1"), status, header, []byte(body))
			}
		})
	}
}
