package disk

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"iscsictl/arena"
	"iscsictl/scsi"
)

// Allocation lengths. More than 255 is asked for only where there is more: old
// targets look at one byte.
const (
	probeBuffer  = arena.PageSize // bytes of an answer of the background
	inquiryAlloc = 96
	shortAlloc   = 252
	capacity16   = 32
	capacity10   = 8
)

var (
	// errNotConnected says that there is no logical unit, by its peripheral qualifier.
	errNotConnected = errors.New("there is no logical unit")
	// errNotReady says that a logical unit may become a disk later.
	errNotReady = errors.New("not ready")
	// errReserved says that another initiator has it to itself.
	errReserved = errors.New("reserved by another initiator")
)

// typeError says that a logical unit is no disk.
type typeError scsi.DeviceType

func (e typeError) Error() string {
	t := scsi.DeviceType(e).String()
	article := "a"
	if t != "" && slices.Contains([]byte("aeiou"), t[0]) {
		article = "an"
	}
	return fmt.Sprintf("is %s %s: no disk", article, t)
}

// probe asks a logical unit what it is and what it can do. With an error it
// returns what was learnt before, if that was as much as its names.
func (c *caller) probe(ctx context.Context, lun scsi.LUN) (*facts, error) {
	f := new(facts)
	b, err := c.call(ctx, lun, scsi.Inquiry(inquiryAlloc), inquiryAlloc)
	if err != nil {
		return nil, err
	}
	if f.inquiry, err = scsi.ParseInquiry(b); err != nil {
		return nil, err
	}
	if f.inquiry.Qualifier != scsi.Connected {
		return nil, errNotConnected
	}
	if t := f.inquiry.Type; t != scsi.TypeDisk && t != scsi.TypeRBC {
		return nil, typeError(t)
	}
	if err := c.pages(ctx, lun, f); err != nil {
		return nil, err
	}
	for _, learn := range []func(context.Context, scsi.LUN, *facts) error{c.ready, c.capacity, c.mode, c.same} {
		if err := learn(ctx, lun, f); err != nil {
			return f, err
		}
	}
	return f, f.check()
}

// pages reads the vital product data.
func (c *caller) pages(ctx context.Context, lun scsi.LUN, f *facts) error {
	b, err := c.page(ctx, lun, scsi.VPDSupported)
	if err != nil || b == nil {
		return err
	}
	has, err := scsi.ParseSupported(b)
	if err != nil {
		return nil // INQUIRY data where a page was asked for: it has none
	}
	// A page that cannot be parsed is as good as none: parse leaves zeroes.
	parsers := []struct {
		page  uint8
		parse func([]byte) error
	}{
		{scsi.VPDSerial, func(b []byte) (err error) { f.serial, err = scsi.ParseSerial(b); return }},
		{scsi.VPDIdentification, func(b []byte) (err error) {
			f.names, err = scsi.ParseDesignators(slices.Clone(b))
			return
		}},
		{scsi.VPDBlockLimits, func(b []byte) (err error) { f.limits, err = scsi.ParseBlockLimits(b); return }},
		{scsi.VPDCharacteristics, func(b []byte) (err error) { f.shape, err = scsi.ParseCharacteristics(b); return }},
		{scsi.VPDProvisioning, func(b []byte) (err error) { f.thin, err = scsi.ParseProvisioning(b); return }},
	}
	for _, p := range parsers {
		if !slices.Contains(has, p.page) {
			continue
		}
		b, err := c.page(ctx, lun, p.page)
		if err != nil {
			return err
		}
		if b == nil {
			continue
		}
		if err := p.parse(b); err != nil {
			c.set.log.Debug("page ignored", "lun", lun, "error", err)
		}
	}
	return nil
}

// page reads a page, or returns nil where the logical unit does not have it.
func (c *caller) page(ctx context.Context, lun scsi.LUN, page uint8) ([]byte, error) {
	b, err := c.call(ctx, lun, scsi.InquiryVPD(page, shortAlloc), shortAlloc)
	if n := min(scsi.VPDLength(b), probeBuffer); err == nil && len(b) == shortAlloc && n > shortAlloc {
		b, err = c.call(ctx, lun, scsi.InquiryVPD(page, uint16(n)), n)
	}
	if illegal(err) {
		return nil, nil
	}
	return b, err
}

