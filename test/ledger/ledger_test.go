package ledger

import (
	"strings"
	"testing"
)

// disk is one that does as it is told.
type disk struct {
	*Ledger
	t     *testing.T
	bytes []byte
}

func newDisk(t *testing.T, number uint64) *disk {
	return &disk{New(number, 64<<10), t, make([]byte, 64<<10)}
}

// write writes some sectors, as an acknowledged write does.
func (d *disk) write(from, n int) (generation uint64) {
	generation = d.Fill(d.bytes[from*SectorSize:(from+n)*SectorSize], int64(from)*SectorSize)
	d.Wrote(int64(from)*SectorSize, n*SectorSize, generation)
	return generation
}

// lose notes a write of unknown outcome, and returns what it would have written.
func (d *disk) lose(from, n int) []byte {
	p := make([]byte, n*SectorSize)
	d.Unknown(int64(from)*SectorSize, len(p), d.Fill(p, int64(from)*SectorSize))
	return p
}

// want judges the whole disk: it must be right, or wrong in the way that is said.
func (d *disk) want(wrong string) {
	d.t.Helper()
	err := d.Check(d.bytes, 0)
	if wrong == "" && err != nil {
		d.t.Errorf("a disk that is right: %v", err)
	}
	if wrong != "" && (err == nil || !strings.Contains(err.Error(), wrong)) {
		d.t.Errorf("judged as %v, want %q", err, wrong)
	}
}

func TestRight(t *testing.T) {
	d := newDisk(t, 1)
	d.want("")
	d.write(3, 5)
	d.write(4, 1)
	d.want("")
	if c := d.Counts(); c.Acknowledged != 2 || c.Read != 256 || c.Lost+c.Foreign+c.Unknown != 0 {
		t.Errorf("%+v", c)
	}
}

// TestNotices breaks a disk in each way that matters.
func TestNotices(t *testing.T) {
	for _, c := range []struct {
		name, wrong   string
		lost, foreign int64
		does          func(*disk)
	}{
		{"a lost write", "sector 7 holds generation 0; 1 was acknowledged", 1, 0, func(d *disk) {
			d.write(7, 1)
			clear(d.bytes[7*SectorSize : 8*SectorSize])
		}},
		{"a stale write", "sector 9 holds generation 1; 2 was acknowledged", 2, 0, func(d *disk) {
			d.write(8, 4)
			old := append([]byte(nil), d.bytes[9*SectorSize:11*SectorSize]...)
			d.write(8, 4)
			copy(d.bytes[9*SectorSize:], old)
		}},
		{"a write of the future", "sector 2 holds generation 3; 1 was acknowledged (or one of [2])", 1, 0, func(d *disk) {
			d.write(2, 1)
			d.lose(2, 1)
			d.Fill(d.bytes[2*SectorSize:3*SectorSize], 2*SectorSize)
		}},
		{"a flipped bit", "sector 1 holds bytes that nobody wrote", 0, 1, func(d *disk) {
			d.write(0, 4)
			d.bytes[1*SectorSize+400] ^= 4
		}},
		{"a torn sector", "sector 1 holds bytes that nobody wrote", 0, 1, func(d *disk) {
			d.write(1, 1)
			copy(d.bytes[SectorSize+256:], d.lose(1, 1)[256:])
		}},
		{"memory that was not filled", "sector 127 holds bytes that nobody wrote", 0, 1, func(d *disk) {
			d.bytes[len(d.bytes)-1] = 0xa5
		}},
		{"another sector", "sector 5 holds sector 4 of disk 1", 0, 1, func(d *disk) {
			d.write(4, 2)
			copy(d.bytes[5*SectorSize:6*SectorSize], d.bytes[4*SectorSize:])
		}},
		{"another disk", "sector 5 holds sector 5 of disk 2", 0, 1, func(d *disk) {
			other := newDisk(d.t, 2)
			other.write(5, 1)
			copy(d.bytes, other.bytes)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDisk(t, 1)
			c.does(d)
			d.want(c.wrong)
			if got := d.Counts(); got.Lost != c.lost || got.Foreign != c.foreign {
				t.Errorf("%+v, want %d lost and %d foreign", got, c.lost, c.foreign)
			}
		})
	}
}

// TestUnknown has writes whose outcome shows later, sector by sector, and only once.
func TestUnknown(t *testing.T) {
	d := newDisk(t, 1)
	d.write(0, 4)
	first := d.lose(0, 4)
	second := d.lose(1, 2)
	before := append([]byte(nil), d.bytes...)
	copy(d.bytes[3*SectorSize:], first[3*SectorSize:])
	copy(d.bytes[2*SectorSize:], second[SectorSize:])
	d.want("")
	d.want("")
	// What was found to have happened, is not undone.
	copy(d.bytes[3*SectorSize:4*SectorSize], before[3*SectorSize:])
	d.want("sector 3 holds generation 1; 2 was acknowledged")
	// What was found not to have happened, does not happen any more.
	copy(d.bytes[3*SectorSize:4*SectorSize], first[3*SectorSize:])
	copy(d.bytes[0:SectorSize], first)
	d.want("sector 0 holds generation 2; 1 was acknowledged")
}

// TestTears has a target that tears sectors: only of a write that may have happened, and
// what a sector was found to hold, it holds from there on.
func TestTears(t *testing.T) {
	d := newDisk(t, 1)
	d.Tears = true
	d.write(0, 4)
	before := append([]byte(nil), d.bytes...)
	fresh := d.lose(1, 2)
	copy(d.bytes[SectorSize:], fresh[:SectorSize+100])
	d.want("")
	d.want("")
	copy(d.bytes[2*SectorSize:], before[2*SectorSize:3*SectorSize])
	d.want("sector 2 ")
	d.write(2, 1)
	d.want("")
	copy(d.bytes[2*SectorSize:], fresh[:300])
	d.want("sector 2 holds bytes that nobody wrote")
}
