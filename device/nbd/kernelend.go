package nbd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"iscsictl/device"
	"iscsictl/device/block"
)

// Detach is device.Device's. Each step that the disk could keep from ending is
// bounded; after that the host is told that all of its requests fail.
func (d *kernelDevice) Detach() error {
	var err error
	d.once.Do(func() {
		if d.index >= 0 {
			if err = d.detach(); err != nil {
				err = fmt.Errorf("nbd: detaching %s: %w", d.Path(), err)
			}
		}
		d.backend.devices.Unclaim(d.name)
	})
	return err
}

func (d *kernelDevice) detach() error {
	var errs []error
	cut := func() { errs = append(errs, disconnect(d.index)) }
	if d.whole {
		errs = append(errs, block.Sync(d.Path(), d.backend.step, d.progress, func() {}))
	}
	d.leave()
	over := make(chan error, 1)
	if d.export.Outstanding() > 0 { // what the disk has is replied to
		go func() { d.export.Close(); over <- nil }()
		block.Wait(over, d.backend.step)
		cut()
	} else {
		cut() // the driver says its goodbyes
		go func() { d.export.Close(); over <- nil }()
	}
	restore(d.Path()) // now that it cannot wait for the disk
	d.Release()
	if _, ended := block.Wait(d.over(), d.backend.step); !ended {
		errs = append(errs, fmt.Errorf("%d requests are still with the disk", d.export.Outstanding()))
	}
	errs = append(errs, awaitEnd(d.index, d.backend.step/2))
	if d.mark != nil {
		d.mark.Close()
	}
	d.backend.devices.Remove(d.index)
	return errors.Join(errs...)
}

// over tells when nothing is served any more.
func (d *kernelDevice) over() <-chan error {
	over := make(chan error, 1)
	go func() {
		if d.served != nil {
			<-d.served
		}
		over <- nil
	}()
	return over
}

// awaitEnd waits until a device that was disconnected is free.
func awaitEnd(index int, limit time.Duration) error {
	for end := time.Now().Add(limit); block.Property(pathOf(index), "backend") != ""; time.Sleep(retryTime) {
		if time.Now().After(end) {
			return errors.New("still open; it goes away when it is closed")
		}
	}
	return nil
}

// Recover is device.Recoverer's.
func (k *Kernel) Recover(ctx context.Context, path string, disk device.Disk, name device.Name) (device.Device, error) {
	index, err := numberOf(path)
	if err != nil {
		return nil, err
	}
	d, err := k.newDevice(disk, name)
	if err != nil {
		return nil, err
	}
	d.index = index
	if err := d.takeBack(ctx); err != nil {
		k.devices.Unclaim(name)
		return nil, fmt.Errorf("nbd: taking back %s: %w", path, err)
	}
	return d, nil
}

// takeBack gives the driver a connection to this process. It sends what was
// under way again within requestTimeout; nothing of it may be under way at the
// disk any more.
func (d *kernelDevice) takeBack(ctx context.Context) error {
	blockSize := block.Property(d.Path(), "queue/logical_block_size")
	switch l := d.export.limits.Load(); {
	case d.backend.devices.Has(d.index):
		return errors.New("it is in service")
	case !d.ours():
		return fmt.Errorf("it is not LUN %d of %s", d.name.LUN, d.name.Target)
	case blockSize != fmt.Sprint(l.LogicalBlock):
		return fmt.Errorf("the disk has now a logical block of %d bytes instead of %s", l.LogicalBlock, blockSize)
	}
	nc, err := d.reconnect(ctx)
	if err != nil {
		return err
	}
	d.backend.devices.Add(d.index)
	d.whole = true
	d.begin(nc)
	return nil
}

// Waiting is device.Recoverer's.
func (k *Kernel) Waiting() (paths []string) {
	for _, index := range k.foreign() {
		if !isServed(index) {
			paths = append(paths, pathOf(index))
		}
	}
	return paths
}

// Left is device.Recoverer's.
func (k *Kernel) Left(path string, name device.Name) bool {
	index, err := numberOf(path)
	return err == nil && !k.devices.Has(index) && block.Property(path, "backend") == owner(name)
}

// Discard is device.Recoverer's.
func (k *Kernel) Discard(path string) error {
	index, err := numberOf(path)
	if err != nil {
		return err
	}
	if !slices.Contains(k.Waiting(), path) {
		return fmt.Errorf("nbd: no device %s waits to be taken back", path)
	}
	if err := disconnect(index); err != nil {
		return fmt.Errorf("nbd: removing %s: %w", path, err)
	}
	restore(path)
	if err := awaitEnd(index, k.step/2); err != nil {
		return fmt.Errorf("nbd: removing %s: %w", path, err)
	}
	return nil
}

var _ device.Recoverer = (*Kernel)(nil)