// ready drains unit attentions and asks whether the medium can be accessed.
func (c *caller) ready(ctx context.Context, lun scsi.LUN, _ *facts) error {
	_, err := c.call(ctx, lun, scsi.TestUnitReady(), 0)
	e, ok := errors.AsType[*checkError](err)
	switch {
	case !ok:
		return err
	case e.status == scsi.ReservationConflict:
		return errReserved
	case e.status != scsi.CheckCondition:
		return fmt.Errorf("%w: %w", errNotReady, err)
	case e.sense.Key == scsi.NotReady || e.sense.Key == scsi.UnitAttention:
		return fmt.Errorf("%w: %s", errNotReady, e.sense.Code)
	case illegal(err): // a command that all must know; what comes will tell
		return nil
	}
	return err
}

// capacity reads the size.
func (c *caller) capacity(ctx context.Context, lun scsi.LUN, f *facts) error {
	b, err := c.call(ctx, lun, scsi.ReadCapacity16(capacity16), capacity16)
	if err == nil {
		f.capacity, err = scsi.ParseCapacity16(b)
		return err
	}
	if !illegal(err) {
		return notReadyYet(err)
	}
	if b, err = c.call(ctx, lun, scsi.ReadCapacity10(), capacity10); err != nil {
		return notReadyYet(err)
	}
	if f.capacity, err = scsi.ParseCapacity10(b); err == nil && f.capacity.Long {
		err = errors.New("it has over 2³² blocks and does not know READ CAPACITY(16)")
	}
	return err
}

func notReadyYet(err error) error {
	if e, ok := errors.AsType[*checkError](err); ok && e.status == scsi.CheckCondition && e.sense.Key == scsi.NotReady {
		return fmt.Errorf("%w: %s", errNotReady, e.sense.Code)
	}
	return err
}

// mode reads write protection, the write cache and whether FUA is honoured. A
// logical unit that does not tell is taken to be writable, perhaps with a cache.
func (c *caller) mode(ctx context.Context, lun scsi.LUN, f *facts) error {
	b, err := c.call(ctx, lun, scsi.ModeSense6(scsi.PageCaching, shortAlloc), shortAlloc)
	parse := scsi.ParseMode6
	if illegal(err) {
		b, err = c.call(ctx, lun, scsi.ModeSense10(scsi.PageCaching, shortAlloc), shortAlloc)
		parse = scsi.ParseMode10
	}
	if illegal(err) { // not the page perhaps, but the header
		b, err = c.call(ctx, lun, scsi.ModeSense6(scsi.PageAll, shortAlloc), shortAlloc)
		parse = scsi.ParseMode6
	}
	if e, ok := errors.AsType[*checkError](err); ok && e.status == scsi.CheckCondition {
		return nil
	}
	if err != nil {
		return err
	}
	if m, err := parse(b); err == nil {
		m.Pages = slices.Clone(m.Pages)
		f.mode = m
		f.caching, f.cached = m.Caching()
	}
	return nil
}

// same asks whether WRITE SAME(16) is supported, where nothing says so yet.
func (c *caller) same(ctx context.Context, lun scsi.LUN, f *facts) error {
	if f.mode.WriteProtected {
		return nil
	}
	b, err := c.call(ctx, lun, scsi.ReportOpcodes(scsi.OpWriteSame16, shortAlloc), shortAlloc)
	if err == nil {
		if s, err := scsi.ParseSupport(b); err == nil && s != scsi.SupportUnknown {
			f.same = s == scsi.SupportStandard
			return nil
		}
	}
	if _, ok := errors.AsType[*checkError](err); err != nil && !ok {
		return err
	}
	f.same = f.thin.LBPWS || f.limits.MaxWriteSame > 0
	return nil
}
