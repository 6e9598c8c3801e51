package loop

import (
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"iscsictl/arena"
	"iscsictl/device"
)

// call is one request of FUSE's that waits for the disk. It is the
// device.Queue of its requests, and the result of a read.
type call struct {
	files  *diskFS
	ext    arena.Extent
	slices [1][]byte
	reqs   []device.Request
	ptrs   []*device.Request
	done   chan int // capacity maxParts: how many requests were completed
}

// take takes a call from those that are not in use; nil once stopped.
func (f *diskFS) take() *call {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ending {
		return nil
	}
	f.under++
	if n := len(f.free); n > 0 {
		c := f.free[n-1]
		f.free = f.free[:n-1]
		return c
	}
	c := &call{files: f, done: make(chan int, maxParts)}
	c.grow(1)
	return c
}

// begin takes a call with an extent of n bytes.
func (f *diskFS) begin(geo *device.Geometry, off, n int64) (*call, syscall.Errno) {
	if !aligned(geo, off, n) || n > int64(f.whole) {
		return nil, syscall.EINVAL
	}
	c := f.take()
	if c == nil {
		return nil, syscall.EIO
	}
	var ok bool
	if c.ext, ok = f.disk.Arena().Alloc(int(n)); ok {
		return c, 0
	}
	var err error
	if c.ext, err = f.disk.Arena().Wait(int(n), f.stopped); err != nil {
		f.end(c)
		return nil, syscall.EIO
	}
	return c, 0
}

// end gives a call back, with its memory.
func (f *diskFS) end(c *call) {
	c.ext.Free()
	c.ext, c.slices[0] = arena.Extent{}, nil
	f.mu.Lock()
	defer f.mu.Unlock()
	f.free = append(f.free, c)
	f.under--
	if f.ending && f.under == 0 {
		close(f.drained)
	}
}

// stop has new requests fail, and those that wait for memory.
func (f *diskFS) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ending {
		return
	}
	f.ending = true
	close(f.stopped)
	if f.under == 0 {
		close(f.drained)
	}
}

// drain waits for the calls under way, after stop, and returns how many are
// left when limit is over.
func (f *diskFS) drain(limit time.Duration) int {
	select {
	case <-f.drained:
	case <-time.After(limit):
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.under
}

// grow makes room for n requests.
func (c *call) grow(n int) {
	if len(c.reqs) >= n {
		return
	}
	c.reqs = make([]device.Request, n)
	c.ptrs = c.ptrs[:0]
	for i := range c.reqs {
		c.reqs[i].Queue = c
		c.ptrs = append(c.ptrs, &c.reqs[i])
	}
}

// Complete is device.Queue's.
func (c *call) Complete(done []*device.Request) { c.done <- len(done) }

// submit has the disk do the first n requests, and returns the first error.
func (c *call) submit(n int) (errno syscall.Errno) {
	c.files.disk.Submit(c.ptrs[:n])
	for left := n; left > 0; {
		left -= <-c.done
	}
	for i := range n {
		if e := c.reqs[i].Errno; e != 0 {
			return e
		}
	}
	return 0
}

// transfer reads or writes the extent, in as many requests as the disk wants,
// maxParts at a time.
func (c *call) transfer(op device.Op, geo *device.Geometry, off int64) syscall.Errno {
	most := geo.MaxTransfer - geo.MaxTransfer%geo.LogicalBlock
	for at, end := 0, c.ext.Len(); at < end; {
		n := min((end-at+most-1)/most, maxParts)
		c.grow(n)
		for i := range n {
			length := min(most, end-at)
			r := &c.reqs[i]
			r.Op, r.FUA, r.NoUnmap = op, false, false
			r.Offset, r.Length = off+int64(at), int64(length)
			r.Data = c.ext.Slice(at, at+length)
			at += length
		}
		if errno := c.submit(n); errno != 0 {
			return errno
		}
	}
	return 0
}

// zero writes zeroes; unless keep is set, blocks may be given back.
func (c *call) zero(geo *device.Geometry, off, length int64, keep bool) syscall.Errno {
	block := int64(geo.LogicalBlock)
	most := max(geo.ZeroesMax-geo.ZeroesMax%block, block)
	for length > 0 {
		n := int(min((length+most-1)/most, maxParts))
		c.grow(n)
		for i := range n {
			r := &c.reqs[i]
			r.Op, r.FUA, r.NoUnmap = device.WriteZeroes, false, keep
			r.Offset, r.Length = off, min(most, length)
			r.Data = arena.Extent{}
			off += r.Length
			length -= r.Length
		}
		if errno := c.submit(n); errno != 0 {
			return errno
		}
	}
	return 0
}

func (c *call) flush() syscall.Errno {
	r := &c.reqs[0]
	r.Op, r.FUA, r.NoUnmap = device.Flush, false, false
	r.Offset, r.Length, r.Data = 0, 0, arena.Extent{}
	return c.submit(1)
}

// Slices has go-fuse write the reply from the extent.
func (c *call) Slices() ([][]byte, fuse.Status) {
	c.slices[0] = c.ext.Bytes()
	return c.slices[:], fuse.OK
}

// Bytes, Size and Done are fuse.ReadResult's.
func (c *call) Bytes([]byte) ([]byte, fuse.Status) { return c.ext.Bytes(), fuse.OK }

// Size is the number of bytes that were read.
func (c *call) Size() int { return c.ext.Len() }

// Done is called when the reply is with the kernel.
func (c *call) Done() { c.files.end(c) }
