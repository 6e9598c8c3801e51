package devicetest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"iscsictl/device"
)

func testResize(t *testing.T, h *Harness) {
	r := newRig(t, h, Geometry4M, rigArena)
	geo := Geometry4M
	for _, size := range []int64{10 << 20, 1 << 20} {
		geo.Size = size
		r.disk.SetGeometry(geo)
		err := r.dev.Update(geo)
		if err != nil && h.SeesResize {
			t.Fatal(err)
		}
		if err == nil && !h.SeesResize {
			t.Fatal("no word that the client has to connect again")
		}
		if !h.SeesResize {
			r.c.Close()
			r.c = r.open()
		}
		if n, err := r.c.Size(); err != nil || n != size {
			t.Fatalf("size %d, %v; want %d", n, err, size)
		}
		p := h.fill(4096, uint64(size))
		r.write(p, size-4096)
		r.expect(p, size-4096)
		if n, err := r.c.WriteAt(p, size); err == nil && n == 4096 {
			t.Error("a write beyond the new end succeeded")
		}
	}
}

func testReserve(t *testing.T, h *Harness) {
	r := newRig(t, h, Geometry4M, rigArena)
	r.c.Close()
	eventually(t, "an idle device is reserved", func() bool {
		_, err := r.dev.Reserve()
		return err == nil
	})
	if c, err := h.Open(t, r.dev); err == nil {
		c.Close()
		t.Error("a reserved device was opened")
	}
	r.dev.Release()
	r.c = r.open()
	r.write(h.fill(512, 1), 0)
	r.c.Close()
	eventually(t, "it is reserved again", func() bool {
		_, err := r.dev.Reserve()
		return err == nil
	})
	within(t, "detaching", func() {
		if err := r.dev.Detach(); err != nil {
			t.Error(err)
		}
	})
}

func testReserveInUse(t *testing.T, h *Harness) {
	r := newRig(t, h, Geometry4M, rigArena)
	users, err := r.dev.Reserve()
	if !errors.Is(err, device.ErrInUse) {
		t.Fatalf("a device that is open was reserved: %v, %v", users, err)
	}
	if len(users) == 0 {
		t.Fatal("nobody is named as its user")
	}
	t.Log(users)
	p := h.fill(4096, 1)
	r.write(p, 0)
	r.expect(p, 0)
}

func testTwoDisks(t *testing.T, h *Harness) {
	b := h.New(t)
	var rigs [2]*rig
	for i := range rigs {
		r := &rig{t: t, h: h, disk: CheckedDisk(t, Geometry4M, rigArena)}
		r.dev = attach(t, b, r.disk, device.Name{Session: 1, LUN: uint64(i), Target: "iqn.x"})
		r.c = r.open()
		r.write(h.fill(4096, uint64(i)), 0)
		rigs[i] = r
	}
	if rigs[0].dev.Path() == rigs[1].dev.Path() {
		t.Fatalf("both are %s", rigs[0].dev.Path())
	}
	for i, r := range rigs {
		r.expect(h.fill(4096, uint64(i)), 0)
	}
}

