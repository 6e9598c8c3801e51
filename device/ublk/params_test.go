package ublk

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"iscsictl/arena"
	"iscsictl/device"
	"iscsictl/device/devicetest"
)

func TestParams(t *testing.T) {
	basic := params{
		length: 64, types: typeBasic | typeDiscard, attrs: attrVolatileCache | attrFUA,
		logicalShift: 9, physicalShift: 12, minimumShift: 12, optimalShift: 12,
		maxSectors: 512, devSectors: 8192,
		discardGranularity: 4096, maxDiscardSectors: 2048, maxZeroesSectors: 2048, maxDiscardSegments: 1,
	}
	for name, c := range map[string]struct {
		change func(*device.Geometry)
		arena  int
		want   func(*params)
	}{
		"all": {func(*device.Geometry) {}, 16 << 20, func(*params) {}},
		"read-only": {func(g *device.Geometry) { g.ReadOnly = true }, 16 << 20, func(p *params) {
			p.types, p.attrs = typeBasic, p.attrs|attrReadOnly
			p.discardGranularity, p.maxDiscardSectors, p.maxZeroesSectors, p.maxDiscardSegments = 0, 0, 0, 0
		}},
		"4Kn, rotational": {func(g *device.Geometry) { g.LogicalBlock, g.PhysicalBlock, g.Rotational = 4096, 512, true }, 16 << 20, func(p *params) {
			p.logicalShift, p.attrs = 12, p.attrs|attrRotational
		}},
		"no cache":            {func(g *device.Geometry) { g.WriteCache = false }, 16 << 20, func(p *params) { p.attrs = 0 }},
		"no FUA":              {func(g *device.Geometry) { g.FUA = false }, 16 << 20, func(p *params) { p.attrs = attrVolatileCache }},
		"optimal":             {func(g *device.Geometry) { g.OptimalIO = 64 << 10 }, 16 << 20, func(p *params) { p.optimalShift = 16 }},
		"optimal of three":    {func(g *device.Geometry) { g.OptimalIO = 192 << 10 }, 16 << 20, func(*params) {}},
		"granularity":         {func(g *device.Geometry) { g.MinimumIO = 16 << 10 }, 16 << 20, func(p *params) { p.minimumShift, p.optimalShift = 14, 14 }},
		"unaligned discards":  {func(g *device.Geometry) { g.DiscardAlign = 512 }, 16 << 20, func(p *params) { p.discardAlignment = 512 }},
		"small arena":         {func(*device.Geometry) {}, 512 << 10, func(p *params) { p.maxSectors = 128 }},
		"small transfers":     {func(g *device.Geometry) { g.MaxTransfer = 512 }, 16 << 20, func(p *params) { p.maxSectors = 8 }},
		"uneven transfers":    {func(g *device.Geometry) { g.MaxTransfer = 65535 }, 16 << 20, func(p *params) { p.maxSectors = 120 }},
		"huge":                {func(g *device.Geometry) { g.Size, g.MaxTransfer = 1<<50, 64<<20 }, 1 << 30, func(p *params) { p.devSectors, p.maxSectors = 1<<41, 8192 }},
		"zeroes only":         {func(g *device.Geometry) { g.DiscardMax = 0 }, 16 << 20, func(p *params) { p.maxDiscardSectors = 0 }},
		"discards of 2^40":    {func(g *device.Geometry) { g.DiscardMax = 1 << 40 }, 16 << 20, func(p *params) { p.maxDiscardSectors = 1 << 22 }},
		"uneven discards":     {func(g *device.Geometry) { g.DiscardMax = 10000 }, 16 << 20, func(p *params) { p.maxDiscardSectors = 16 }},
		"discards under unit": {func(g *device.Geometry) { g.DiscardMax = 1024 }, 16 << 20, func(p *params) { p.maxDiscardSectors = 2 }},
	} {
		t.Run(name, func(t *testing.T) {
			geo, want := devicetest.Geometry4M, basic
			c.change(&geo)
			c.want(&want)
			if diff := cmp.Diff(want, makeParams(geo, c.arena), cmp.AllowUnexported(params{})); diff != "" {
				t.Errorf("parameters (-want +got):\n%s", diff)
			}
		})
	}
}

func TestBadGeometry(t *testing.T) {
	a, err := arena.New(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for name, change := range map[string]func(*device.Geometry){
		"block":    func(g *device.Geometry) { g.LogicalBlock = 520 },
		"8 KiB":    func(g *device.Geometry) { g.LogicalBlock = 8192 },
		"size":     func(g *device.Geometry) { g.Size++ },
		"nothing":  func(g *device.Geometry) { g.Size = 0 },
		"transfer": func(g *device.Geometry) { g.MaxTransfer = 511 },
	} {
		geo := devicetest.Geometry4M
		change(&geo)
		if check(geo, a) == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestOwner(t *testing.T) {
	name := device.Name{Session: 1, LUN: 2, Target: "iqn.x"}
	w := Waiting{owner: owner(name)}
	later := name
	later.Session, later.Serial = 9, "S"
	if !w.Of(name) || !w.Of(later) {
		t.Error("a device is not known again")
	}
	for _, other := range []device.Name{{Session: 1, LUN: 3, Target: "iqn.x"}, {Session: 1, LUN: 2, Target: "iqn.y"}, {}} {
		if w.Of(other) {
			t.Errorf("a device of %v is taken for one of %v", name, other)
		}
	}
	if w.owner>>32 != ownerMagic {
		t.Errorf("the owner %#x is not marked", w.owner)
	}
}
