package nbd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"iscsictl/device"
	"iscsictl/device/block"
)

// retryTime is between two attempts at what will soon be possible.
const retryTime = 10 * time.Millisecond

// kernelDevice is a disk with its device of the kernel's driver.
type kernelDevice struct {
	backend *Kernel
	log     *slog.Logger
	disk    device.Disk
	name    device.Name
	export  *Export
	index   int  // N of /dev/nbdN, or -1
	whole   bool // it was attached or taken back
	mark    net.Listener

	staying context.Context // ended: the device goes
	leave   func()
	served  chan struct{} // closed: nothing is served any more; nil: nothing was
	once    sync.Once     // detaching

	telling sync.Mutex // the host, of changes

	mu        sync.Mutex
	nc        net.Conn
	exclusive int // descriptor of Reserve, or -1
}

func (k *Kernel) newDevice(disk device.Disk, name device.Name) (*kernelDevice, error) {
	e, err := NewExport(disk, name.Target, "")
	if err != nil {
		return nil, err
	}
	if err := k.Probe(); err != nil {
		return nil, err
	}
	if err := k.devices.Claim(name); err != nil {
		return nil, fmt.Errorf("nbd: %w", err)
	}
	d := &kernelDevice{backend: k, log: k.log, disk: disk, name: name, export: e, index: -1, exclusive: -1}
	d.staying, d.leave = context.WithCancel(context.Background())
	return d, nil
}

// create makes a new device of the driver's.
func (d *kernelDevice) create(ctx context.Context) error {
	nc, fd, err := connection()
	if err != nil {
		return err
	}
	l := d.export.limits.Load()
	d.index, err = connect(
		number64(attrSize, uint64(l.Size)), number64(attrBlockSize, uint64(l.LogicalBlock)),
		number64(attrServerFlags, uint64(d.export.Flags())), number64(attrDeadTimeout, deadTime),
		text(attrIdentifier, owner(d.name)), sockets(fd))
	unix.Close(fd)
	if err != nil {
		nc.Close()
		return err
	}
	d.backend.devices.Add(d.index)
	d.begin(nc)
	if !d.ours() {
		return errors.New("this kernel's NBD driver is too old (needs NBD_ATTR_BACKEND_IDENTIFIER: Linux 5.14)")
	}
	return d.look(ctx)
}

// ours reports whether the driver has the device as we have made it.
func (d *kernelDevice) ours() bool { return block.Property(d.Path(), "backend") == owner(d.name) }

