package session

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"iscsictl/wait"
)

// thread waits for nothing.
type thread struct{ name string }

func (*thread) Watch(wait.Source) bool { return false }
func (*thread) Wake()                  {}

// TestAttend: the first of the threads is lent the connection, and each one that
// comes after it.
func TestAttend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &portal{}
		s, _ := start(t, p, nil)
		one, two := &thread{"one"}, &thread{"two"}
		lent := func(want ...wait.Thread) {
			t.Helper()
			synctest.Wait()
			if !slices.Equal(p.current.lent, want) {
				t.Errorf("the connection was lent to %v, want %v", p.current.lent, want)
			}
		}
		lent(nil)
		s.Attend(one)
		s.Attend(two)
		lent(nil, one)
		pass(time.Minute) // long enough for the next attempt to be made at once
		mover{p.current}.Close(errors.New("cable pulled"))
		lent(one)
		s.Dismiss(one)
		lent(one, two)
		s.Dismiss(one) // is gone already
		lent(one, two)
		s.Attend(one)
		s.Dismiss(two)
		s.Dismiss(one)
		lent(one, two, one, nil)
	})
}
