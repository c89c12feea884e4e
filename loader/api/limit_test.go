package api

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/stokerio/stoker/loader/config"
)

// clock stands until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 22, 17, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// takeAll takes until it has to wait, and says how often it got something.
func takeAll(l *limiter, p peer) (taken int) {
	for l.take(p) == 0 {
		taken++
	}
	return taken
}

func TestAPeerIsServedItsRateAndTwiceAsManyAtOnce(t *testing.T) {
	at := newClock()
	l := newLimiter(10, at.Now)
	me := peer{uid: 1000}
	if taken := takeAll(l, me); taken != 20 {
		t.Errorf("%d at once, want 20", taken)
	}
	wait := l.take(me)
	if wait != 100*time.Millisecond {
		t.Errorf("the next after %v, want 100ms; being refused costs nothing", wait)
	}
	at.advance(wait)
	if taken := takeAll(l, me); taken != 1 {
		t.Errorf("%d after the wait, want 1", taken)
	}
	at.advance(time.Hour)
	if taken := takeAll(l, me); taken != 20 {
		t.Errorf("%d after an hour, want 20", taken)
	}
}

func TestPeersAndWatchersDoNotShare(t *testing.T) {
	l := newLimiter(1, newClock().Now)
	takeAll(l, peer{uid: 1000})
	for _, other := range []peer{{uid: 0}, {uid: 1000, watch: true}, {uid: unmappedUID, ip: netip.MustParseAddr("10.0.0.1")}} {
		if l.take(other) != 0 {
			t.Errorf("%+v pays for another", other)
		}
	}
}

func TestPeersOfTCPAreAddressesAndNetworks(t *testing.T) {
	from := func(text string) peer {
		return peerOf(&peerConn{Conn: &addressed{address: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(text))}, uid: unmappedUID}, false)
	}
	if from("10.0.0.1:5") != from("10.0.0.1:6") || from("10.0.0.1:5") != from("[::ffff:10.0.0.1]:5") || from("10.0.0.1:5") == from("10.0.0.2:5") {
		t.Error("an IPv4 peer is not its address")
	}
	if from("[2001:db8::1]:5") != from("[2001:db8::ffff:2]:5") || from("[2001:db8::1]:5") == from("[2001:db8:0:1::1]:5") {
		t.Error("an IPv6 peer is not its /64 network")
	}
}

type addressed struct {
	net.Conn
	address net.Addr
}

func (a *addressed) RemoteAddr() net.Addr { return a.address }

func TestTheTableOfPeersIsBounded(t *testing.T) {
	at := newClock()
	l := newLimiter(1, at.Now)
	crowd := func(from, to uint32) {
		for n := from; n < to; n++ {
			l.take(peer{uid: unmappedUID, ip: netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))})
		}
	}
	crowd(0, 10*bucketsMax)
	if size := len(l.mu.buckets); size > bucketsMax+2 {
		t.Errorf("%d buckets", size)
	}
	if l.take(peer{uid: unmappedUID, ip: netip.MustParseAddr("250.0.0.1")}) == 0 {
		t.Error("a crowd's next address is served as if it were alone")
	}
	at.advance(time.Minute)
	if taken := takeAll(l, peer{uid: unmappedUID, ip: netip.MustParseAddr("250.0.0.2")}); taken != 2 {
		t.Errorf("%d for a newcomer when the crowd is gone, want 2", taken)
	}
	if size := len(l.mu.buckets); size > 3 {
		t.Errorf("%d buckets are remembered of a crowd that is gone", size)
	}
}

// However requests come, no stretch of time sees more than its rate and one burst,
// and nobody who asks less often is refused.
func TestNoStretchOfTimeSeesMoreThanItsRateAndABurst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		perSecond := rapid.IntRange(1, 50).Draw(t, "rate")
		at := newClock()
		l := newLimiter(perSecond, at.Now)
		start, served, refused := at.Now(), 0, 0
		for _, pause := range rapid.SliceOfN(rapid.IntRange(0, 500), 1, 200).Draw(t, "pauses in ms") {
			at.advance(time.Duration(pause) * time.Millisecond)
			if l.take(peer{}) == 0 {
				served++
			} else {
				refused++
			}
		}
		allowed := float64(2*perSecond) + float64(perSecond)*at.Now().Sub(start).Seconds()
		if float64(served) > allowed+1e-6 {
			t.Fatalf("%d served, %v allowed", served, allowed)
		}
		if refused > 0 && float64(served+1) < float64(2*perSecond) {
			t.Fatalf("refused after %d, within the burst of %d", served, 2*perSecond)
		}
	})
}

