package cufile

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// SendSlab sends a slab over a Unix stream or seqpacket socket. The receiver may be
// killed, or this process, in any order: the memory lives until both have let go. A
// deadline on the connection bounds the wait.
func SendSlab(c *net.UnixConn, s *Slab) error {
	e, err := s.Export()
	if err != nil {
		return err
	}
	defer e.Close()
	message := e.encode()
	var rights []byte
	if e.File != nil {
		rights = unix.UnixRights(int(e.File.Fd()))
	}
	n, _, err := c.WriteMsgUnix(message[:], rights, nil)
	if err == nil && n != len(message) {
		err = fmt.Errorf("%d of %d bytes were taken", n, len(message))
	}
	if err != nil {
		return fmt.Errorf("send slab: %w", err)
	}
	return nil
}

// ReceiveSlab takes a slab that SendSlab sent and maps it on the device, which must
// be the GPU that it lies on: read-only unless writable. The caller closes the slab.
// io.EOF where the sender closed the connection before a message; ErrMessage where it
// sent something else, whatever follows on the connection is then undefined. A deadline
// on the connection bounds the wait for a sender that says nothing.
func ReceiveSlab(c *net.UnixConn, g *Device, writable bool) (*Slab, error) {
	message, files, err := receiveMessage(c)
	defer closeAll(files)
	if err != nil {
		return nil, fmt.Errorf("receive slab: %w", err)
	}
	e, err := decodeExport(message)
	if err != nil {
		return nil, fmt.Errorf("receive slab: %w", err)
	}
	if wanted := e.descriptors(); len(files) != wanted {
		return nil, fmt.Errorf("receive slab: %w: %d descriptors with %s, want %d", ErrMessage, len(files), e.Kind, wanted)
	}
	if len(files) == 1 {
		e.File = files[0]
	}
	return g.Import(e, writable)
}

func (e Export) descriptors() int {
	if e.Kind == SlabVMM {
		return 1
	}
	return 0
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // only read from, and the mapping keeps the memory
	}
}

// maxRights is room for more descriptors than a message may have, so that too many
// are seen, and closed.
const maxRights = 4

// receiveMessage reads one message. A stream may give it in pieces; descriptors come
// with the first. It stops at the second descriptor: each piece may bring some, and a
// sender must not fill this process's table. What it answers is to be closed, with or
// without an error.
func receiveMessage(c *net.UnixConn) (message []byte, files []*os.File, err error) {
	buffer := make([]byte, messageBytes)
	control := make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(4*maxRights))
	for done := 0; done < messageBytes; {
		n, controlBytes, flags, _, err := c.ReadMsgUnix(buffer[done:], control)
		more, rightsErr := received(control[:controlBytes])
		files = append(files, more...)
		switch {
		case errors.Is(err, io.EOF) && done > 0:
			return nil, files, fmt.Errorf("%w: it ends after %d bytes", ErrMessage, done)
		case err != nil:
			return nil, files, err
		case rightsErr != nil:
			return nil, files, rightsErr
		case flags&(unix.MSG_CTRUNC|unix.MSG_TRUNC) != 0 || len(files) > 1:
			return nil, files, fmt.Errorf("%w: it is longer, or has more descriptors, than it may", ErrMessage)
		}
		done += n
	}
	return buffer, files, nil
}

// received turns control messages into files. They are close-on-exec: ReadMsgUnix
// asks for that.
func received(control []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, m := range messages {
		descriptors, err := unix.ParseUnixRights(&m)
		if errors.Is(err, unix.EINVAL) {
			continue // credentials, say
		}
		for _, descriptor := range descriptors {
			files = append(files, os.NewFile(uintptr(descriptor), "slab"))
		}
	}
	return files, nil
}
