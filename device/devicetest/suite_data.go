package devicetest

import (
	"syscall"
	"testing"

	"iscsictl/device"
)

func testReadWrite(t *testing.T, h *Harness) {
	r := newRig(t, h, Geometry4M, rigArena)
	if n, err := r.c.Size(); err != nil || n != Geometry4M.Size {
		t.Errorf("size %d, %v; want %d", n, err, Geometry4M.Size)
	}
	for i, n := range []int{512, 4096, 1024, 64 << 10, 256 << 10} {
		p := h.fill(n, uint64(i))
		off := int64(i) * 512 << 10
		r.write(p, off)
		r.expect(p, off)
	}
	last := h.fill(512, 99)
	r.write(last, Geometry4M.Size-512)
	r.expect(last, Geometry4M.Size-512)
	if r.dev.Outlives() {
		t.Log("the device outlives the daemon")
	}
}

// testLargeRequests has requests larger than the disk takes at once.
func testLargeRequests(t *testing.T, h *Harness) {
	geo := Geometry4M
	geo.Size = 40 << 20
	r := newRig(t, h, geo, 8<<20)
	for i, n := range []int{256<<10 + 512, 1 << 20, 3 << 20, 32 << 20} {
		p := h.fill(n, uint64(i))
		r.write(p, 512)
		r.expect(p, 512)
	}
}

func testSmallTransfers(t *testing.T, h *Harness) {
	geo := Geometry4M
	geo.MaxTransfer = 8 << 10
	geo.DiscardMax, geo.ZeroesMax = 8<<10, 8<<10
	r := newRig(t, h, geo, rigArena)
	p := h.fill(1<<20, 5)
	r.write(p, 1<<20)
	r.expect(p, 1<<20)
	if err := r.c.WriteZeroes(1<<20, 1<<20); err != nil {
		t.Fatal(err)
	}
	clear(p)
	r.expect(p, 1<<20)
}

func testBlock4096(t *testing.T, h *Harness) {
	geo := Geometry4M
	geo.LogicalBlock = 4096
	r := newRig(t, h, geo, rigArena)
	p := h.fill(12<<10, 1)
	r.write(p, 8<<10)
	r.expect(p, 8<<10)
	_, err := r.c.ReadAt(h.Alloc(4096)[:512], 0)
	wantErrno(t, "read of 512 bytes", err, syscall.EINVAL)
	_, err = r.c.WriteAt(p[:4096], 512)
	wantErrno(t, "write at 512", err, syscall.EINVAL)
}

func testFlush(t *testing.T, h *Harness) {
	r := newRig(t, h, Geometry4M, rigArena)
	before := r.disk.Count(device.Flush)
	r.write(h.fill(4096, 1), 0)
	if err := r.c.Flush(); err != nil {
		t.Fatal(err)
	}
	if r.disk.Count(device.Flush) == before {
		t.Error("the disk was not told to flush")
	}
	r.disk.SetErrors(func(q *device.Request) syscall.Errno {
		if q.Op == device.Flush {
			return syscall.EIO
		}
		return 0
	})
	wantErrno(t, "flush of a disk that cannot", r.c.Flush(), syscall.EIO)
	r.disk.SetErrors(nil)
}

// testFUA: a write that has to be durable is one for the disk, or is followed
// by a flush.
func testFUA(t *testing.T, h *Harness) {
	r := newRig(t, h, Geometry4M, rigArena)
	before := r.disk.Count(device.Flush) + r.disk.FUA()
	p := h.fill(4096, 1)
	if err := r.c.WriteFUA(p, 4096); err != nil {
		t.Fatal(err)
	}
	r.expect(p, 4096)
	if r.disk.Count(device.Flush)+r.disk.FUA() == before {
		t.Error("the disk was told neither of FUA nor to flush")
	}
}

func testFUAByFlush(t *testing.T, h *Harness) {
	geo := Geometry4M
	geo.FUA = false
	r := newRig(t, h, geo, rigArena)
	before := r.disk.Count(device.Flush)
	if err := r.c.WriteFUA(h.fill(1<<20, 1), 0); err != nil {
		t.Fatal(err)
	}
	if r.disk.Count(device.Flush) == before {
		t.Error("the disk was not told to flush")
	}
	if r.disk.FUA() != 0 {
		t.Error("the disk got FUA, which it has not")
	}
}

