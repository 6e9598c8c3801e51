package target

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
)

// node is a target with its logical units.
type node struct {
	Target
	own   *ownKeys
	units atomic.Pointer[unitTable] // replaced as a whole, by the server with its lock held
}

// unitTable finds the units of a node; it does not change.
type unitTable struct {
	list  []*unit // by number
	first []*unit // by number, those below 256
}

func newUnitTable(list []*unit) *unitTable {
	slices.SortFunc(list, func(a, b *unit) int { return cmp.Compare(a.Number, b.Number) })
	t := &unitTable{list: list}
	for _, u := range list {
		if u.Number < 256 {
			for len(t.first) <= u.Number {
				t.first = append(t.first, nil)
			}
			t.first[u.Number] = u
		}
	}
	return t
}

// find returns the unit with a number, or nil.
func (t *unitTable) find(number int) *unit {
	if uint(number) < uint(len(t.first)) {
		return t.first[number]
	}
	i, ok := slices.BinarySearchFunc(t.list, number, func(u *unit, n int) int { return cmp.Compare(u.Number, n) })
	if !ok {
		return nil
	}
	return t.list[i]
}

func newNode(t Target) (*node, error) {
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("target %s: %w", t.Name, err)
	}
	if t.Window == 0 {
		t.Window = defaultWindow
	}
	n := &node{Target: t}
	n.own, _ = newOwnKeys(t.Keys, t.Offer)
	var list []*unit
	for _, l := range t.LUNs {
		u, err := newUnit(t.Name, l)
		if err == nil && slices.ContainsFunc(list, func(o *unit) bool { return o.Number == u.Number }) {
			list = append(list, u)
			err = fmt.Errorf("LUN %d is there twice", u.Number)
		}
		if err != nil {
			n.units.Store(newUnitTable(list))
			return nil, errors.Join(fmt.Errorf("target %s: %w", t.Name, err), n.close())
		}
		list = append(list, u)
	}
	n.units.Store(newUnitTable(list))
	return n, nil
}

// reachable tells whether the target is served by a portal group.
func (n *node) reachable(tag int) bool {
	return len(n.Tags) == 0 || slices.Contains(n.Tags, tag)
}

func (n *node) close() error {
	var err error
	for _, u := range n.units.Load().list {
		err = errors.Join(err, u.storage.close())
	}
	return err
}
