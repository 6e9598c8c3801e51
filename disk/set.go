package disk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"iscsictl/arena"
	"iscsictl/device"
	"iscsictl/scsi"
	"iscsictl/session"
)

// Nexus is what disks need of a session.
type Nexus interface {
	// Submit hands commands over. It never blocks and does not keep the
	// slice; each command is completed by its Issuer.
	Submit(batch []*session.Command)
	Arena() *arena.Arena
	// MaxTransfer is the most bytes of data that one command should have; 0: any.
	MaxTransfer() int
}

// Events is told of disks that come, change and go, one event at a time and in
// their order, by a goroutine that finds disks and makes them go on: its methods
// must not block, do no I/O on a disk, and not close the Set.
type Events interface {
	DiskAdded(*Disk)
	DiskChanged(*Disk, device.Geometry)
	// DiskRemoved: all requests of the disk have failed or will soon, and
	// so will all that come.
	DiskRemoved(*Disk)
	// Scanned: all logical units were looked at, and those that are disks
	// were told of.
	Scanned()
}

// Config is what a Set is made of.
type Config struct {
	Events Events
	Select func(lun uint64) bool // which logical units may be disks, asked at each scan; nil: all
	Log    *slog.Logger
	Random func() float64 // in [0, 1); nil: math/rand
}

// Set is all disks of one session. It implements session.Handler.
type Set struct {
	events Events
	choose func(lun uint64) bool
	log    *slog.Logger
	random func() float64
	base   time.Time

	nexus   Nexus        // from Bind on
	zeroes  arena.Extent // a block of zeroes; nobody writes to it
	listBuf *caller      // for REPORT LUNS
	lanes   []*caller

	mu      sync.Mutex
	idle    sync.Cond // working has become false
	closed  bool
	up      uint64 // number of the nexus, or 0
	ctx     context.Context
	cancel  context.CancelFunc
	working bool    // the worker runs
	scan    bool    // a scan is to be made
	checks  []*Disk // to be checked
	waiters []chan error
	later   *time.Timer // nil: none set
	delay   time.Duration
	disks   map[uint64]*Disk // by LUN as people write it
	past    Stats            // of disks that are gone
	notes   []string
	scanned bool
}

// Memory of the background, in bytes.
const (
	laneCount = 8
	listAlloc = 16 << 10 // 2047 logical units
	minArena  = 256 << 10
)

