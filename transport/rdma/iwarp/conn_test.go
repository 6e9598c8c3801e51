package iwarp

import (
	"net/netip"
	"testing"

	"iscsictl/transport/rdma/rdmatest"
)

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

func TestConformance(t *testing.T) {
	for name, rig := range map[string]rdmatest.Rig{
		"default":           {Provider: &Provider{}},
		"no CRC, small MTU": {Provider: &Provider{NoCRC: true, MULPDU: 1442}},
		"large MULPDU":      {Provider: &Provider{MULPDU: mulpduMax}},
		"revision 1":        {Provider: &Provider{Revision: 1}},
		"RTR by Write":      {Provider: &Provider{RTR: RTRWrite}},
		"RTR by Read":       {Provider: &Provider{RTR: RTRRead}},
		"RTR of choice":     {Provider: &Provider{RTR: RTRWrite | RTRRead | RTRSend}},
	} {
		rig.Addr = loopback
		t.Run(name, func(t *testing.T) {
			if rig.Provider.(*Provider).Revision == 1 {
				// It has no depths to negotiate, and a user must know them.
				t.Run("Read", func(t *testing.T) { rdmatest.Tests["Read"](t, rig) })
				t.Run("LoadInBothDirections", func(t *testing.T) { rdmatest.Tests["LoadInBothDirections"](t, rig) })
				return
			}
			rdmatest.Run(t, rig)
		})
	}
}
