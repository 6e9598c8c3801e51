package e2e

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"iscsictl/test/ledger"
	"iscsictl/test/nbdclient"
)

// host is one who uses a disk of a campaign, by one request at a time.
type host struct {
	c      *campaign
	disk   *campaignTarget
	number int
	rng    *rand.Rand
	dev    blockDevice // nil: not open
	opened time.Time
	memory []byte

	done   atomic.Int64 // requests that were answered
	failed atomic.Int64 // with an error that is excused
	doing  atomic.Value // string
}

// blockDevice is a disk as a host has it.
type blockDevice interface {
	ReadAt(p []byte, off int64) error
	WriteAt(p []byte, off int64) error
	Flush() error
	Close() error
}

// kernelDevice is a block device, used past the cache.
type kernelDevice struct{ f *os.File }

func (d kernelDevice) ReadAt(p []byte, off int64) error {
	_, err := d.f.ReadAt(p, off)
	return err
}

func (d kernelDevice) WriteAt(p []byte, off int64) error {
	_, err := d.f.WriteAt(p, off)
	return err
}
func (d kernelDevice) Flush() error { return d.f.Sync() }
func (d kernelDevice) Close() error { return d.f.Close() }

func (h *host) open() (err error) {
	h.opened = time.Now()
	if isBlock(h.disk.path) {
		f, err := os.OpenFile(h.disk.path, os.O_RDWR|syscall.O_DIRECT, 0)
		if err != nil {
			return err
		}
		h.dev = kernelDevice{f}
		return nil
	}
	c, err := nbdclient.Dial(h.disk.path)
	if err != nil {
		return err
	}
	h.dev = c
	return nil
}

func (h *host) close() {
	if h.dev != nil {
		_ = h.dev.Close()
		h.dev = nil
	}
}

func (h *host) buffer(n int) []byte {
	if h.memory == nil {
		h.memory = mmap(h.c.t, campaignZone)
	}
	return h.memory[:n]
}

// work makes requests until the campaign is over.
func (h *host) work() {
	defer h.close()
	for !h.c.ended() {
		if h.dev == nil {
			h.doing.Store("opens " + h.disk.path)
			// A new daemon makes the socket when its session is up.
			if err := h.open(); err != nil {
				h.doing.Store(err.Error())
				time.Sleep(poll)
				continue
			}
		}
		h.request()
		time.Sleep(time.Duration(h.rng.IntN(4)) * time.Millisecond)
	}
}

// place picks sectors of a zone that is this host's.
func (h *host) place() (off int64, n int) {
	zones := campaignDisk / campaignZone / campaignHosts
	zone := h.rng.IntN(zones)*campaignHosts + h.number
	sectors := campaignZone / ledger.SectorSize
	switch h.rng.IntN(8) {
	case 0:
		n = 1 + h.rng.IntN(sectors)
	case 1, 2:
		n = 1
	default:
		n = 1 + h.rng.IntN(32)
	}
	return int64(zone)*campaignZone + int64(h.rng.IntN(sectors-n+1))*ledger.SectorSize, n * ledger.SectorSize
}

// request makes one, and sees to what becomes of it.
func (h *host) request() {
	begun := time.Now()
	off, n := h.place()
	p := h.buffer(n)
	var err error
	switch x := h.rng.IntN(20); {
	case x == 0:
		h.doing.Store("flushes")
		err = h.dev.Flush()
	case x < 8:
		h.doing.Store("reads")
		for i := range p {
			p[i] = 0xa5 // nothing of it may be left
		}
		if err = h.dev.ReadAt(p, off); err == nil {
			if wrong := h.disk.Check(p, off); wrong != nil {
				h.c.broken("LUN %d, host %d, read of %d bytes at %d: %v", h.disk.lun, h.number, n, off, wrong)
			}
		}
	default:
		h.doing.Store("writes")
		generation := h.disk.Fill(p, off)
		if err = h.dev.WriteAt(p, off); err == nil {
			h.disk.Wrote(off, n, generation)
		} else {
			h.disk.Unknown(off, n, generation)
		}
	}
	if err != nil {
		h.failure(err, begun)
		return
	}
	h.done.Add(1)
}

// failure judges a request that was not answered well.
func (h *host) failure(err error, begun time.Time) {
	var lost *net.OpError
	switch {
	case errors.As(err, &lost), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		// The daemon's socket has gone, which it does with the daemon only.
		if !h.c.gone.excuses(h.opened) {
			h.c.broken("LUN %d, host %d: %v, though the daemon is there", h.disk.lun, h.number, err)
		}
		h.close()
	case h.c.failing.excuses(begun):
		h.failed.Add(1)
		h.c.note("LUN %d, host %d: failed, as it should: %v", h.disk.lun, h.number, err)
		time.Sleep(poll)
	default:
		h.c.broken("LUN %d, host %d: %v after %.1f s, though nothing excuses it", h.disk.lun, h.number, err, time.Since(begun).Seconds())
	}
}
