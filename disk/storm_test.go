package disk

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"iscsictl/arena"
	"iscsictl/device"
	"iscsictl/scsi"
	"iscsictl/session"
)

// Whatever goes wrong on the way, each request completes once, and what was
// written is what is read.
func TestStorm(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) { storm(t, seed) })
	}
}

func storm(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	lu := newLU("a")
	lu.limits.MaxTransfer, lu.fua = 5, seed%2 == 0
	g, d := one(t, lu)
	defer g.close()
	troubles := []outcome{
		{},
		{},
		{},
		{status: scsi.Busy},
		{status: scsi.TaskSetFull},
		check(scsi.UnitAttention, scsi.CodeReset),
		check(scsi.UnitAttention, scsi.CodeLUNsChanged), check(scsi.UnitAttention, scsi.CodeCapacityChanged),
		{err: session.ErrTimedOut},
	}
	const places = 32 // of 4096 bytes, one request at each at a time
	var busy [places]*device.Request
	image := make([]byte, places*4096)
	made := 0
	for made < 300 || len(g.done) < made {
		switch p := rng.IntN(places); {
		case made < 300 && busy[p] == nil:
			r := g.request(device.Op(rng.IntN(2)), int64(p)*4096, 4096)
			if r.FUA = rng.IntN(3) == 0; r.Op == device.Write {
				for i := range r.Data.Bytes() {
					r.Data.Bytes()[i] = byte(rng.Uint32())
				}
			}
			busy[p] = r
			made++
			d.Submit([]*device.Request{r})
		case rng.IntN(20) == 0:
			g.down()
			g.up()
		case rng.IntN(3) == 0:
			lu.script = append(lu.script, troubles[rng.IntN(len(troubles))])
		default:
			g.n.step(1 + rng.IntN(4))
			synctest.Wait()
			time.Sleep(time.Duration(rng.IntN(50)) * time.Millisecond)
		}
		for p, r := range busy {
			if r == nil || !g.isDone(r) {
				continue
			}
			busy[p] = nil
			at := image[p*4096:][:4096]
			if r.Errno != 0 {
				t.Fatalf("seed %d: %v", seed, r.Errno)
			}
			if r.Op == device.Write {
				copy(at, r.Data.Bytes())
			} else if !bytes.Equal(at, r.Data.Bytes()) {
				t.Fatalf("seed %d: place %d reads other than was written", seed, p)
			}
			r.Data.Free()
			r.Data = arena.Extent{}
		}
	}
	if !bytes.Equal(lu.data[:len(image)], image) {
		t.Errorf("seed %d: the disk has other data than was written", seed)
	}
}
