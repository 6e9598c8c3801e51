package nbd

import "fmt"

// large carries out a read or write that is too large to have all of its memory
// at once: alone on its connection, a piece after the other, through one extent.
// Waiting for more memory while having some could be for ever, where several do.
func (in *intake) large(h header, l *limits) error {
	c := in.c
	c.submit()
	if !c.await(func() bool { return c.outstanding == 0 }, c.stop) {
		return errClosed
	}
	cmd, err := c.take(l.whole)
	if err != nil {
		return err
	}
	memory := cmd.ext
	cmd.round = make(chan struct{}, 1)
	if h.kind == cmdWrite {
		err = in.largeWrite(cmd, h, l)
	} else {
		err = in.largeRead(cmd, h, l)
	}
	cmd.ext, cmd.round = memory, nil
	if err == nil && (h.kind == cmdWrite || cmd.errno != 0) {
		c.reply(cmd)
		return nil
	}
	c.mu.Lock()
	c.release(cmd)
	c.mu.Unlock()
	return err
}

// piece has the disk do one part of a command, and waits for that.
func (in *intake) piece(cmd *command, l *limits, direct bool) {
	in.c.splitWith(cmd, l, direct)
	in.c.add(cmd)
	in.c.submit()
	<-cmd.round
}

func (in *intake) largeWrite(cmd *command, h header, l *limits) error {
	memory := cmd.ext
	direct := cmd.set(h, l)
	flush := cmd.flush
	for off, end := cmd.from, cmd.end; off < end; off = cmd.end {
		n := min(end-off, int64(memory.Len()))
		cmd.ext = memory.Slice(0, int(n))
		if err := in.payload(cmd.ext.Bytes()); err != nil {
			return err
		}
		cmd.from, cmd.end = off, off+n
		cmd.flush = flush && cmd.end == end
		if cmd.errno == 0 { // after an error the rest is read for nothing
			in.piece(cmd, l, direct)
		}
	}
	return nil
}

func (in *intake) largeRead(cmd *command, h header, l *limits) error {
	memory := cmd.ext
	cmd.set(h, l)
	start := cmd.from
	for off, end := cmd.from, cmd.end; off < end; off = cmd.end {
		n := min(end-off, int64(memory.Len()))
		cmd.ext = memory.Slice(0, int(n))
		cmd.from, cmd.end = off, off+n
		in.piece(cmd, l, false)
		if cmd.errno != 0 {
			if off > start && !in.c.structured {
				// The reply has begun and says that all is well.
				return fmt.Errorf("nbd: reading %d bytes at %d: %w", n, off, cmd.errno)
			}
			return nil
		}
		if err := in.writePiece(cmd, off == start, off+n == end, off); err != nil {
			return err
		}
	}
	return nil
}

// writePiece writes what was read of a large read; no other reply is on its way.
func (in *intake) writePiece(cmd *command, first, last bool, off int64) error {
	b := cmd.header[:]
	switch {
	case in.c.structured:
		b = b[:putData(b, cmd.cookie, off, cmd.ext.Len(), last)]
	case first:
		b = b[:putSimple(b, cmd.cookie, 0)]
	default:
		b = nil
	}
	for _, p := range [2][]byte{b, cmd.ext.Bytes()} {
		if _, err := in.c.nc.Write(p); err != nil {
			return fmt.Errorf("nbd: replying: %w", err)
		}
	}
	return nil
}
