package ublk

import (
	"fmt"
	"math"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"iscsictl/arena"
	"iscsictl/device"
	"iscsictl/device/devicetest"
)

// rounds returns what the disk is asked for by one request of the host.
func rounds(t *testing.T, l *limits, whole int, opFlags, sectors uint32, start uint64) (said []string, errno syscall.Errno) {
	t.Helper()
	a, err := arena.New(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	c := newCommand(&queue{}, 3, 5)
	if errno = c.set(opFlags, sectors, start, l, whole); errno != 0 {
		return nil, errno
	}
	if c.data() {
		c.ext, _ = a.Alloc(int(c.length))
		defer c.release()
	}
	base, n := c.ext.Offset(), 0
	for ; c.nextRound(l); n++ {
		for _, r := range c.ptrs[:c.pending] {
			s := fmt.Sprintf("%d: %d %d+%d", n, r.Op, r.Offset, r.Length)
			if c.data() && r.Op != device.Flush {
				s += fmt.Sprintf(" data %d+%d", r.Data.Offset()-base, r.Data.Len())
			}
			if r.FUA {
				s += " fua"
			}
			if r.NoUnmap {
				s += " keep"
			}
			if r.Tag != 5 || r.Queue != c.queue {
				t.Errorf("request %d of %p", r.Tag, r.Queue)
			}
			said = append(said, s)
		}
	}
	return said, 0
}

func TestCommands(t *testing.T) {
	all := devicetest.Geometry4M // takes 256 KiB
	small := all
	small.MaxTransfer = 3000 // five blocks of 512
	noFUA := all
	noFUA.FUA = false
	through := all
	through.WriteCache = false
	none := all
	none.DiscardMax = 0
	var many []string
	for i := range 20 {
		many = append(many, fmt.Sprintf("%d: 0 %d+2560 data %d+2560", i/maxParts, i*2560, i*2560))
	}
	for name, c := range map[string]struct {
		geo     device.Geometry
		told    uint32
		op      uint32
		sectors uint32
		start   uint64
		want    []string
		errno   syscall.Errno
	}{
		"read":             {all, attrVolatileCache, opRead, 8, 1, []string{"0: 0 512+4096 data 0+4096"}, 0},
		"read in parts":    {small, attrVolatileCache, opRead, 8, 1, []string{"0: 0 512+2560 data 0+2560", "0: 0 3072+1536 data 2560+1536"}, 0},
		"read in rounds":   {small, attrVolatileCache, opRead, 100, 0, many, 0},
		"write":            {all, attrVolatileCache, opWrite, 1, 2, []string{"0: 1 1024+512 data 0+512"}, 0},
		"write FUA":        {all, attrVolatileCache, opWrite | flagFUA, 1, 0, []string{"0: 1 0+512 data 0+512 fua"}, 0},
		"FUA by flush":     {noFUA, attrVolatileCache, opWrite | flagFUA, 1, 0, []string{"0: 1 0+512 data 0+512", "1: 2 0+0"}, 0},
		"FUA for nothing":  {through, 0, opWrite | flagFUA, 1, 0, []string{"0: 1 0+512 data 0+512"}, 0},
		"cache not told":   {all, 0, opWrite, 1, 0, []string{"0: 1 0+512 data 0+512 fua"}, 0},
		"nor FUA":          {noFUA, 0, opWrite, 1, 0, []string{"0: 1 0+512 data 0+512", "1: 2 0+0"}, 0},
		"flush":            {all, attrVolatileCache, opFlush, 0, 0, []string{"0: 2 0+0"}, 0},
		"discard":          {all, attrVolatileCache, opDiscard, 4096, 8, []string{"0: 3 4096+1048576", "0: 3 1052672+1048576"}, 0},
		"discard refused":  {none, attrVolatileCache, opDiscard, 4096, 8, []string{"0: 3 4096+2097152"}, 0},
		"zeroes":           {all, attrVolatileCache, opWriteZeroes | flagFUA | flagNoUnmap, 8, 0, []string{"0: 4 0+4096 fua keep"}, 0},
		"zeroes by flush":  {noFUA, attrVolatileCache, opWriteZeroes | flagFUA, 8, 0, []string{"0: 4 0+4096", "1: 2 0+0"}, 0},
		"unknown":          {all, attrVolatileCache, 4, 1, 0, nil, syscall.EOPNOTSUPP},
		"nothing":          {all, attrVolatileCache, opRead, 0, 0, nil, syscall.EINVAL},
		"too large":        {all, attrVolatileCache, opRead, 1025, 0, nil, syscall.EINVAL},
		"far beyond":       {all, attrVolatileCache, opRead, 1, math.MaxUint64, nil, syscall.EINVAL},
		"about the end":    {all, attrVolatileCache, opWrite, 8, 1<<(63-sectorShift) - 1, nil, syscall.EINVAL},
		"discard far away": {all, attrVolatileCache, opDiscard, math.MaxUint32, 1 << 60, nil, syscall.EINVAL},
	} {
		t.Run(name, func(t *testing.T) {
			said, errno := rounds(t, newLimits(c.geo, &params{attrs: c.told}), 512<<10, c.op, c.sectors, c.start)
			if errno != c.errno {
				t.Errorf("refused with %v, want %v", errno, c.errno)
			}
			if diff := cmp.Diff(c.want, said); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

func TestResults(t *testing.T) {
	for _, c := range []struct {
		op     device.Op
		length int64
		errno  syscall.Errno
		want   int32
	}{
		{device.Read, 4096, 0, 4096},
		{device.Discard, 1 << 31, 0, 0},
		{device.Write, 4096, syscall.EBADE, -int32(syscall.EBADE)},
		{device.Write, 4096, syscall.EAGAIN, -int32(syscall.EIO)},
		{device.Write, 4096, 1 << 20, -int32(syscall.EIO)},
	} {
		if got := (&command{op: c.op, length: c.length, errno: c.errno}).result(); got != c.want {
			t.Errorf("%d of %d bytes with %v: %d, want %d", c.op, c.length, c.errno, got, c.want)
		}
	}
}

// FuzzCommand: whatever the driver says, the requests are within its range and
// the memory.
func FuzzCommand(f *testing.F) {
	f.Add(uint32(opRead), uint32(8), uint64(0), 4096)
	f.Add(uint32(opWrite|flagFUA), uint32(1024), uint64(1<<50), 512)
	f.Add(uint32(opDiscard), uint32(math.MaxUint32), uint64(1<<30), 1<<20)
	a, err := arena.New(1 << 20)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, opFlags, sectors uint32, start uint64, transfer int) {
		geo := devicetest.Geometry4M
		geo.MaxTransfer = max(transfer, geo.LogicalBlock)
		l := newLimits(geo, &params{})
		c := newCommand(&queue{}, 0, 0)
		if c.set(opFlags, sectors, start, l, 512<<10) != 0 {
			return
		}
		if c.data() {
			c.ext, _ = a.Alloc(int(c.length))
			defer c.release()
		}
		at, end := c.from, c.end
		for n := 0; c.nextRound(l); n++ {
			for _, r := range c.ptrs[:c.pending] {
				if r.Op == device.Flush {
					continue
				}
				if r.Offset != at || r.Length <= 0 || c.data() && int64(r.Data.Len()) != r.Length {
					t.Fatalf("round %d: %+v follows %d", n, r, at)
				}
				at += r.Length
			}
		}
		if at != end {
			t.Fatalf("ends at %d instead of %d", at, end)
		}
	})
}
