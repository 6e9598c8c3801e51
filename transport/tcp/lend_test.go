package tcp

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"iscsictl/iscsi"
	"iscsictl/transport"
	"iscsictl/wait/waittest"
)

const (
	lentRead  = 4 << 10
	lentWrite = 32 << 10
)

// answer is a target: it answers reads with bytes of their tag, and looks at
// those of writes.
func answer(t *testing.T, peer net.Conn) {
	buf := make([]byte, lentWrite)
	for {
		var h iscsi.BHS
		if _, err := io.ReadFull(peer, h[:]); err != nil {
			return // closed
		}
		itt, n := h.InitiatorTaskTag(), h.DataSegmentLength()
		if n > len(buf) {
			t.Errorf("%v with %d bytes of data", h.Opcode(), n)
			return
		}
		data := buf[:n]
		if _, err := io.ReadFull(peer, data); err != nil {
			return
		}
		if bytes.Count(data, []byte{byte(itt)}) != n {
			t.Errorf("the data of task %d are not those that it had: %#x …", itt, data[:8])
			return
		}
		var out []byte
		if n > 0 {
			out = pdu(&iscsi.SCSIResponse{InitiatorTaskTag: itt}, nil, false, false)
		} else {
			d := iscsi.DataIn{
				Final: true, HasStatus: true, InitiatorTaskTag: itt,
				TargetTransferTag: iscsi.ReservedTag, DataSegmentLength: lentRead,
			}
			data = buf[:lentRead]
			for i := range data {
				data[i] = byte(itt)
			}
			out = pdu(&d, data, false, false)
		}
		if _, err := peer.Write(out); err != nil {
			return
		}
	}
}

// busy is an eager session that judges what it reads, and marks what it writes.
type busy struct {
	*eager
	done int
	more sync.Cond // than done
	late bool
}

func (s *busy) Done(t *transport.Task, r *transport.Result) error {
	if err := s.table.Done(t, r); err != nil {
		return err
	}
	if t.In.Len() > 0 && r.Received != t.In.Len() {
		s.t.Errorf("%d bytes were received", r.Received)
	}
	if in := t.In.Bytes(); bytes.Count(in, []byte{byte(t.Command.InitiatorTaskTag)}) != len(in) {
		s.t.Errorf("task %d has read %#x …", t.Command.InitiatorTaskTag, in[:8])
	}
	s.done++
	s.more.Broadcast()
	s.issue(t)
	return nil
}

func (s *busy) issue(t *transport.Task) {
	for i := range t.Out.Bytes() {
		t.Out.Bytes()[i] = byte(s.next)
	}
	s.eager.issue(t)
}

// lively is a started connection with tasks under way that never end.
func lively(t *testing.T, tasks int) (*conn, *busy) {
	t.Helper()
	old, e, peer := connected(t, tasks)
	if err := old.sock.Load().file.(*net.TCPConn).SetWriteBuffer(lentWrite); err != nil {
		t.Fatal(err)
	}
	p := defaults()
	p.MaxSendDataSegmentLength, p.FirstBurstLength = lentWrite, lentWrite
	s := &busy{eager: e}
	s.more.L = s
	e.c = newConn(old.sock.Load().file.(*net.TCPConn), p, s, tasks)
	for i := range tasks {
		task := &transport.Task{Index: i}
		task.Command.Read, task.Command.Write = i%2 == 0, i%2 == 1
		if task.Command.Read {
			task.In = s.extent(lentRead)
		} else {
			task.Out = s.extent(lentWrite)
		}
		task.Command.ExpectedDataTransferLength = uint32(max(task.In.Len(), task.Out.Len()))
		s.issue(task)
	}
	go answer(t, peer)
	e.c.Start()
	e.c.Flush()
	return e.c, s
}

// goesOn waits until that many more tasks have ended.
func (s *busy) goesOn(n int) {
	s.t.Helper()
	timer := time.AfterFunc(time.Minute, func() {
		s.Lock()
		defer s.Unlock()
		s.late = true
		s.more.Broadcast()
	})
	defer timer.Stop()
	s.Lock()
	defer s.Unlock()
	for want := s.done + n; s.done < want; s.more.Wait() {
		if s.late {
			s.t.Fatalf("%d tasks have ended, of %d", s.done, want)
		}
	}
}

var errDone = errors.New("done")

func (s *busy) ends() {
	s.t.Helper()
	select {
	case err := <-s.table.down:
		if !errors.Is(err, errDone) {
			s.t.Errorf("the connection has ended with %v", err)
		}
	case <-time.After(time.Minute):
		s.t.Fatal("the connection does not end")
	}
}

// TestLend: a connection goes from the netpoller to one thread after the other,
// and back, with reads and writes under way that fill the socket.
func TestLend(t *testing.T) {
	c, s := lively(t, 64)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	watched, rooms := 0, 0
	for range 50 {
		p := waittest.New(t)
		c.Lend(p)
		s.goesOn(rng.IntN(100))
		if rng.IntN(4) == 0 {
			c.Lend(nil) // perhaps before it has come about
		}
		watched += p.Stop()
		rooms += p.Rooms()
		s.goesOn(rng.IntN(100))
	}
	if watched < 10 || rooms == 0 {
		t.Errorf("threads were lent the socket %d times and waited for room %d times", watched, rooms)
	}
	c.Close(errDone)
	s.ends()
}

// TestLentEnds: a connection ends while it is lent, by us and by the peer, and
// the thread has it no longer.
func TestLentEnds(t *testing.T) {
	for _, ours := range []bool{true, false} {
		c, s := lively(t, 64)
		p := waittest.New(t)
		c.Lend(p)
		s.goesOn(500)
		if ours {
			c.Close(errDone)
			s.ends()
		} else {
			// As the peer would: what it has sent may be lost.
			if err := unix.Shutdown(c.FD(), unix.SHUT_RDWR); err != nil {
				t.Fatal(err)
			}
			if err := <-s.table.down; err == nil || errors.Is(err, errDone) {
				t.Errorf("the connection has ended with %v", err)
			}
		}
		if n := p.Stop(); n != 1 || p.Has() != 0 {
			t.Errorf("the thread was lent the socket %d times, and has %d", n, p.Has())
		}
	}
}

// TestLendToNobody: a thread that has ended gets nothing, and the connection goes on.
func TestLendToNobody(t *testing.T) {
	c, s := lively(t, 8)
	p := waittest.New(t)
	p.Stop()
	c.Lend(p)
	s.goesOn(200)
	if p.Watched() != 0 {
		t.Error("a thread that has ended was lent the socket")
	}
	c.Close(errDone)
	s.ends()
}

// TestLendToTheNext: who asks while another has the socket gets it after.
func TestLendToTheNext(t *testing.T) {
	c, s := lively(t, 8)
	first, next := waittest.New(t), waittest.New(t)
	c.Lend(first)
	s.goesOn(200)
	c.Lend(next)
	s.goesOn(200)
	if first.Stop() != 1 {
		t.Error("the first was not lent the socket")
	}
	select {
	case <-next.Came():
	case <-time.After(time.Minute):
		t.Fatal("the next was not lent the socket")
	}
	s.goesOn(200)
	c.Close(errDone)
	s.ends()
	next.Stop()
}