// look tells the host what the driver does not know, and opens the device once,
// for the kernel to look for partitions. Either can wait for the disk.
func (d *kernelDevice) look(ctx context.Context) error {
	if err := block.Await(ctx, block.Node(d.Path())); err != nil {
		return err
	}
	looked := make(chan error, 1)
	go func() {
		if err := tune(d.Path(), d.export.limits.Load()); err != nil {
			d.log.Warn(fmt.Sprintf("%s: %v", d.Path(), err))
		}
		fd, err := unix.Open(block.Node(d.Path()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Close(fd)
		}
		looked <- err
	}()
	select {
	case err := <-looked:
		return err
	case <-ctx.Done():
		return fmt.Errorf("the disk does not answer: %w", ctx.Err())
	}
}

// begin serves the device at a connection that the driver has.
func (d *kernelDevice) begin(nc net.Conn) {
	d.mark = markServed(d.index)
	d.served = make(chan struct{})
	d.setConn(nc)
	go d.serve(nc)
}

func (d *kernelDevice) setConn(nc net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.nc = nc
}

// serve serves one connection after the other. There is a second one only if
// the driver, or somebody by the driver, has ended the first.
func (d *kernelDevice) serve(nc net.Conn) {
	defer close(d.served)
	for {
		// It returns when the disk has done all that came: what the
		// driver sends again then is under way nowhere else.
		err := d.export.ServeTransmission(nc)
		if d.staying.Err() != nil {
			return
		}
		d.log.Warn(fmt.Sprintf("%s: the kernel has ended the connection (%v)", d.Path(), err))
		if nc, err = d.reconnect(d.staying); err != nil {
			if d.staying.Err() == nil {
				d.log.Error(fmt.Sprintf("%s is served no more: %v; remove the session and add it", d.Path(), err))
			}
			return
		}
		d.setConn(nc)
	}
}

// reconnect gives the driver a new connection in place of one that has ended,
// once the driver has noticed that.
func (d *kernelDevice) reconnect(ctx context.Context) (net.Conn, error) {
	for {
		nc, fd, err := connection()
		if err != nil {
			return nil, err
		}
		_, err = driver(driverReconfigure, number32(attrIndex, d.index), text(attrIdentifier, owner(d.name)),
			number64(attrDeadTimeout, deadTime), sockets(fd))
		unix.Close(fd)
		if err == nil && !left(nc) {
			return nc, nil
		}
		// Where nothing is to be replaced, the driver says that all is
		// well, and does not keep what it was given.
		nc.Close()
		if err != nil {
			return nil, fmt.Errorf("RECONFIGURE: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("it is served by somebody else: %w", ctx.Err())
		case <-time.After(retryTime):
		}
	}
}

// Path is device.Device's: "nbd0".
func (d *kernelDevice) Path() string { return pathOf(d.index) }

// Outlives is device.Device's.
func (d *kernelDevice) Outlives() bool { return true }

// Update is device.Device's.
func (d *kernelDevice) Update(g device.Geometry) error {
	l := d.export.limits.Load()
	if g.LogicalBlock != l.LogicalBlock {
		return fmt.Errorf("nbd: %s: a logical block of %d bytes instead of %d needs the session to be removed and added", d.Path(), g.LogicalBlock, l.LogicalBlock)
	}
	if err := d.export.Update(g); err != nil {
		return err
	}
	told := make(chan error, 1)
	go func() {
		d.telling.Lock()
		defer d.telling.Unlock()
		told <- errors.Join(d.resize(g.Size), tune(d.Path(), d.export.limits.Load()), block.SetReadOnly(d.Path(), g.ReadOnly))
	}()
	err, ended := block.Wait(told, d.backend.step)
	switch {
	case !ended: // the kernel lets what is under way end first
		return fmt.Errorf("nbd: the host is told of what has changed of %s when the disk has answered what is under way", d.Path())
	case err != nil:
		return fmt.Errorf("nbd: %s: %w", d.Path(), err)
	}
	return nil
}

// resize tells the host of a size.
func (d *kernelDevice) resize(size int64) error {
	if block.Property(d.Path(), "size") == strconv.FormatInt(size>>9, 10) {
		return nil
	}
	_, err := driver(driverReconfigure, number32(attrIndex, d.index), text(attrIdentifier, owner(d.name)), number64(attrSize, uint64(size)))
	if err != nil {
		return fmt.Errorf("a size of %d bytes: RECONFIGURE: %w", size, err)
	}
	return nil
}

// Reserve is device.Device's.
func (d *kernelDevice) Reserve() (found []device.User, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.exclusive >= 0 {
		return nil, nil
	}
	if d.exclusive, found, err = block.Reserve(d.Path(), descriptor(d.nc)); err != nil {
		return found, fmt.Errorf("nbd: %s: %w", d.Path(), err)
	}
	return nil, nil
}

// Release is device.Device's.
func (d *kernelDevice) Release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.exclusive >= 0 {
		unix.Close(d.exclusive)
		d.exclusive = -1
	}
}

// progress returns how many requests of the host have been finished.
func (d *kernelDevice) progress() (n uint64) {
	f := strings.Fields(block.Property(d.Path(), "stat"))
	for _, i := range []int{0, 4, 11, 15} { // reads, writes, discards, flushes
		if i < len(f) {
			done, _ := strconv.ParseUint(f[i], 10, 64)
			n += done
		}
	}
	return n
}
