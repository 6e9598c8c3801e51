package ublk

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"iscsictl/device/block"
)

// Detach is device.Device's. Each step that the disk could keep from ending is
// bounded; after that the host is told that all of its requests fail.
func (d *Device) Detach() error {
	var err error
	d.once.Do(func() {
		if err = d.detach(); err != nil {
			err = fmt.Errorf("ublk: detaching %s: %w", d.Path(), err)
		}
		d.backend.devices.Unclaim(d.name)
	})
	return err
}

func (d *Device) detach() error {
	if !d.exists {
		return nil
	}
	errs := []error{block.Sync(d.Path(), d.backend.step, d.progress, d.fail)}
	stopped := make(chan error, 1)
	go func() { stopped <- plain("STOP_DEV", cmdStopDev, d.id, 0) }()
	err, ended := block.Wait(stopped, d.backend.step)
	if !ended {
		d.fail()
		if err, ended = block.Wait(stopped, d.backend.step); !ended {
			err = errors.New("STOP_DEV does not end")
		}
	}
	errs = append(errs, err)
	d.Release()
	if !ended {
		return errors.Join(errs...) // the queues go on, as long as the driver needs them
	}
	errs = append(errs, d.endQueues())
	d.closeChar()
	errs = append(errs, d.remove())
	return errors.Join(errs...)
}

// progress returns how many requests have been finished.
func (d *Device) progress() (n uint64) {
	for _, q := range d.queues {
		n += q.finished.Load()
	}
	return n
}

// isFailing reports whether fail was called.
func (d *Device) isFailing() bool {
	select {
	case <-d.failing:
		return true
	default:
		return false
	}
}

// fail tells the host that its requests have failed, whatever becomes of them,
// and that those to come do too.
func (d *Device) fail() {
	d.failOnce.Do(func() {
		close(d.failing)
		for _, q := range d.queues {
			q.Wake()
		}
	})
}

// endQueues waits until the queues have ended, of a device that was stopped,
// and until the disk has nothing of them any more.
func (d *Device) endQueues() error {
	end := time.Now().Add(d.backend.step)
	left := 0
	for _, q := range d.queues {
		select {
		case <-q.over:
		case <-time.After(time.Until(end)):
			return fmt.Errorf("the driver does not let go of queue %d", q.id)
		}
	}
	for _, q := range d.queues {
		left += q.drained(time.Until(end))
	}
	if left > 0 {
		return fmt.Errorf("%d requests are still with the disk", left)
	}
	return nil
}

// abandon ends the queues of a device that waits to be taken back, and goes on
// to wait.
func (d *Device) abandon() {
	for _, q := range d.queues {
		q.leaving.Store(true)
		q.Wake()
	}
	for _, q := range d.queues {
		<-q.over
	}
	d.closeChar()
	d.backend.devices.Unclaim(d.name)
}

func (d *Device) closeChar() {
	if d.char >= 0 {
		unix.Close(d.char)
		d.char = -1
	}
}

// remove takes the device away from the driver, which ends when nobody has it
// open any more.
func (d *Device) remove() error {
	removed := make(chan error, 1)
	go func() {
		removed <- plain("DEL_DEV", cmdDelDev, d.id, 0)
		d.backend.devices.Remove(int(d.id))
	}()
	err, ended := block.Wait(removed, d.backend.step/2)
	if !ended {
		return errors.New("still open; it goes away when it is closed")
	}
	return err
}
