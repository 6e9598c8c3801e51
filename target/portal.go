package target

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"iscsictl/transport/rdma"
	"iscsictl/transport/rdma/iwarp"
)

// ListenISER opens an iSER portal on software iWARP, for Server.ServeISER.
func ListenISER(ctx context.Context, p Portal) (rdma.Listener, error) {
	p.ISER = true
	if err := p.check(); err != nil {
		return nil, err
	}
	a, err := net.ResolveTCPAddr("tcp", p.Address)
	if err != nil {
		return nil, fmt.Errorf("portal %s: %w", p.Address, err)
	}
	ip, ok := netip.AddrFromSlice(a.IP)
	if !ok { // ":3260"
		ip = netip.IPv6Unspecified()
	}
	w := &p.IWARP
	provider := &iwarp.Provider{
		NoCRC: w.NoCRC, MULPDU: w.MULPDU, Revision: w.Revision,
		Faults: iwarp.Faults{
			Markers: w.Markers, CorruptCRC: w.CorruptCRC, SkipMSN: w.SkipMSN, ExceedReads: w.ExceedReads,
		},
	}
	l, err := provider.Listen(ctx, netip.AddrPortFrom(ip.Unmap().WithZone(a.Zone), uint16(a.Port)))
	if err != nil {
		return nil, fmt.Errorf("portal %s: %w", p.Address, err)
	}
	return l, nil
}
