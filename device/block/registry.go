package block

import (
	"fmt"
	"sync"

	"iscsictl/device"
)

// Registry is what a back-end knows of its own devices: the logical units that
// have one, and the numbers that they have with the driver. The zero value is
// that of a back-end without devices.
type Registry struct {
	mu   sync.Mutex
	used map[unit]bool
	live map[int]bool
}

type unit struct {
	session uint32
	lun     uint64
}

// Claim keeps a logical unit from being attached twice, until Unclaim.
func (r *Registry) Claim(name device.Name) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := unit{name.Session, name.LUN}
	if r.used[u] {
		return fmt.Errorf("LUN %d of session %d is attached already", name.LUN, name.Session)
	}
	if r.used == nil {
		r.used = make(map[unit]bool)
	}
	r.used[u] = true
	return nil
}

// Unclaim lets a logical unit be attached again.
func (r *Registry) Unclaim(name device.Name) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.used, unit{name.Session, name.LUN})
}

// Add notes that the device of a number is ours.
func (r *Registry) Add(number int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.live == nil {
		r.live = make(map[int]bool)
	}
	r.live[number] = true
}

// Remove notes that the device of a number is not ours any more.
func (r *Registry) Remove(number int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.live, number)
}

// Has reports whether the device of a number is ours.
func (r *Registry) Has(number int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.live[number]
}
