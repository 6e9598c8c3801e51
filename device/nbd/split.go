package nbd

import (
	"iscsictl/arena"
	"iscsictl/device"
)

// split sets up the next round of a command without data.
func (c *conn) split(cmd *command) {
	c.splitWith(cmd, c.export.limits.Load(), cmd.reqs[0].FUA)
}

// splitWith cuts the next round of a command into requests that the disk
// takes: all of it where there is data, which the extent has room for.
func (c *conn) splitWith(cmd *command, l *limits, fua bool) {
	most := int64(l.MaxTransfer)
	switch cmd.op {
	case device.Discard:
		most = l.DiscardMax
	case device.WriteZeroes:
		most = l.ZeroesMax
	}
	block := int64(l.LogicalBlock)
	most = max(most-most%block, block)
	n := min(int((cmd.end-cmd.from+most-1)/most), maxParts)
	if len(cmd.reqs) < n {
		tag := int(cmd.reqs[0].Tag)
		cmd.reqs = make([]device.Request, n)
		cmd.link(c, tag)
	}
	start := cmd.from
	for i := range n {
		r := &cmd.reqs[i]
		r.Op, r.FUA, r.NoUnmap = cmd.op, fua, cmd.noUnmap
		r.Offset = cmd.from
		r.Length = min(most, cmd.end-cmd.from)
		r.Data = arena.Extent{}
		if cmd.ext.Len() > 0 {
			r.Data = cmd.ext.Slice(int(r.Offset-start), int(r.Offset-start+r.Length))
		}
		cmd.from += r.Length
	}
	cmd.pending = n
}

// add puts a command's requests into the batch.
func (c *conn) add(cmd *command) {
	if len(c.in.batch)+cmd.pending > cap(c.in.batch) {
		c.submit()
	}
	c.in.batch = append(c.in.batch, cmd.ptrs[:cmd.pending]...)
}

// submit hands the batch to the disk. It is for the reader only.
func (c *conn) submit() {
	if len(c.in.batch) > 0 {
		c.disk.Submit(c.in.batch)
		c.in.batch = c.in.batch[:0]
	}
}

// reply sends the reply of a command that the disk has nothing of.
func (c *conn) reply(cmd *command) {
	c.mu.Lock()
	c.finish(cmd)
	mine := c.head != nil && !c.sending
	c.sending = c.sending || mine
	c.mu.Unlock()
	if mine {
		c.out.try()
	}
}
