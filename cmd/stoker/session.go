package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/shm"
)

// sessionSocket is the name of the session socket in the runtime directory.
const sessionSocket = "session.sock"

// sessionPatience bounds what the daemon answers at once.
const sessionPatience = 10 * time.Second

// session is a connection to the session socket, over which directories can be
// passed.
type session struct {
	socket string
	conn   *shm.Conn
	stop   func() bool // stops watching the context
}

// dialSession connects and greets. The end of ctx closes the connection, by which
// the daemon gives up what it was asked for.
func dialSession(ctx context.Context, directory string) (*session, error) {
	socket := filepath.Join(directory, sessionSocket)
	conn, err := shm.Dial(socket)
	if err != nil {
		if absent(err) {
			return nil, notRunning([]string{socket})
		}
		return nil, connectFailure(socket, err)
	}
	s := &session{socket: socket, conn: conn, stop: context.AfterFunc(ctx, func() { conn.Close() })}
	if err := s.greet(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *session) close() {
	s.stop()
	s.conn.Close()
}

func (s *session) greet() error {
	hello := shm.Hello{Type: shm.TypeHello, Min: shm.ProtocolMin, Max: shm.ProtocolMax, Client: "stoker-cli/" + version}
	if err := s.conn.SetReadDeadline(time.Now().Add(sessionPatience)); err != nil {
		return s.lost(err)
	}
	if err := s.conn.Send(hello, sessionPatience); err != nil {
		return s.refusal(err)
	}
	kind, _, err := s.receive()
	if err == nil && kind != shm.TypeHello {
		err = s.unexpected(kind)
	}
	if err != nil {
		return err
	}
	return s.conn.SetReadDeadline(time.Time{})
}

// refusal is why a message could not be sent: what the daemon said before it ended
// the connection, if it said anything.
func (s *session) refusal(err error) error {
	var said *shm.Failure
	if _, _, received := s.receive(); errors.As(received, &said) {
		return said
	}
	return s.lost(err)
}

// addDataset passes the directory and waits, for as long as the scan takes.
func (s *session) addDataset(request shm.DatasetAdd, directory int, progress func(shm.ProgressNote)) (shm.DatasetInfo, error) {
	if err := s.conn.Send(request, sessionPatience, directory); err != nil {
		return shm.DatasetInfo{}, s.lost(err)
	}
	for {
		kind, packet, err := s.receive()
		if err != nil {
			return shm.DatasetInfo{}, err
		}
		switch kind {
		case shm.TypeProgress:
			var note shm.ProgressNote
			if err := json.Unmarshal(packet, &note); err != nil {
				return shm.DatasetInfo{}, fmt.Errorf("read the daemon's progress: %w", err)
			}
			progress(note)
		case shm.TypeDataset:
			var answer shm.DatasetAnswer
			if err := json.Unmarshal(packet, &answer); err != nil {
				return shm.DatasetInfo{}, fmt.Errorf("read the daemon's answer: %w", err)
			}
			return answer.Dataset, nil
		default:
			return shm.DatasetInfo{}, s.unexpected(kind)
		}
	}
}

// receive reads one message. An error message, a goodbye and the end of the
// connection are errors.
func (s *session) receive() (kind string, packet []byte, err error) {
	packet, descriptors, err := s.conn.ReceiveAny(answerBytesMax)
	if errors.Is(err, io.EOF) {
		// A daemon that closes before it has read everything resets the connection;
		// its last message waits behind that report (unix(7), ECONNRESET).
		packet, descriptors, err = s.conn.ReceiveAny(answerBytesMax)
	}
	shm.CloseAll(descriptors) // nothing that this program asks for brings any
	if err != nil {
		return "", nil, s.lost(err)
	}
	var envelope shm.Envelope
	if err := json.Unmarshal(packet, &envelope); err != nil {
		return "", nil, fmt.Errorf("read the daemon's message: %w", err)
	}
	switch envelope.Type {
	case shm.TypeError:
		var answer shm.ErrorAnswer
		if err := json.Unmarshal(packet, &answer); err != nil {
			return "", nil, fmt.Errorf("read the daemon's error: %w", err)
		}
		return "", nil, &answer.Error
	case shm.TypeBye:
		return "", nil, s.lost(io.EOF)
	}
	return envelope.Type, packet, nil
}

// lost says that the daemon is gone or does not answer.
func (s *session) lost(err error) error {
	f := &failure{Code: string(api.CodeUnavailable), Where: s.socket, exit: exitError}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		f.What, f.Remedy = fmt.Sprintf("stokerd did not answer within %s", sessionPatience), "see its log"
	case errors.Is(err, io.EOF), errors.Is(err, os.ErrClosed):
		f.What, f.Remedy = "stokerd ended the connection", "see its log; start it again if it stopped"
	default:
		f.What, f.Why, f.Remedy = "the connection to stokerd broke", err.Error(), "see its log"
	}
	return f
}

func (s *session) unexpected(kind string) error {
	return &failure{Code: string(api.CodeVersion), What: fmt.Sprintf("stokerd sent a message of type %q that this program does not expect", kind),
		Where: s.socket, Remedy: "use programs of the same release; see stoker version", exit: exitError}
}
