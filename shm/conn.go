package shm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// MaxMessageBytes is the longest packet on a session socket.
const MaxMessageBytes = 1 << 16

// maxDescriptors is how many descriptors one packet may carry; more are closed
// and the packet refused.
const maxDescriptors = 2

// Errors of a connection that is no longer usable.
var (
	ErrMessageTooLong     = fmt.Errorf("message longer than %d bytes", MaxMessageBytes)
	ErrTooManyDescriptors = fmt.Errorf("more than %d descriptors on one message", maxDescriptors)
)

// Conn is one end of a session socket: packets of one JSON object each, with
// descriptors. Send may be called from several goroutines, Receive from one.
type Conn struct {
	unix   *net.UnixConn
	send   sync.Mutex // one packet at a time
	hurry  atomic.Pointer[time.Time]
	buf    []byte  // Receive's
	oob    []byte  // Receive's
	handed *Memory // see Hand; of the goroutine that answers
}

// NewConn wraps a connected SEQPACKET socket, which it then owns.
func NewConn(c *net.UnixConn) *Conn {
	return &Conn{
		unix: c, buf: make([]byte, MaxMessageBytes+1),
		oob: make([]byte, unix.CmsgSpace((maxDescriptors+1)*4)),
	}
}

// Dial connects to the session socket at path.
func Dial(path string) (*Conn, error) {
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	return NewConn(c), nil
}

// Unix returns the socket, for asking who is at the other end.
func (c *Conn) Unix() *net.UnixConn { return c.unix }

// Send writes one message; descriptors are duplicated into the other process and
// stay the caller's. A peer that does not read for longer than patience is an
// error.
func (c *Conn) Send(message any, patience time.Duration, descriptors ...int) error {
	b, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	if len(b) > MaxMessageBytes {
		return ErrMessageTooLong
	}
	return c.SendRaw(b, patience, descriptors...)
}

// SendAny is Send for messages of any length: one that does not fit a packet
// travels in a memfd, announced by a Long and passed before the other
// descriptors. Only daemons send such messages.
func (c *Conn) SendAny(message any, patience time.Duration, descriptors ...int) error {
	b, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	if len(b) <= MaxMessageBytes {
		return c.SendRaw(b, patience, descriptors...)
	}
	memory, err := NewMemory("stoker-message", int64(len(b)))
	if err != nil {
		return err
	}
	copy(memory.Bytes(), b)
	c.Hand(memory)
	return c.Send(Long{Type: TypeLong, Bytes: int64(len(b))}, patience, append([]int{memory.FD()}, descriptors...)...)
}

// Hand takes over memory that is passed to the peer. Its pages are given back when
// the next is handed, whatever the peer does with its descriptor, so that a peer
// can hold no more of the daemon's memory than one answer. For the goroutine that
// answers the peer's requests.
func (c *Conn) Hand(memory *Memory) {
	if c.handed != nil {
		_ = c.handed.Discard()
		_ = c.handed.Close()
	}
	c.handed = memory
}

// ReceiveAny is Receive for a client: it follows a Long to the message it stands
// for, of at most limit bytes.
func (c *Conn) ReceiveAny(limit int64) (packet []byte, descriptors []int, err error) {
	packet, descriptors, err = c.Receive()
	if err != nil || len(descriptors) == 0 {
		return packet, descriptors, err
	}
	var long Long
	if json.Unmarshal(packet, &long) != nil || long.Type != TypeLong {
		return packet, descriptors, nil
	}
	if long.Bytes < 0 || long.Bytes > limit {
		CloseAll(descriptors)
		return nil, nil, fmt.Errorf("message of %d bytes, at most %d were expected", long.Bytes, limit)
	}
	packet = make([]byte, long.Bytes)
	n, err := unix.Pread(descriptors[0], packet, 0)
	_ = unix.Close(descriptors[0])
	if descriptors = descriptors[1:]; err != nil || n != len(packet) {
		CloseAll(descriptors)
		return nil, nil, fmt.Errorf("read a message of %d bytes: got %d: %w", len(packet), n, errors.Join(err, io.ErrUnexpectedEOF))
	}
	return packet, descriptors, nil
}

