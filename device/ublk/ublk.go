package ublk

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"iscsictl/device"
	"iscsictl/device/block"
)

const (
	// defaultDepth is how many requests a queue has under way by default.
	defaultDepth = 128
	// stepTime bounds each step of detaching where it depends on the disk
	// or on those who use the device.
	stepTime = 5 * time.Second
	// requestTimeout is the kernel's time-out of requests, in milliseconds.
	// A request that takes longer goes on. But where a daemon dies with all
	// tags of a queue, the driver notices at a time-out only (so it was
	// until Linux 6.15): with the kernel's 30 s, recovery would take those.
	requestTimeout = "1000"
)

// Options are what can be chosen. The zero Options are good.
type Options struct {
	// Shape is asked for each new device: how many hardware queues it has (0:
	// a few), and how many requests are under way in each (0: 128). May be nil.
	Shape func() (queues, depth int)
	// Log is told of what ends a device without being asked; may be nil.
	Log *slog.Logger
}

// Backend is the back-end "ublk".
type Backend struct {
	shape func() (queues, depth int)
	log   *slog.Logger
	step  time.Duration // stepTime, but in tests

	announce func(name device.Name, path string)

	devices block.Registry
}

// New makes the back-end.
func New(o Options) *Backend {
	b := &Backend{shape: o.Shape, log: o.Log, step: stepTime}
	if b.shape == nil {
		b.shape = func() (int, int) { return 0, 0 }
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	return b
}

// size returns the number of queues of a new device, and their depth.
func (b *Backend) size() (queues, depth int) {
	queues, depth = b.shape()
	if queues <= 0 {
		// One nexus serves all: more queues do little but to copy side by side.
		queues = max(1, min(runtime.NumCPU()/2, 4))
	}
	if depth <= 0 {
		depth = defaultDepth
	}
	return min(queues, maxQueues), min(depth, maxDepth)
}

// Announce is device.Announcer's. It is to be called before Attach.
func (b *Backend) Announce(f func(name device.Name, path string)) { b.announce = f }

// Name is device.Backend's.
func (b *Backend) Name() string { return "ublk" }

// Probe is device.Backend's. It loads the driver where that is a module.
func (b *Backend) Probe() error {
	_, err := probe()
	return err
}

// ownerMagic is the upper half of the owner of our devices, the part of a
// device's properties that the driver keeps for its server.
const ownerMagic = 0x69736364 // "iscd"

// owner makes the property by which a device is known to be of a logical unit.
func owner(name device.Name) uint64 {
	h := fnv.New32a()
	fmt.Fprintf(h, "%s\n%d", name.Target, name.LUN)
	return ownerMagic<<32 | uint64(h.Sum32())
}

// Attach is device.Backend's. Where ctx ends first, such as when the disk does
// not answer the kernel's search for partitions, all is taken back.
func (b *Backend) Attach(ctx context.Context, disk device.Disk, name device.Name) (device.Device, error) {
	geo := disk.Geometry()
	if err := check(geo, disk.Arena()); err != nil {
		return nil, err
	}
	offered, err := probe()
	if err != nil {
		return nil, err
	}
	if err := b.devices.Claim(name); err != nil {
		return nil, fmt.Errorf("ublk: %w", err)
	}
	d := newDevice(b, disk, name)
	if err := d.create(ctx, geo, offered); err != nil {
		d.Detach()
		return nil, fmt.Errorf("ublk: %w", err)
	}
	return d, nil
}

// create makes a new device of the driver's.
func (d *Device) create(ctx context.Context, geo device.Geometry, offered uint64) error {
	p := makeParams(geo, d.disk.Arena().Size())
	queues, depth := d.backend.size()
	info := devInfo{
		queues: uint16(queues), depth: uint16(depth), devID: noID,
		maxIO: uint32(p.whole()), owner: owner(d.name),
		flags: offered & (featUserCopy | featIoctlEncode | featUserRecovery | featReissue | featUpdateSize),
	}
	if err := exchange("ADD_DEV", cmdAddDev, noID, &info); err != nil {
		return err
	}
	d.id, d.exists, d.flags = info.devID, true, info.flags
	d.backend.devices.Add(int(d.id))
	if d.backend.announce != nil {
		d.backend.announce(d.name, d.Path())
	}
	if err := exchange("SET_PARAMS", cmdSetParams, d.id, &p); err != nil {
		return err
	}
	d.take(p, geo)
	if err := d.openChar(ctx); err != nil {
		return err
	}
	if err := d.startQueues(int(info.queues), int(info.depth)); err != nil {
		return err
	}
	return d.start(ctx)
}

// start has the driver make the block device, and returns when the kernel has
// looked for partitions on it: when the disk answered.
func (d *Device) start(ctx context.Context) error {
	started := make(chan error, 1)
	go func() { started <- plain("START_DEV", cmdStartDev, d.id, uint64(os.Getpid())) }()
	select {
	case err := <-started:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		d.fail() // ends the search
		if _, ended := block.Wait(started, d.backend.step); !ended {
			return fmt.Errorf("START_DEV does not end: %w", ctx.Err())
		}
		return fmt.Errorf("the disk does not answer: %w", ctx.Err())
	}
	if err := block.Await(ctx, block.Node(d.Path())); err != nil {
		return err
	}
	d.tune()
	return nil
}

// openChar opens /dev/ublkcN.
func (d *Device) openChar(ctx context.Context) error {
	path := fmt.Sprintf("/dev/ublkc%d", d.id)
	if err := block.Await(ctx, path); err != nil {
		return err
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	d.char = fd
	return nil
}

// startQueues starts the queues, and returns when the driver has all tags.
func (d *Device) startQueues(n, depth int) error {
	started := make(chan error, n)
	for id := range n {
		q := newQueue(d, id, depth)
		d.queues = append(d.queues, q)
		go q.run(started)
	}
	var errs []error
	for range n {
		errs = append(errs, <-started)
	}
	return errors.Join(errs...)
}

// tune sets what the driver cannot know. It may fail.
func (d *Device) tune() {
	err := block.SetProperties(d.Path(), map[string]string{"queue/io_timeout": requestTimeout})
	if err != nil {
		d.log.Warn(err.Error())
	}
}
