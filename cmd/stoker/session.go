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

// withSession finds the daemon and runs do with a connection to its session socket.
func (a *app) withSession(ctx context.Context, do func(*session) error) error {
	daemon, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer daemon.close()
	s, err := dialSession(ctx, daemon.directory)
	if err != nil {
		return err
	}
	defer s.close()
	return do(s)
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

// scan asks for a scan, with the directory's descriptor if there is one, and waits
// for as long as it takes.
func (s *session) scan(request any, progress func(shm.ProgressNote), descriptors ...int) (shm.DatasetInfo, error) {
	var answer shm.DatasetAnswer
	err := s.ask(request, shm.TypeDataset, &answer, func(kind string, packet []byte) error {
		return s.showProgress(kind, packet, progress)
	}, descriptors...)
	return answer.Dataset, err
}

// lint asks for a lint. found is given the findings as they come.
func (s *session) lint(request shm.DatasetLint, progress func(shm.ProgressNote), found func([]shm.Finding) error, descriptors ...int) (shm.LintSummary, error) {
	var answer shm.LintAnswer
	err := s.ask(request, shm.TypeLint, &answer, func(kind string, packet []byte) error {
		if kind != shm.TypeFindings {
			return s.showProgress(kind, packet, progress)
		}
		var note shm.FindingsNote
		if err := json.Unmarshal(packet, &note); err != nil {
			return fmt.Errorf("read the daemon's findings: %w", err)
		}
		return found(note.Findings)
	}, descriptors...)
	return answer.Summary, err
}

// sample asks for one sample. Its bytes are in the file, which the caller closes.
func (s *session) sample(request shm.SampleRequest) (shm.SampleAnswer, *os.File, error) {
	var answer shm.SampleAnswer
	if err := s.conn.Send(request, sessionPatience); err != nil {
		return answer, nil, s.refusal(err)
	}
	kind, packet, descriptors, err := s.receiveAll()
	if err != nil {
		return answer, nil, err
	}
	if kind != shm.TypeSample || len(descriptors) != 1 {
		shm.CloseAll(descriptors)
		return answer, nil, s.unexpected(kind)
	}
	memory := os.NewFile(uintptr(descriptors[0]), "sample")
	if err := json.Unmarshal(packet, &answer); err != nil {
		memory.Close()
		return answer, nil, fmt.Errorf("read the daemon's answer: %w", err)
	}
	return answer, memory, nil
}

// ask sends a request and waits for its last answer, of type final. between is
// given what comes before.
func (s *session) ask(request any, final string, answer any, between func(kind string, packet []byte) error, descriptors ...int) error {
	if err := s.conn.Send(request, sessionPatience, descriptors...); err != nil {
		return s.refusal(err)
	}
	for {
		kind, packet, err := s.receive()
		if err != nil {
			return err
		}
		if kind != final {
			if err := between(kind, packet); err != nil {
				return err
			}
			continue
		}
		if err := json.Unmarshal(packet, answer); err != nil {
			return fmt.Errorf("read the daemon's answer: %w", err)
		}
		return nil
	}
}

// showProgress passes a progress note on; it is the only message that may come here.
func (s *session) showProgress(kind string, packet []byte, progress func(shm.ProgressNote)) error {
	if kind != shm.TypeProgress {
		return s.unexpected(kind)
	}
	var note shm.ProgressNote
	if err := json.Unmarshal(packet, &note); err != nil {
		return fmt.Errorf("read the daemon's progress: %w", err)
	}
	progress(note)
	return nil
}

// receive reads one message that brings no descriptors.
func (s *session) receive() (kind string, packet []byte, err error) {
	kind, packet, descriptors, err := s.receiveAll()
	shm.CloseAll(descriptors)
	return kind, packet, err
}

// receiveAll reads one message with its descriptors, which the caller closes. An
// error message, a goodbye and the end of the connection are errors, with which no
// descriptors come.
func (s *session) receiveAll() (kind string, packet []byte, descriptors []int, err error) {
	packet, descriptors, err = s.conn.ReceiveAny(answerBytesMax)
	if errors.Is(err, io.EOF) {
		// A daemon that closes before it has read everything resets the connection;
		// its last message waits behind that report (unix(7), ECONNRESET).
		packet, descriptors, err = s.conn.ReceiveAny(answerBytesMax)
	}
	if err == nil {
		kind, err = kindOf(packet)
	} else {
		err = s.lost(err)
	}
	if err == nil && kind == shm.TypeBye {
		err = s.lost(io.EOF)
	}
	if err != nil {
		shm.CloseAll(descriptors)
		return "", nil, nil, err
	}
	return kind, packet, descriptors, nil
}

// kindOf reads a message's type. An error message is returned as an error.
func kindOf(packet []byte) (string, error) {
	var envelope shm.Envelope
	if err := json.Unmarshal(packet, &envelope); err != nil {
		return "", fmt.Errorf("read the daemon's message: %w", err)
	}
	if envelope.Type != shm.TypeError {
		return envelope.Type, nil
	}
	var answer shm.ErrorAnswer
	if err := json.Unmarshal(packet, &answer); err != nil {
		return "", fmt.Errorf("read the daemon's error: %w", err)
	}
	return "", &answer.Error
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
