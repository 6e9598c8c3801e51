package devicetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"iscsictl/device"
)

// patience is how long a test waits for what has to happen.
const patience = 2 * time.Minute

// Client is a user of a device. Its methods may be called by several
// goroutines. Errors are, or wrap, a syscall.Errno.
type Client interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	WriteFUA(p []byte, off int64) error
	Flush() error
	Discard(off, n int64) error
	WriteZeroes(off, n int64) error
	Size() (int64, error)
	Close() error
}

// Harness is what the suite needs to know of a back-end.
type Harness struct {
	// New makes the back-end, in a directory of its own.
	New func(t *testing.T) device.Backend
	// Open opens the device that Device.Path names, so that Device.Reserve
	// has to notice it. One client at a time is open.
	Open func(t *testing.T, d device.Device) (Client, error)
	// Alloc makes a buffer that the client can read and write.
	Alloc func(n int) []byte
	// SeesResize is set where an open device changes its size.
	SeesResize bool
	// ZeroesOnly is set where discards reach the disk as WriteZeroes.
	ZeroesOnly bool
}

// Tests are the suite, by name.
var Tests = map[string]func(t *testing.T, h *Harness){
	"ReadWrite":        testReadWrite,
	"LargeRequests":    testLargeRequests,
	"SmallTransfers":   testSmallTransfers,
	"Block4096":        testBlock4096,
	"Flush":            testFlush,
	"FUA":              testFUA,
	"FUAByFlush":       testFUAByFlush,
	"Discard":          testDiscard,
	"WriteZeroes":      testWriteZeroes,
	"Errors":           testErrors,
	"Unaligned":        testUnaligned,
	"BeyondEnd":        testBeyondEnd,
	"ReadOnly":         testReadOnly,
	"Resize":           testResize,
	"Reserve":          testReserve,
	"ReserveInUse":     testReserveInUse,
	"TwoDisks":         testTwoDisks,
	"AttachAgain":      testAttachAgain,
	"AttachTwice":      testAttachTwice,
	"ManyOutstanding":  testManyOutstanding,
	"LittleMemory":     testLittleMemory,
	"DetachUnderLoad":  testDetachUnderLoad,
	"DetachFailedDisk": testDetachFailedDisk,
	"CleanNothing":     testCleanNothing,
}

// Run runs the suite.
func Run(t *testing.T, h *Harness) {
	for name, f := range Tests {
		t.Run(name, func(t *testing.T) { f(t, h) })
	}
}

// rig is a disk that is attached and opened.
type rig struct {
	t    *testing.T
	h    *Harness
	disk *Disk
	dev  device.Device
	c    Client
}

var rigName = device.Name{Session: 7, LUN: 3, Target: "iqn.2012-06.example:disk", Serial: "S 1"}

const rigArena = 16 << 20

func newRig(t *testing.T, h *Harness, geo device.Geometry, arenaSize int) *rig {
	t.Helper()
	r := &rig{t: t, h: h, disk: CheckedDisk(t, geo, arenaSize)}
	r.dev = attach(t, h.New(t), r.disk, rigName)
	r.c = r.open()
	return r
}

// attach attaches a disk for the time of the test.
func attach(t *testing.T, b device.Backend, disk *Disk, name device.Name) device.Device {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	dev, err := b.Attach(ctx, disk, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { within(t, "detaching", func() { dev.Detach() }) })
	return dev
}

// open opens the device for the time of the test.
func (r *rig) open() Client {
	r.t.Helper()
	c, err := r.h.Open(r.t, r.dev)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

// within fails the test, with all goroutines, where f takes too long.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(patience):
		panic(fmt.Sprintf("%s: %s takes longer than %v", t.Name(), what, patience))
	}
}

// eventually waits until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not so after %v", what, patience)
		}
	}
}

// fill makes a buffer of n bytes that seed determines.
func (h *Harness) fill(n int, seed uint64) []byte {
	p := h.Alloc(n)
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	rand.NewChaCha8(key).Read(p)
	return p
}

func (r *rig) write(p []byte, off int64) {
	r.t.Helper()
	if _, err := r.c.WriteAt(p, off); err != nil {
		r.t.Fatalf("writing %d bytes at %d: %v", len(p), off, err)
	}
}

// expect reads at off and compares, on the device and on the disk below.
func (r *rig) expect(want []byte, off int64) {
	r.t.Helper()
	got := r.h.Alloc(len(want))
	if _, err := r.c.ReadAt(got, off); err != nil {
		r.t.Fatalf("reading %d bytes at %d: %v", len(want), off, err)
	}
	if !bytes.Equal(got, want) {
		r.t.Fatalf("%d bytes at %d are not what was written, from byte %d on", len(want), off, differs(got, want))
	}
	below := make([]byte, len(want))
	r.disk.Peek(below, off)
	if !bytes.Equal(below, want) {
		r.t.Fatalf("%d bytes at %d are not on the disk, from byte %d on", len(want), off, differs(below, want))
	}
}

func differs(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

func wantErrno(t *testing.T, what string, err error, want ...syscall.Errno) {
	t.Helper()
	for _, w := range want {
		if errors.Is(err, w) {
			return
		}
	}
	t.Errorf("%s: error %v, want %v", what, err, want)
}