// SendRaw writes one packet as it is. See Send.
func (c *Conn) SendRaw(b []byte, patience time.Duration, descriptors ...int) error {
	var oob []byte
	if len(descriptors) > 0 {
		oob = unix.UnixRights(descriptors...)
	}
	c.send.Lock()
	defer c.send.Unlock()
	deadline := time.Now().Add(patience)
	if last := c.hurry.Load(); last != nil && last.Before(deadline) {
		deadline = *last
	}
	if err := c.unix.SetWriteDeadline(deadline); err != nil {
		return err
	}
	if _, _, err := c.unix.WriteMsgUnix(b, oob, nil); err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	return nil
}

// Receive reads one packet. The bytes are valid until the next Receive; the
// descriptors are the caller's to close. io.EOF says that the peer is gone.
func (c *Conn) Receive() (packet []byte, descriptors []int, err error) {
	n, oobn, flags, _, err := c.unix.ReadMsgUnix(c.buf, c.oob)
	if err != nil {
		if errors.Is(err, unix.ECONNRESET) {
			return nil, nil, io.EOF
		}
		return nil, nil, err
	}
	descriptors, err = parseDescriptors(c.oob[:oobn])
	switch {
	case err != nil:
	case flags&unix.MSG_TRUNC != 0 || n > MaxMessageBytes:
		err = ErrMessageTooLong
	case flags&unix.MSG_CTRUNC != 0 || len(descriptors) > maxDescriptors:
		err = ErrTooManyDescriptors
	}
	if err != nil {
		CloseAll(descriptors)
		return nil, nil, err
	}
	return c.buf[:n], descriptors, nil
}

// SetReadDeadline bounds the next Receive.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.unix.SetReadDeadline(t) }

// Hurry bounds every Send from now on, one under way included, to end within d.
func (c *Conn) Hurry(d time.Duration) {
	last := time.Now().Add(d)
	c.hurry.Store(&last)
	_ = c.unix.SetWriteDeadline(last) // what a Send set before it saw last is at most one call's delay
}

// PeerGone says whether the other end has closed the connection, without reading.
func (c *Conn) PeerGone() bool {
	gone := false
	err := control(c.unix, func(fd int) error {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(fds, 0)
		gone = err == nil && n > 0 && fds[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
		return nil
	})
	return gone || err != nil
}

// Linger ends a connection so that its last message arrives: closing a socket
// with unread packets would make the peer see a reset first. It waits at most
// patience for the peer to close, and then closes.
func (c *Conn) Linger(patience time.Duration) {
	_ = c.unix.CloseWrite()
	_ = c.unix.SetReadDeadline(time.Now().Add(patience))
	for {
		_, descriptors, err := c.Receive()
		CloseAll(descriptors)
		if err != nil && !errors.Is(err, ErrMessageTooLong) && !errors.Is(err, ErrTooManyDescriptors) {
			break
		}
	}
	_ = c.Close()
}

// Close closes the socket and ends a Receive that waits.
func (c *Conn) Close() error { return c.unix.Close() }

// Forget frees what was handed to the peer, once nobody answers it any more. The
// peer keeps what it has mapped.
func (c *Conn) Forget() {
	if c.handed != nil {
		_ = c.handed.Close()
		c.handed = nil
	}
}

func parseDescriptors(oob []byte) ([]int, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("parse control message: %w", err)
	}
	var all []int
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if errors.Is(err, unix.EINVAL) {
			continue // some other control message
		}
		if err != nil {
			CloseAll(all)
			return nil, fmt.Errorf("parse descriptors: %w", err)
		}
		all = append(all, fds...)
	}
	return all, nil
}

// CloseAll closes descriptors that nobody wants.
func CloseAll(descriptors []int) {
	for _, fd := range descriptors {
		_ = unix.Close(fd)
	}
}