// New makes a Set. It is to be bound to its session before that is started.
func New(cfg Config) *Set {
	s := &Set{
		events: cfg.Events, choose: cfg.Select, log: cfg.Log, random: cfg.Random,
		base: time.Now(), disks: map[uint64]*Disk{},
	}
	if s.choose == nil {
		s.choose = func(uint64) bool { return true }
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.random == nil {
		s.random = rand.Float64
	}
	s.idle.L = &s.mu
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.cancel()
	return s
}

// Bind tells the Set its session, and takes the memory that the Set needs, so
// that disks can be looked at even when requests hold all the rest.
func (s *Set) Bind(n Nexus) error {
	a := n.Arena()
	if a.Size() < minArena {
		return fmt.Errorf("disk: an arena of %d bytes is smaller than %d", a.Size(), minArena)
	}
	sizes := []int{listAlloc, arena.PageSize}
	for range laneCount {
		sizes = append(sizes, probeBuffer)
	}
	var got []arena.Extent
	for _, size := range sizes {
		e, ok := a.Alloc(size)
		if !ok {
			for _, e := range got {
				e.Free()
			}
			return fmt.Errorf("disk: the arena has no %d bytes free", size)
		}
		got = append(got, e)
	}
	s.nexus = n
	s.listBuf, s.zeroes = newCaller(s, got[0]), got[1]
	clear(s.zeroes.Bytes())
	for _, e := range got[2:] {
		s.lanes = append(s.lanes, newCaller(s, e))
	}
	return nil
}

// Up implements session.Handler: the disks that are known are looked at and go
// on, and others are looked for.
func (s *Set) Up(nexus uint64) {
	for _, d := range s.Disks() {
		d.hold(nexus)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.up, s.delay = nexus, 0
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.scan = true
	s.work()
}

// Down implements session.Handler: requests are held from now on.
func (s *Set) Down(err error) {
	s.mu.Lock()
	s.stop()
	s.mu.Unlock()
	for _, d := range s.Disks() {
		d.hold(0)
	}
}

// stop ends what goes on in the background.
func (s *Set) stop() {
	s.up = 0
	s.cancel()
	s.scan, s.checks, s.scanned = false, nil, false
	if s.later != nil {
		s.later.Stop()
		s.later = nil
	}
	for _, w := range s.waiters {
		w <- session.ErrNexusLost
	}
	s.waiters = nil
	for _, d := range s.disks {
		d.asked = false
	}
}

// Async implements session.Handler.
func (s *Set) Async(lun uint64, sense []byte) {
	n := scsi.LUN(lun).Number()
	x, ok := scsi.ParseSense(sense)
	if !ok {
		s.log.Warn("asynchronous message without sense data ignored", "lun", n)
		return
	}
	s.log.Info("asynchronous message: "+x.String(), "lun", n)
	v := attend(verdict{}, x.Code)
	s.mu.Lock()
	d := s.disks[n]
	s.mu.Unlock()
	if x.Code == scsi.CodeLUNsChanged || d == nil {
		v.want |= wantScan
	}
	s.ask(d, v.want)
}

// Disks returns the disks that are known, by their LUNs.
func (s *Set) Disks() []*Disk {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sorted()
}

// sorted is Disks with the lock held.
func (s *Set) sorted() []*Disk {
	list := make([]*Disk, 0, len(s.disks))
	for _, d := range s.disks {
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b *Disk) int { return cmp.Compare(a.LUN(), b.LUN()) })
	return list
}

// Notes says why logical units are not shown as disks, a line each, as of the
// last scan.
func (s *Set) Notes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.notes)
}

// Scanned reports whether a scan has come to its end since the nexus is up.
func (s *Set) Scanned() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.scanned
}

// Stats returns the sum of the counters of all disks, those included that are gone.
func (s *Set) Stats() Stats {
	sum := Stats{}
	for _, d := range s.Disks() {
		sum.Add(d.Stats())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sum.Add(s.past)
	return sum
}

// errNoSession is returned to those who ask for a scan while no session is up.
var errNoSession = errors.New("the session is not connected")

// Rescan looks for disks that have come, changed or gone, and returns when that
// is done.
func (s *Set) Rescan(ctx context.Context) error {
	s.mu.Lock()
	if s.up == 0 {
		s.mu.Unlock()
		return errNoSession
	}
	w := make(chan error, 1)
	s.waiters = append(s.waiters, w)
	s.scan = true
	s.work()
	s.mu.Unlock()
	select {
	case err := <-w:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Fail completes all requests that are held, and all that come until the next
// Up, with EIO: the recovery time-out has passed.
func (s *Set) Fail(err error) {
	for _, d := range s.Disks() {
		if d.held() {
			s.log.Error("I/O is failed from now on", "lun", d.LUN(), "error", err)
			d.fail(failing)
		}
	}
}

// Close fails all requests, and returns when nothing of the arena is in use by
// the Set. It must come after the session's end, which completes all commands.
// No event comes of it.
func (s *Set) Close() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed = true
	s.stop()
	for s.working {
		s.idle.Wait()
	}
	s.mu.Unlock()
	for _, d := range s.Disks() {
		d.fail(gone)
		d.drain()
	}
	if s.nexus != nil {
		s.zeroes.Free()
		s.listBuf.buf.Free()
		for _, c := range s.lanes {
			c.buf.Free()
		}
	}
}

// jitter spreads a time by a quarter to either side.
func (s *Set) jitter(d time.Duration) time.Duration {
	return d*3/4 + time.Duration(s.random()*float64(d)/2)
}
