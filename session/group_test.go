package session

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestAnotherPortalGroup: where the target comes back as another portal group,
// which does not reinstate the session, nothing is sent before it has given up
// the old one.
func TestAnotherPortalGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &portal{}
		s, w := start(t, p, nil)
		pass(time.Minute)
		p.group = 1
		lost := time.Now()
		mover{p.current}.Close(errors.New("cable pulled"))
		synctest.Wait()
		if i := s.Info(); i.Connected || !strings.Contains(i.LastFailure, "answers as portal group 2 and was 1") {
			t.Fatalf("%+v", i)
		}
		for !s.Info().Connected {
			if time.Since(lost) > 3*noticed {
				t.Fatal("it never connects")
			}
			pass(100 * time.Millisecond)
		}
		if waited := time.Since(lost); waited < noticed {
			t.Errorf("it is connected %v after the loss", waited)
		}
		// Known from now on: another loss is made good at once.
		pass(time.Minute)
		mover{p.current}.Close(errors.New("cable pulled"))
		synctest.Wait()
		if i := s.Info(); !i.Connected || len(w.ups) != 3 {
			t.Errorf("%+v, up %v", i, w.ups)
		}
	})
}

// TestAnotherPortalGroupAfterLogout: what was logged out of does not hold us up.
func TestAnotherPortalGroupAfterLogout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &portal{}
		s, _ := start(t, p, nil)
		pass(time.Minute)
		p.group = 1
		s.Reconfigure(s.Target())
		synctest.Wait()
		pass(time.Second)
		if i := s.Info(); !i.Connected || i.PortalGroupTag != 2 {
			t.Errorf("%+v", i)
		}
	})
}