func TestWhoAsksTooOftenIsToldWhenToReturn(t *testing.T) {
	at := newClock()
	s := serveInMemory(t, everything())
	s.server.doors[0].limiter = newLimiter(1, at.Now)
	for range 2 {
		if status, _, _ := s.do(t, "GET", "/v1/nothing"); status != 404 {
			t.Errorf("within the burst: %d", status)
		}
	}
	status, header, body := s.do(t, "GET", "/v1/version")
	wantProblem(t, status, header, body, 429, CodeLimit)
	seconds, err := strconv.Atoi(header.Get("Retry-After"))
	if err != nil || seconds != 1 {
		t.Errorf("Retry-After %q", header.Get("Retry-After"))
	}
	for _, path := range []string{"/healthz", "/metrics"} {
		if status, _, _ := s.do(t, "GET", path); status != 200 {
			t.Errorf("%s beside a busy neighbour: %d", path, status)
		}
	}
	status, header, body = s.do(t, "GET", "/readyz")
	wantProblem(t, status, header, body, 429, CodeLimit)
	at.advance(time.Duration(seconds) * time.Second)
	for _, path := range []string{"/v1/version", "/readyz"} {
		if status, _, body := s.do(t, "GET", path); status != 200 {
			t.Errorf("%s after Retry-After: %d %s", path, status, body)
		}
	}
}

func TestRefusalsDoNotUseUpWhatTheTokensBearerMayAsk(t *testing.T) {
	s := serveInMemory(t, access{token: config.NewSecret("t0ken")})
	s.server.doors[0].limiter = newLimiter(1, newClock().Now)
	for range 5 {
		s.do(t, "GET", "/v1/version", "Authorization", "Bearer guess")
	}
	if status, _, _ := s.do(t, "GET", "/v1/version", "Authorization", "Bearer t0ken"); status != 200 {
		t.Errorf("behind the same proxy as a guesser: %d", status)
	}
}

func TestDoorsDoNotShareARate(t *testing.T) {
	s := serveUnix(t, SocketName, func(o *Options) { o.RequestsPerSecond, o.Listen = 1, "127.0.0.1:0" })
	refused := false
	for range 10 {
		status, _, _ := s.do(t, "GET", "/v1/version")
		refused = refused || status == 429
	}
	if !refused {
		t.Error("Options.RequestsPerSecond has no effect")
	}
	response, err := http.Get("http://" + s.server.Address().String() + "/v1/version")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != 200 {
		t.Errorf("at another door: %d", response.StatusCode)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestOneConnectionTooManyIsToldSo(t *testing.T) {
	s := serveInMemory(t, access{})
	listener, err := listenUnix(filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	s.server.add(t.Context(), "crowded", access{}, listener)
	s.server.serve(s.server.doors[1])
	var conns []net.Conn
	dial := func() net.Conn {
		conn, err := net.Dial("unix", listener.(*unixListener).path)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
		return conn
	}
	defer func() {
		for _, conn := range conns {
			conn.Close()
		}
	}()
	for range connsMax {
		dial()
	}
	last := dial()
	last.SetDeadline(time.Now().Add(20 * time.Second))
	response, err := http.ReadResponse(bufio.NewReader(last), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	wantProblem(t, response.StatusCode, response.Header, string(body), 429, CodeLimit)
	if response.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	conns[0].Close()
	waitFor(t, func() bool {
		conn := dial()
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := conn.Write([]byte("GET /healthz HTTP/1.0\r\n\r\n")); err != nil {
			return false
		}
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		return err == nil && answer.StatusCode == 200
	})
}
