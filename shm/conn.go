package shm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
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
	unix *net.UnixConn
	send sync.Mutex // one packet at a time
	buf  []byte     // Receive's
	oob  []byte     // Receive's
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

// SendRaw writes one packet as it is. See Send.
func (c *Conn) SendRaw(b []byte, patience time.Duration, descriptors ...int) error {
	var oob []byte
	if len(descriptors) > 0 {
		oob = unix.UnixRights(descriptors...)
	}
	c.send.Lock()
	defer c.send.Unlock()
	if err := c.unix.SetWriteDeadline(time.Now().Add(patience)); err != nil {
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

// Close closes the socket and ends a Receive that waits.
func (c *Conn) Close() error { return c.unix.Close() }

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
