package api

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// RequestsPerSecond is how many requests one peer is served at one door unless
// Options say otherwise. `stoker top` makes about four.
const RequestsPerSecond = 200

// bucketsMax bounds the peers that a limiter remembers; a full table is 200 KiB.
// Peers beyond it share one bucket.
const bucketsMax = 1024

// peer is whose requests are counted together: a user on a Unix socket, an address
// on TCP. Requests that watch the daemon have a bucket of their own, so that a busy
// neighbour of the same user cannot make a healthy daemon look ill.
type peer struct {
	uid   uint32
	ip    netip.Addr // IPv6: the /64 network, which one machine may have all of
	watch bool
}

// peerOf tells who is at the other end of a connection.
func peerOf(conn net.Conn, watch bool) peer {
	known, ok := conn.(*peerConn)
	if !ok {
		return peer{uid: unmappedUID, watch: watch}
	}
	p := peer{uid: known.uid, watch: watch}
	if address, ok := known.RemoteAddr().(*net.TCPAddr); ok {
		p.ip = address.AddrPort().Addr().Unmap()
		if p.ip.Is6() {
			p.ip = netip.PrefixFrom(p.ip.WithZone(""), 64).Masked().Addr()
		}
	}
	return p
}

// limiter holds the token buckets of one door.
type limiter struct {
	rate  rate.Limit
	burst int
	now   func() time.Time

	mu struct {
		sync.Mutex
		buckets map[peer]*rate.Limiter
		swept   time.Time
	}
}

// newLimiter serves each peer perSecond requests, and twice as many in a burst.
func newLimiter(perSecond int, now func() time.Time) *limiter {
	l := &limiter{rate: rate.Limit(perSecond), burst: 2 * perSecond, now: now}
	l.mu.buckets = map[peer]*rate.Limiter{}
	return l
}

// take counts a request of p. It returns 0, or after how long the next one will be
// served if there is none in between.
func (l *limiter) take(p peer) time.Duration {
	now := l.now()
	reserved := l.bucket(p, now).ReserveN(now, 1)
	wait := reserved.DelayFrom(now)
	if wait > 0 {
		reserved.CancelAt(now)
	}
	return wait
}

func (l *limiter) bucket(p peer, now time.Time) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if found, ok := l.mu.buckets[p]; ok {
		return found
	}
	if len(l.mu.buckets) >= bucketsMax {
		l.sweep(now)
	}
	if len(l.mu.buckets) >= bucketsMax {
		p = peer{uid: unmappedUID, watch: p.watch} // what no connection of TCP or of a served user has
		if shared, ok := l.mu.buckets[p]; ok {
			return shared
		}
	}
	fresh := rate.NewLimiter(l.rate, l.burst)
	l.mu.buckets[p] = fresh
	return fresh
}

// sweep forgets the buckets that are full, which is what a new one is. Once a
// second is enough: none fills in less than its burst takes, two seconds.
func (l *limiter) sweep(now time.Time) {
	if now.Sub(l.mu.swept) < time.Second {
		return
	}
	l.mu.swept = now
	for p, bucket := range l.mu.buckets {
		if bucket.TokensAt(now) >= float64(l.burst) {
			delete(l.mu.buckets, p)
		}
	}
}
