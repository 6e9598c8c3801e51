package target

import (
	"fmt"
	"hash/fnv"
	"math/bits"
	"sync/atomic"

	"iscsictl/scsi"
)

// unit is a logical unit. Only its capacity, its forced status and its bytes
// change while it is served.
type unit struct {
	LUN
	shift   int // log2 of the block size
	id      uint64
	storage storage

	blocks atomic.Int64
	forced atomic.Uint32 // status that every command but INQUIRY gets, 0: none
}

func newUnit(target string, l LUN) (*unit, error) {
	if l.BlockSize == 0 {
		l.BlockSize = 512
	}
	if l.MaxTransfer == 0 {
		l.MaxTransfer = 16 << 20
	}
	if l.Product == "" {
		l.Product = "iscsitarget"
	}
	if err := l.check(); err != nil {
		return nil, fmt.Errorf("LUN %d: %w", l.Number, err)
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%s,%d", target, l.Number)
	u := &unit{LUN: l, shift: bits.TrailingZeros(uint(l.BlockSize)), id: h.Sum64()}
	if u.Serial == "" {
		u.Serial = fmt.Sprintf("%016x", u.id)
	}
	if err := u.open(); err != nil {
		return nil, fmt.Errorf("LUN %d: %w", l.Number, err)
	}
	u.blocks.Store(int64(u.Size) >> u.shift)
	return u, nil
}

func (u *unit) open() error {
	switch {
	case u.Null:
		u.storage = newNull(u.Pattern)
	case u.File == "":
		m, err := newMemory(int64(u.Size))
		if err != nil {
			return err
		}
		u.storage = m
	default:
		f, have, err := openFile(u.File, int64(u.Size), u.ReadOnly)
		if err != nil {
			return err
		}
		u.storage = f
		if u.Size == 0 {
			u.Size = Size(have &^ (int64(u.BlockSize) - 1))
		}
		if u.Size == 0 || u.Size > maxUnitSize {
			_ = f.close()
			return fmt.Errorf("%s: has %d bytes, want one block to %v", u.File, have, Size(maxUnitSize))
		}
	}
	return nil
}

// span turns a range of blocks into bytes, and tells whether the unit has it.
func (u *unit) span(lba, count uint64) (off, n int64, ok bool) {
	have := uint64(u.blocks.Load())
	if lba > have || count > have-lba {
		return 0, 0, false
	}
	return int64(lba << u.shift), int64(count << u.shift), true
}

// resize changes the capacity to size bytes.
func (u *unit) resize(size int64) error {
	if size <= 0 || size > maxUnitSize || size&(int64(u.BlockSize)-1) != 0 {
		return fmt.Errorf("LUN %d: size %v: want a multiple of %d up to %v", u.Number, Size(size), u.BlockSize, Size(maxUnitSize))
	}
	if err := u.storage.resize(size); err != nil {
		return fmt.Errorf("LUN %d: %w", u.Number, err)
	}
	u.blocks.Store(size >> u.shift)
	return nil
}

// verdict is what a unit makes of a command: a status, or data to move first.
type verdict struct {
	kind   verdictKind
	status scsi.Status
	sense  scsi.Sense // with CHECK CONDITION
	off, n int64      // bytes of the medium (read, write), or n bytes of parameters (take)
}

type verdictKind uint8

const (
	verdictStatus verdictKind = iota // no data
	verdictSend                      // parameter data, in request.data
	verdictRead                      // n bytes of the medium at off go to the initiator
	verdictWrite                     // n bytes from the initiator go to the medium at off
	verdictTake                      // n bytes of parameters come first, then unit.taken
)

func check(key scsi.SenseKey, code scsi.Code) verdict {
	return verdict{status: scsi.CheckCondition, sense: scsi.Sense{Key: key, Code: code}}
}

func illegal(code scsi.Code) verdict { return check(scsi.IllegalRequest, code) }

// appendSense builds sense data of fixed format (SPC-4 §4.5.3), 18 bytes.
func appendSense(b []byte, s scsi.Sense) []byte {
	code := byte(0x70)
	info := uint32(s.Info)
	if s.Deferred {
		code = 0x71
	}
	if s.HasInfo && s.Info>>32 == 0 {
		code |= 0x80
	} else {
		info = 0
	}
	return append(b, code, 0, byte(s.Key),
		byte(info>>24), byte(info>>16), byte(info>>8), byte(info),
		10, 0, 0, 0, 0, byte(s.Code>>8), byte(s.Code), 0, 0, 0, 0)
}
