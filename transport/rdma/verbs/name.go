package verbs

import "time"

// name is what a user calls this provider.
const name = "verbs"

// Provider makes connections by RDMA devices.
type Provider struct {
	// Spin says, each time, for how long a connection looks for completions
	// before it has the device tell of them. nil: not at all.
	Spin func() time.Duration
}

// Name implements rdma.Provider.
func (Provider) Name() string { return name }

// RemoteInvalidate implements rdma.Provider. Devices invalidate memory windows
// and what a kernel registers fast; ordinary regions they refuse to.
func (Provider) RemoteInvalidate() bool { return false }
