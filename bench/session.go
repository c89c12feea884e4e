package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// openedRing is what the daemon says of a new session's ring.
type openedRing struct {
	TotalBytes int64 `json:"total_bytes"`
	Slots      int   `json:"slots"`
	SlotBytes  int64 `json:"slot_bytes"`
}

// rawSession is a session opened without a client library: it takes no batch. It
// tells ring sizes, and how long the daemon alone takes to open a dataset.
type rawSession struct {
	socket  int
	Samples int64
	Ring    openedRing
	Took    time.Duration // from the request to its answer
}

// sessionSpec says which session to open: shuffled globally, batches of batchSize.
type sessionSpec struct {
	dataset   string
	blockSize int      // token datasets only
	parts     []string // tar datasets only: the selected ones
}

// openSession speaks hello and open on the session socket.
func (d *daemon) openSession(spec sessionSpec) (*rawSession, error) {
	s := &rawSession{}
	var err error
	s.socket, err = unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := s.open(d, spec); err != nil {
		return nil, errors.Join(fmt.Errorf("open dataset %q: %w", spec.dataset, err), s.close())
	}
	return s, nil
}

func (s *rawSession) open(d *daemon, spec sessionSpec) error {
	bound := unix.NsecToTimeval(int64(30 * time.Second))
	if err := unix.SetsockoptTimeval(s.socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &bound); err != nil {
		return err
	}
	if err := unix.Connect(s.socket, &unix.SockaddrUnix{Name: filepath.Join(d.runtimeDir, "session.sock")}); err != nil {
		return err
	}
	var answer struct {
		Type    string
		Error   json.RawMessage
		Samples int64
		Ring    openedRing
	}
	hello := map[string]any{"type": "hello", "min": 1, "max": 1, "features": []string{"ring"}, "client": "stoker-bench"}
	if err := s.ask(hello, &answer); err != nil {
		return err
	}
	begin := time.Now()
	if err := s.ask(spec.request(), &answer); err != nil {
		return err
	}
	s.Took, s.Samples, s.Ring = time.Since(begin), answer.Samples, answer.Ring
	if answer.Type != "opened" {
		return fmt.Errorf("the daemon answered %s: %s", answer.Type, answer.Error)
	}
	return nil
}

// request is what a client would send to open the session.
func (s sessionSpec) request() map[string]any {
	request := map[string]any{
		"type": "open", "dataset": s.dataset, "batch_size": batchSize, "order": "global",
		"world_size": 1, "transport": "ring", "window": 65536,
	}
	if s.blockSize > 0 {
		request["block_size"] = s.blockSize
	}
	if len(s.parts) > 0 {
		columns := make([]map[string]any, len(s.parts))
		for i, part := range s.parts {
			columns[i] = map[string]any{"name": part, "parts": []string{part}}
		}
		request["select"] = columns
	}
	return request
}

// ask sends one packet, receives one, and closes descriptors that came with it.
func (s *rawSession) ask(request, answer any) error {
	packet, err := json.Marshal(request)
	if err != nil {
		return err
	}
	if err := unix.Sendto(s.socket, packet, unix.MSG_NOSIGNAL, nil); err != nil {
		return err
	}
	buffer, control := make([]byte, 1<<16), make([]byte, unix.CmsgSpace(4*4))
	n, controlBytes, _, _, err := unix.Recvmsg(s.socket, buffer, control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	if messages, err := unix.ParseSocketControlMessage(control[:controlBytes]); err == nil {
		for _, message := range messages {
			descriptors, _ := unix.ParseUnixRights(&message)
			for _, fd := range descriptors {
				_ = unix.Close(fd)
			}
		}
	}
	return json.Unmarshal(buffer[:n], answer)
}

// close ends the session: the daemon sees end of file.
func (s *rawSession) close() error { return unix.Close(s.socket) }
