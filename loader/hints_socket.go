package loader

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/shm"
)

// Hints over the session socket: their lease is the connection.

// hint takes a hint in. Its indices may lie behind a descriptor, which stays the caller's.
func (c *connection) hint(packet []byte, descriptors []int) error {
	var message shm.HintRequest
	if err := decode(packet, &message); err != nil {
		return err
	}
	request, err := decodeHint(message.Hint)
	if err != nil {
		return err
	}
	if request.LeaseSeconds != nil {
		return unusable("lease_seconds", "the hint lives as long as its connection", "leave it out")
	}
	if (message.Indices != 0) != (len(descriptors) == 1) || len(descriptors) > 1 || message.Indices != 0 && request.Indices != nil {
		return unusable("indices", fmt.Sprintf("%d of them with %d descriptors", message.Indices, len(descriptors)), "send them in the message, or in one file")
	}
	if message.Indices != 0 {
		if request.Indices, err = c.readIndices(descriptors[0], message.Indices); err != nil {
			return err
		}
	}
	client := api.Client{PID: int(c.peer.PID), UID: c.peer.UID, Name: c.client}
	added, err := c.node.addHint(c.ctx, request, hintFrom{client: client, owner: fmt.Sprintf("pid %d", c.peer.PID)})
	if err != nil {
		return err
	}
	if c.hints == nil {
		c.hints = map[string]bool{}
	}
	c.hints[added.ID] = true
	return c.sendHint(added)
}

// readIndices reads a list of indices from the beginning of a file.
func (c *connection) readIndices(fd int, count int64) ([]int64, error) {
	if limit := c.node.hints.options.IndicesMax; count < 0 || count > limit {
		return nil, limitFailure("indices of hints", limit, "indices", "announce fewer at a time, or raise prefetch.indices_max")
	}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFREG || stat.Size != 8*count {
		return nil, unusable("indices", fmt.Sprintf("the descriptor is of no file of %d bytes", 8*count), "pass a file or memfd of as many int64 as the message says")
	}
	indices := make([]int64, 0, count)
	piece := make([]byte, 64<<10)
	for at := int64(0); at < stat.Size; {
		n, err := unix.Pread(fd, piece[:min(int64(len(piece)), stat.Size-at)], at)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n = n &^ 7; err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, unusable("indices", fmt.Sprintf("cannot be read: %v", err), "pass a file or memfd that nobody changes meanwhile")
		}
		for i := 0; i < n; i += 8 {
			indices = append(indices, int64(binary.LittleEndian.Uint64(piece[i:])))
		}
		at += int64(n)
	}
	return indices, nil
}

// hintInfo says how far a hint of this connection is.
func (c *connection) hintInfo(request shm.HintReference) error {
	if !c.hints[request.ID] {
		return noHint(request.ID)
	}
	h, err := c.node.hints.find(request.ID)
	if err != nil {
		return err
	}
	return c.sendHint(c.node.hints.describe(h))
}

// endHint ends a hint of this connection.
func (c *connection) endHint(request shm.HintReference) error {
	if !c.hints[request.ID] {
		return noHint(request.ID)
	}
	delete(c.hints, request.ID)
	last, err := c.node.hints.end(request.ID, hintDeleted)
	if err != nil {
		return err
	}
	return c.sendHint(last)
}

func (c *connection) sendHint(h api.Hint) error {
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	return c.send(shm.HintAnswer{Type: shm.TypeHinted, Hint: text})
}

// endHints ends what the connection announced.
func (c *connection) endHints() {
	reason := hintOrphaned
	if c.node.ctx.Err() != nil {
		reason = hintShutdown
	}
	for id := range c.hints {
		_, _ = c.node.hints.end(id, reason) // that it is over already is all right
	}
}
