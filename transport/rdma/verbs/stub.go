//go:build !(linux && cgo && rdma)

package verbs

import (
	"context"
	"errors"
	"net/netip"

	"iscsictl/transport/rdma"
)

// ErrNotBuilt is returned by everything in a program that was built without
// RDMA devices.
var ErrNotBuilt = errors.New("this program was built without RDMA devices (it takes cgo, the headers of librdmacm and libibverbs, and the build tag rdma)")

// Built reports whether RDMA devices are in this program.
const Built = false

// Dial implements rdma.Provider.
func (Provider) Dial(context.Context, netip.AddrPort, netip.AddrPort, rdma.Options) (rdma.Conn, error) {
	return nil, ErrNotBuilt
}

// Listen implements rdma.Provider.
func (Provider) Listen(context.Context, netip.AddrPort) (rdma.Listener, error) {
	return nil, ErrNotBuilt
}

// Probe says why no connection can be made on this host, or returns nil.
func Probe() error { return ErrNotBuilt }
