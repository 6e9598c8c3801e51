package daemon

import "fmt"

// Health is what there is, in short.
type Health struct{ Sessions, Connected, Disks int }

// Health goes through every session and its devices, with the locks that their
// work takes. A daemon of which some part hangs while holding one does not
// answer, and a watchdog that waits for the answer notices.
func (d *Daemon) Health() Health {
	var h Health
	for _, e := range d.all() {
		h.Sessions++
		if e.find != nil {
			_ = e.find.reason()
			continue
		}
		if e.conn.Info().Connected {
			h.Connected++
		}
		e.set().Stats()
		h.Disks += e.devs.count()
	}
	return h
}

func (h Health) String() string {
	return fmt.Sprintf("%s, %d connected; %s", plural(h.Sessions, "session"), h.Connected, plural(h.Disks, "disk"))
}

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
