package main

import (
	"context"
	"errors"
	"fmt"

	"iscsictl/arena"
	"iscsictl/iscsi"
	"iscsictl/scsi"
	"iscsictl/session"
)

const (
	// probeTries is how often a command is sent that meets a unit attention
	// or a busy target.
	probeTries = 16

	inquiryLen  = 96
	capacityLen = 32
	lunListLen  = 64 << 10
)

// unit is a logical unit that is measured.
type unit struct {
	lun         scsi.LUN
	name        string // vendor and product
	blockLength int    // bytes
	blocks      uint64
}

// prober asks a target what it has, one command at a time.
type prober struct {
	ctx context.Context
	n   *nexus
}

// waiter is the issuer of one command that somebody waits for.
type waiter chan struct{}

// Complete implements session.Issuer.
func (w waiter) Complete([]*session.Command) { w <- struct{}{} }

// outcome says how a command ended: nil where it succeeded.
func outcome(c *session.Command) error {
	switch {
	case c.Err != nil:
		return c.Err
	case c.Response != iscsi.ResponseCompleted:
		return fmt.Errorf("target failure (iSCSI response %#x)", c.Response)
	case scsi.Status(c.Status) == scsi.Good:
		return nil
	}
	if sense, ok := scsi.ParseSense(c.Sense[:c.SenseLen]); ok {
		return &senseError{sense}
	}
	return errors.New(scsi.Status(c.Status).String())
}

// senseError is a CHECK CONDITION.
type senseError struct{ scsi.Sense }

func (e *senseError) Error() string { return e.String() }

// passing reports whether a command that ended so may just be sent again.
func passing(c *session.Command, err error) bool {
	if c.Err != nil {
		return false
	}
	if s := scsi.Status(c.Status); s == scsi.Busy || s == scsi.TaskSetFull {
		return true
	}
	var sense *senseError
	return errors.As(err, &sense) && sense.Key == scsi.UnitAttention
}

// ask sends a command and returns the data that came.
func (p prober) ask(lun scsi.LUN, cdb scsi.CDB, length int) ([]byte, error) {
	done := make(waiter, 1)
	c := &session.Command{LUN: uint64(lun), CDB: cdb, Issuer: done}
	if length > 0 {
		var ok bool
		if c.In, ok = p.n.arena.Alloc(length); !ok {
			return nil, arena.ErrClosed
		}
		defer func() { c.In.Free() }()
	}
	for try := 1; ; try++ {
		p.n.session.Submit([]*session.Command{c})
		select {
		case <-done:
		case <-p.ctx.Done():
			p.n.session.Close() // completes the command
			<-done
			return nil, errors.New("interrupted")
		}
		err := outcome(c)
		if err == nil {
			return append([]byte(nil), c.In.Bytes()[:c.Received]...), nil
		}
		if try == probeTries || !passing(c, err) {
			return nil, fmt.Errorf("%v of LUN %v: %w", scsi.Opcode(cdb[0]), lun, err)
		}
	}
}

// units finds the logical units that the options name, or the first disk.
func (p prober) units(o *options) ([]unit, error) {
	var units []unit
	for _, number := range o.luns {
		u, disk, err := p.unit(scsi.LUNOf(number))
		if err == nil && !disk {
			err = fmt.Errorf("LUN %d is not a disk", number)
		}
		if err == nil {
			err = u.check(o.block)
		}
		if err != nil {
			return nil, err
		}
		units = append(units, u)
	}
	if len(units) > 0 {
		return units, nil
	}
	data, err := p.ask(0, scsi.ReportLUNs(lunListLen), lunListLen)
	if err != nil {
		return nil, err
	}
	list, _, err := scsi.ParseLUNs(data)
	if err != nil {
		return nil, err
	}
	for _, lun := range list {
		if u, disk, err := p.unit(lun); err != nil {
			return nil, err
		} else if disk {
			return []unit{u}, u.check(o.block)
		}
	}
	return nil, fmt.Errorf("none of the target's %d logical units is a disk (is the initiator allowed to see them?)", len(list))
}

// unit asks one logical unit what it is.
func (p prober) unit(lun scsi.LUN) (u unit, disk bool, err error) {
	data, err := p.ask(lun, scsi.Inquiry(inquiryLen), inquiryLen)
	if err != nil {
		return u, false, err
	}
	what, err := scsi.ParseInquiry(data)
	if err != nil || what.Qualifier != scsi.Connected || what.Type != scsi.TypeDisk {
		return u, false, err
	}
	size, err := p.capacity(lun)
	u = unit{lun: lun, name: what.Vendor + " " + what.Product, blockLength: int(size.BlockLength), blocks: size.LastLBA + 1}
	return u, err == nil, err
}

// capacity asks for the size, of disks without READ CAPACITY(16) too.
func (p prober) capacity(lun scsi.LUN) (scsi.Capacity, error) {
	data, err := p.ask(lun, scsi.ReadCapacity16(capacityLen), capacityLen)
	var sense *senseError
	if errors.As(err, &sense) && sense.Key == scsi.IllegalRequest {
		if data, err = p.ask(lun, scsi.ReadCapacity10(), capacityLen); err != nil {
			return scsi.Capacity{}, err
		}
		return scsi.ParseCapacity10(data)
	}
	if err != nil {
		return scsi.Capacity{}, err
	}
	return scsi.ParseCapacity16(data)
}

// settle takes the unit attentions that a further session is greeted with.
func (p prober) settle(units []unit) error {
	for _, u := range units {
		if _, err := p.ask(u.lun, scsi.TestUnitReady(), 0); err != nil {
			return err
		}
	}
	return nil
}

// check says why requests of so many bytes cannot be made.
func (u *unit) check(block int) error {
	switch {
	case u.blockLength < 1 || u.blockLength > maxBlock:
		return fmt.Errorf("LUN %v has blocks of %d bytes", u.lun, u.blockLength)
	case block%u.blockLength != 0:
		return fmt.Errorf("--%s %d: LUN %v has blocks of %d bytes, of which that is no multiple", optBlock, block, u.lun, u.blockLength)
	case u.blocks < uint64(block/u.blockLength):
		return fmt.Errorf("--%s %d: LUN %v has %d blocks of %d bytes only", optBlock, block, u.lun, u.blocks, u.blockLength)
	}
	return nil
}
