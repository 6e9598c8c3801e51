package tcp

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"iscsictl/iscsi"
	"iscsictl/transport"
)

// eager is a session that sends a command for each that ends.
type eager struct {
	*stand
	sync.Mutex
	c    *conn
	next uint32
}

func (s *eager) Enter()                                     { s.Lock() }
func (s *eager) Leave()                                     { s.Unlock(); s.c.Flush() }
func (s *eager) Numbers(bool, uint32, uint32, uint32) error { return nil }
func (s *eager) ExpStatSN() uint32                          { return 0 }
func (s *eager) Task(itt uint32) *transport.Task            { return s.table.Task(itt) }
func (s *eager) Control(h *iscsi.BHS, data []byte) error    { return s.table.Control(h, data) }
func (s *eager) Down(err error)                             { s.table.Down(err) }
func (s *eager) Done(t *transport.Task, r *transport.Result) error {
	if err := s.table.Done(t, r); err != nil {
		return err
	}
	s.issue(t)
	return nil
}

// issue sends a task (again) as another.
func (s *eager) issue(t *transport.Task) {
	t.Command.InitiatorTaskTag = s.next
	s.next++
	s.table.tasks[t.Command.InitiatorTaskTag] = t
	s.c.Command(t)
}

// TestHeldCommandsAreWritten: where a read has brought as much as there was room
// for, commands are held back; when there is nothing more after all, they are written.
func TestHeldCommandsAreWritten(t *testing.T) {
	const count, size = 64, 4096
	c, s, peer := connected(t, count)
	for i := range count {
		s.issue(&transport.Task{Index: i, In: s.extent(size)})
	}
	c.Flush()
	commands := func(n int) []byte {
		b := make([]byte, n*iscsi.BHSLen)
		if _, err := io.ReadFull(peer, b); err != nil {
			t.Fatalf("%d commands: %v", n, err)
		}
		return b
	}
	var answers []byte
	for _, h := range headers(commands(count)) {
		d := iscsi.DataIn{
			Final: true, HasStatus: true, InitiatorTaskTag: h.InitiatorTaskTag(),
			TargetTransferTag: iscsi.ReservedTag, DataSegmentLength: size,
		}
		answers = append(answers, pdu(&d, make([]byte, size), false, false)...)
	}
	// As much as is read at once: 15 whole answers and a part of the next.
	if _, err := peer.Write(answers[:stageLen]); err != nil {
		t.Fatal(err)
	}
	arrived(t, c, stageLen)
	c.Start()
	commands(stageLen / (iscsi.BHSLen + size))
	// The rest comes when it likes.
	if _, err := peer.Write(answers[stageLen:]); err != nil {
		t.Fatal(err)
	}
	commands(count - stageLen/(iscsi.BHSLen+size))
	c.Close(errors.New("done"))
	<-s.table.down
}

// connected is a mover on a connection to peer that has not been started.
func connected(t *testing.T, tasks int) (c *conn, s *eager, peer net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ours, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if peer, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close(); ours.Close() })
	if err := peer.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	s = &eager{stand: newStand(t, defaults())}
	c = newConn(ours.(*net.TCPConn), defaults(), s, tasks)
	s.c = c
	return c, s, peer
}

// arrived waits until so many bytes are in a socket.
func arrived(t *testing.T, c *conn, n int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		have, err := 0, error(nil)
		if err := c.sock.Load().raw.Control(func(fd uintptr) { have, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }); err != nil {
			t.Fatal(err)
		}
		if err != nil || time.Now().After(end) {
			t.Fatalf("%d bytes have arrived (%v)", have, err)
		}
		if have >= n {
			return
		}
	}
}

func headers(b []byte) (list []*iscsi.BHS) {
	for ; len(b) > 0; b = b[iscsi.BHSLen:] {
		h := iscsi.BHS(b)
		list = append(list, &h)
	}
	return list
}

// TestHold: reads that fill their place are followed by more before anything is
// written, up to half of what was asked for, and no more than holdMax.
func TestHold(t *testing.T) {
	c := &conn{}
	for _, step := range []struct {
		n, room, reading int
		want             bool
	}{
		{1000, 1000, 1 << 20, true},
		{1000, 2000, 1 << 20, false}, // that was all
		{1000, 1000, 2000, false},    // half of what there is to be done
		{1000, 1000, 2002, true},     //
		{1, 1, 2002, false},          // the same, by now
		{1000, 1000, 0, false},       // nothing is outstanding: writes, or pings
		{holdMax - 1, holdMax - 1, 1 << 30, true},
		{1, 1, 1 << 30, false},
	} {
		c.reading = step.reading
		c.hold(step.n, step.room)
		if got := c.holding.Load(); got != step.want {
			t.Errorf("%+v: %v", step, got)
		}
	}
}