func testAttachAgain(t *testing.T, h *Harness) {
	b := h.New(t)
	for i := range 3 {
		r := &rig{t: t, h: h, disk: CheckedDisk(t, Geometry4M, rigArena)}
		r.dev = attach(t, b, r.disk, rigName)
		r.c = r.open()
		r.write(h.fill(4096, uint64(i)), 0)
		r.expect(h.fill(4096, uint64(i)), 0)
		r.c.Close()
		within(t, "detaching", func() {
			if err := r.dev.Detach(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func testAttachTwice(t *testing.T, h *Harness) {
	disk := CheckedDisk(t, Geometry4M, rigArena)
	b := h.New(t)
	attach(t, b, disk, rigName)
	if dev, err := b.Attach(t.Context(), disk, rigName); err == nil {
		dev.Detach()
		t.Error("the same LUN was attached twice")
	}
}

// testManyOutstanding has many goroutines at work on ranges of their own, on a
// disk that completes in any order.
func testManyOutstanding(t *testing.T, h *Harness) {
	geo := Geometry4M
	geo.Size = 32 << 20
	r := newRig(t, h, geo, rigArena)
	const seed = 20260101
	t.Logf("seed %d", seed)
	r.disk.Shuffle(seed)
	hammer(t, r, 64, 40, seed)
}

// testLittleMemory is the same with an arena for a few requests only.
func testLittleMemory(t *testing.T, h *Harness) {
	geo := Geometry4M
	geo.Size = 32 << 20
	r := newRig(t, h, geo, 512<<10)
	hammer(t, r, 16, 20, 3)
}

// hammer writes and reads with a number of workers, each of which checks what
// it wrote last.
func hammer(t *testing.T, r *rig, workers, rounds int, seed uint64) {
	var wg sync.WaitGroup
	share := r.disk.Geometry().Size / int64(workers)
	for w := range workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(w)))
			for i := range rounds {
				n := (1 + rng.IntN(64)) * 512
				off := int64(w)*share + rng.Int64N((share-int64(n))/512)*512
				p := r.h.fill(n, rng.Uint64())
				got := r.h.Alloc(n)
				if _, err := r.c.WriteAt(p, off); err != nil {
					t.Errorf("worker %d, round %d: write: %v", w, i, err)
					return
				}
				if _, err := r.c.ReadAt(got, off); err != nil {
					t.Errorf("worker %d, round %d: read: %v", w, i, err)
					return
				}
				if !bytes.Equal(got, p) {
					t.Errorf("worker %d, round %d: %d bytes at %d differ", w, i, n, off)
					return
				}
			}
		})
	}
	within(t, "the load", wg.Wait)
}

// testDetachUnderLoad takes the device away from clients that are at work, with
// requests at the disk that complete later.
func testDetachUnderLoad(t *testing.T, h *Harness) {
	r := newRig(t, h, Geometry4M, rigArena)
	stop, workers := r.load(8)
	eventually(t, "requests come", func() bool { return r.disk.Count(device.Write) > 50 })
	r.disk.Hold()
	eventually(t, "requests wait", func() bool { return r.disk.Held() > 0 })
	detached := make(chan error, 1)
	go func() { detached <- r.dev.Detach() }()
	time.AfterFunc(20*time.Millisecond, func() { r.disk.Resume(0) })
	within(t, "detaching", func() { t.Log("detached:", <-detached) })
	close(stop)
	r.c.Close()
	within(t, "the clients' end", workers.Wait)
}

// testDetachFailedDisk is the same with a disk that fails all that it had.
func testDetachFailedDisk(t *testing.T, h *Harness) {
	r := newRig(t, h, Geometry4M, rigArena)
	stop, workers := r.load(8)
	eventually(t, "requests come", func() bool { return r.disk.Count(device.Write) > 50 })
	r.disk.Hold()
	eventually(t, "requests wait", func() bool { return r.disk.Held() > 0 })
	r.disk.SetErrors(func(*device.Request) syscall.Errno { return syscall.EIO })
	r.disk.Resume(syscall.EIO)
	within(t, "detaching", func() { t.Log("detached:", r.dev.Detach()) })
	close(stop)
	r.c.Close()
	within(t, "the clients' end", workers.Wait)
}

// load writes with a number of workers until stop or an error.
func (r *rig) load(workers int) (stop chan struct{}, wg *sync.WaitGroup) {
	stop, wg = make(chan struct{}), new(sync.WaitGroup)
	for w := range workers {
		wg.Go(func() {
			p := r.h.fill(16<<10, uint64(w))
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := r.c.WriteAt(p, int64(w)*64<<10); err != nil {
					return
				}
			}
		})
	}
	return stop, wg
}

func testCleanNothing(t *testing.T, h *Harness) {
	b := h.New(t)
	if err := b.Probe(); err != nil {
		t.Fatal(err)
	}
	if lines := b.Clean(); len(lines) != 0 {
		t.Errorf("cleaned %q", lines)
	}
	r := &rig{t: t, h: h, disk: CheckedDisk(t, Geometry4M, rigArena)}
	r.dev = attach(t, b, r.disk, rigName)
	if lines := b.Clean(); len(lines) != 0 {
		t.Errorf("cleaned what is in use: %q", lines)
	}
	r.c = r.open()
	r.write(h.fill(512, 1), 0)
}