func testDiscard(t *testing.T, h *Harness) {
	r := newRig(t, h, Geometry4M, rigArena)
	r.write(h.fill(256<<10, 1), 0)
	if err := r.c.Discard(0, 3<<20); err != nil { // more than DiscardMax
		t.Fatal(err)
	}
	r.expect(h.Alloc(256<<10), 0)
	op := device.Discard
	if h.ZeroesOnly {
		op = device.WriteZeroes
	}
	if n := r.disk.Count(op); n < 3 {
		t.Errorf("3 MiB were discarded in %d requests of 1 MiB", n)
	}
}

func testWriteZeroes(t *testing.T, h *Harness) {
	r := newRig(t, h, Geometry4M, rigArena)
	p := h.fill(2<<20, 1)
	r.write(p, 0)
	if err := r.c.WriteZeroes(4096, 1<<20+4096); err != nil {
		t.Fatal(err)
	}
	clear(p[4096 : 8192+1<<20])
	r.expect(p, 0)
	if r.disk.Count(device.WriteZeroes) < 2 {
		t.Error("the disk was not told to write zeroes, in two requests")
	}
}

func testErrors(t *testing.T, h *Harness) {
	r := newRig(t, h, Geometry4M, rigArena)
	p := h.fill(1<<20, 1)
	r.write(p, 0)
	r.disk.SetErrors(func(q *device.Request) syscall.Errno {
		if q.Op != device.Flush && q.Offset <= 512<<10 && q.Offset+q.Length > 512<<10 {
			return syscall.EIO
		}
		return 0
	})
	_, err := r.c.ReadAt(h.Alloc(4096), 512<<10)
	wantErrno(t, "read of a bad block", err, syscall.EIO)
	_, err = r.c.WriteAt(p[:4096], 512<<10)
	wantErrno(t, "write of a bad block", err, syscall.EIO)
	// A read may return what precedes a bad block, but not as a whole.
	n, err := r.c.ReadAt(h.Alloc(1<<20), 0)
	if err == nil && n == 1<<20 {
		t.Error("a read of blocks of which one is bad succeeded")
	}
	wantErrno(t, "discard of a bad block", r.c.Discard(0, 1<<20), syscall.EIO)
	r.disk.SetErrors(nil)
	r.expect(p[512<<10:516<<10], 512<<10)
}

func testUnaligned(t *testing.T, h *Harness) {
	r := newRig(t, h, Geometry4M, rigArena)
	p := h.Alloc(4096)
	_, err := r.c.ReadAt(p[:512], 100)
	wantErrno(t, "read at 100", err, syscall.EINVAL)
	_, err = r.c.WriteAt(p[:100], 0)
	wantErrno(t, "write of 100 bytes", err, syscall.EINVAL)
	r.expect(p, 0) // and the device goes on
}

func testBeyondEnd(t *testing.T, h *Harness) {
	r := newRig(t, h, Geometry4M, rigArena)
	p := h.fill(8192, 1)
	if n, err := r.c.ReadAt(p[:4096], Geometry4M.Size); err == nil && n == 4096 {
		t.Error("a read beyond the end succeeded")
	}
	if n, err := r.c.WriteAt(p, Geometry4M.Size-4096); err == nil && n == 8192 {
		t.Error("a write across the end succeeded")
	}
	if n, err := r.c.WriteAt(p, 1<<62); err == nil && n == 8192 {
		t.Error("a write far beyond the end succeeded")
	}
	r.write(p, 0)
	r.expect(p, 0)
}

func testReadOnly(t *testing.T, h *Harness) {
	geo := Geometry4M
	geo.ReadOnly = true
	r := newRig(t, h, geo, rigArena)
	r.disk.Poke([]byte("this cannot be changed"), 0)
	p := h.Alloc(512)
	_, err := r.c.WriteAt(p, 0)
	wantErrno(t, "write", err, syscall.EPERM, syscall.EROFS, syscall.EBADF, syscall.EACCES)
	copy(p, "this cannot be changed")
	r.expect(p, 0)
	if n := r.disk.Count(device.Write); n != 0 {
		t.Errorf("the disk got %d writes", n)
	}
}
