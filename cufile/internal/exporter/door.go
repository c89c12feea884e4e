package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"github.com/stokerio/stoker/cufile"
)

// door hands the slab to whoever connects, and knows who still is: a connection is
// the client's right to the slab, and ends with the client.
type door struct {
	listener *net.UnixListener
	slab     *cufile.Slab
	loops    sync.WaitGroup

	mu struct {
		sync.Mutex
		connected map[*net.UnixConn]struct{}
		closed    bool
	}
}

func listen(o options, slab *cufile.Slab) (*door, error) {
	network := "unix"
	if o.seqpacket {
		network = "unixpacket"
	}
	if o.socket == "" {
		return nil, errors.New("-socket is missing: name the path to listen on")
	}
	listener, err := net.ListenUnix(network, &net.UnixAddr{Name: o.socket, Net: network})
	if err != nil {
		return nil, err
	}
	d := &door{listener: listener, slab: slab}
	d.mu.connected = map[*net.UnixConn]struct{}{}
	d.loops.Go(d.accept)
	return d, nil
}

// accept ends when the listener is closed.
func (d *door) accept() {
	for {
		connection, err := d.listener.AcceptUnix()
		if err != nil {
			return
		}
		if !d.enter(connection) {
			connection.Close()
			return
		}
		d.loops.Go(func() { d.serve(connection) })
	}
}

// serve hands out the slab, and returns when the client is gone or close is called.
func (d *door) serve(connection *net.UnixConn) {
	defer d.leave(connection)
	if err := cufile.SendSlab(connection, d.slab); err != nil {
		fmt.Fprintln(os.Stderr, "exporter: send the slab:", err)
		return
	}
	// The client says nothing; the end of its side is what is waited for.
	_, _ = io.Copy(io.Discard, connection)
}

// enter reports whether the door is still open.
func (d *door) enter(connection *net.UnixConn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.mu.closed {
		d.mu.connected[connection] = struct{}{}
	}
	return !d.mu.closed
}

func (d *door) leave(connection *net.UnixConn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.mu.connected, connection)
	connection.Close()
}

func (d *door) clients() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.mu.connected)
}

// close ends all connections and waits for whoever served them.
func (d *door) close() error {
	err := d.listener.Close()
	d.mu.Lock()
	d.mu.closed = true
	for connection := range d.mu.connected {
		connection.Close()
	}
	d.mu.Unlock()
	d.loops.Wait()
	return err
}
