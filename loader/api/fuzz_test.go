package api

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stokerio/stoker/loader/config"
)

// said is a connection whose other end has said everything and listens.
type said struct {
	io.Reader
	heard bytes.Buffer
}

func (s *said) Write(p []byte) (int, error)      { return s.heard.Write(p) }
func (s *said) Close() error                     { return nil }
func (s *said) LocalAddr() net.Addr              { return &net.UnixAddr{} }
func (s *said) RemoteAddr() net.Addr             { return &net.UnixAddr{} }
func (s *said) SetDeadline(time.Time) error      { return nil }
func (s *said) SetReadDeadline(time.Time) error  { return nil }
func (s *said) SetWriteDeadline(time.Time) error { return nil }

// take empties the log, which a long run would fill.
func (b *lockedBuffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.text.Reset()
	return b.text.String()
}

// FuzzRequests sends any bytes for one or more requests: whatever they are, each
// answer is one of HTTP, none is a panic's, and the server goes on serving.
func FuzzRequests(f *testing.F) {
	for _, seed := range []string{
		"GET /v1/datasets/pets HTTP/1.1\r\nHost: localhost\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
		"DELETE /v1/datasets/%70ets HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
		"POST //v1/version HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n",
		"HEAD /v1/sessions/%00 HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n",
		"GET /v1/cache/chunks?limit=9&prefix=3f&after=zz HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /v1/cache/evict HTTP/1.1\r\nHost: x\r\nContent-Length: 22\r\n\r\n{\"chunks\":[\"00\",null]}",
		"POST /v1/cache/limit HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n{\"bytes\":-1}",
		"GET /debug/pprof/ HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	rules := access{change: true, token: config.NewSecret("t0ken")}
	open, guarded := serveInMemory(f, everything()), serveInMemory(f, rules)
	f.Fuzz(func(t *testing.T, request []byte) {
		for name, s := range map[string]*served{"open": open, "guarded": guarded} {
			conn := &said{Reader: bytes.NewReader(request)}
			_ = s.server.doors[0].server.ServeConn(conn) // an error for what is no HTTP
			answer := conn.heard.String()
			if answer != "" && !strings.HasPrefix(answer, "HTTP/1.") {
				t.Errorf("%s: %q is answered with %.200q", name, request, answer)
			}
			for text := range strings.SplitSeq(answer, "HTTP/1.1 ") {
				if strings.HasPrefix(text, "4") && !strings.Contains(text, "Content-Type: application/problem+json\r\n") {
					t.Errorf("%s: %q is answered with %.300q", name, request, answer)
				}
			}
			if log := s.log.take(); strings.Contains(log, "panicked") {
				t.Fatalf("%s: %q panics: %s", name, request, log)
			}
			if name == "guarded" && strings.Contains(answer, "HTTP/1.1 2") {
				t.Errorf("%q is served without the token: %.200q", request, answer)
			}
		}
	})
}
