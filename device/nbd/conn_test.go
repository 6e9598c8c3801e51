package nbd

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"iscsictl/device"
	"iscsictl/device/devicetest"
)

// serve serves a disk at one end of a socket pair in transmission phase; wait
// returns what the server returned.
func serve(t testing.TB, disk device.Disk, structured bool) (peer net.Conn, e *Export, wait func() error) {
	t.Helper()
	e, err := NewExport(disk, "x", "")
	if err != nil {
		t.Fatal(err)
	}
	server, peer := pair(t)
	done := make(chan error, 1)
	go func() {
		if err := e.enter(server); err != nil {
			done <- err
			return
		}
		err := e.transmit(server, structured)
		e.leave(server)
		done <- err
	}()
	wait = sync.OnceValue(func() error { return <-done })
	t.Cleanup(func() {
		peer.Close()
		wait()
	})
	return peer, e, wait
}

func TestErrnos(t *testing.T) {
	disk := devicetest.CheckedDisk(t, devicetest.Geometry4M, 4<<20)
	peer, _, _ := serve(t, disk, true)
	c := (&client{nc: peer, structured: true, waiting: map[uint64]*answer{}}).start()
	var now syscall.Errno
	var mu sync.Mutex
	disk.SetErrors(func(*device.Request) syscall.Errno {
		mu.Lock()
		defer mu.Unlock()
		return now
	})
	for from, to := range map[syscall.Errno]syscall.Errno{
		syscall.EROFS: syscall.EPERM, syscall.ENOSPC: syscall.ENOSPC, syscall.EBADE: syscall.EIO,
		syscall.EOPNOTSUPP: syscall.EOPNOTSUPP, syscall.ENOMEM: syscall.ENOMEM, syscall.ETIMEDOUT: syscall.EIO,
	} {
		mu.Lock()
		now = from
		mu.Unlock()
		b := make([]byte, 512)
		if _, err := c.ReadAt(b, 0); err != to {
			t.Errorf("read with %v: %v, want %v", from, err, to)
		}
		if _, err := c.WriteAt(b, 0); err != to {
			t.Errorf("write with %v: %v, want %v", from, err, to)
		}
	}
}

func TestRefused(t *testing.T) {
	geo := devicetest.Geometry4M
	geo.DiscardMax, geo.ZeroesMax = 0, 0
	disk := devicetest.CheckedDisk(t, geo, 4<<20)
	peer, _, _ := serve(t, disk, false)
	c := (&client{nc: peer, waiting: map[uint64]*answer{}}).start()
	big := make([]byte, maxPayload+512)
	for _, x := range []struct {
		name        string
		kind, flags uint16
		off         int64
		data        []byte
		want        error
	}{
		{"unknown command", 99, 0, 0, nil, syscall.EINVAL},
		{"block status", 7, 0, 0, big[:512], syscall.EINVAL},
		{"empty read", cmdRead, 0, 0, nil, syscall.EINVAL},
		{"empty write", cmdWrite, 0, 0, nil, syscall.EINVAL},
		{"unknown flag", cmdWrite, 1 << 9, 0, big[:512], syscall.EINVAL},
		{"DF without structured replies", cmdRead, cmdFlagDF, 0, big[:512], syscall.EINVAL},
		{"too long a write", cmdWrite, 0, 0, big, syscall.EINVAL},
		{"write beyond the end", cmdWrite, 0, geo.Size, big[:512], syscall.ENOSPC},
		{"negative offset", cmdWrite, 0, -512, big[:512], syscall.ENOSPC},
		{"read beyond the end", cmdRead, 0, geo.Size, big[:512], syscall.EINVAL},
		{"trim", cmdTrim, 0, 0, big[:512], syscall.EOPNOTSUPP},
		{"zeroes", cmdWriteZeroes, 0, 0, big[:512], syscall.EOPNOTSUPP},
		{"flush with a range", cmdFlush, 0, 512, big[:512], syscall.EINVAL},
		{"a good write", cmdWrite, 0, 0, big[:512], nil},
	} {
		if err := c.do(x.kind, x.flags, x.off, len(x.data), x.data); err != x.want {
			t.Errorf("%s: %v, want %v", x.name, err, x.want)
		}
	}
}

func TestTrimFUAFlushes(t *testing.T) {
	disk := devicetest.CheckedDisk(t, devicetest.Geometry4M, 4<<20)
	peer, _, _ := serve(t, disk, false)
	c := (&client{nc: peer, waiting: map[uint64]*answer{}}).start()
	if err := c.do(cmdTrim, cmdFlagFUA, 0, 4096, nil); err != nil {
		t.Fatal(err)
	}
	if disk.Count(device.Flush) != 1 || disk.FUA() != 0 {
		t.Errorf("%d flushes, %d with FUA; want one flush", disk.Count(device.Flush), disk.FUA())
	}
	if err := c.do(cmdWriteZeroes, cmdFlagFUA|cmdFlagNoHole, 0, 3<<20, nil); err != nil {
		t.Fatal(err)
	}
	if disk.FUA() != 3 || disk.Count(device.WriteZeroes) != 3 {
		t.Errorf("%d requests, %d with FUA; want 3", disk.Count(device.WriteZeroes), disk.FUA())
	}
}

// TestManyRounds has a command that is more requests than go at a time.
func TestManyRounds(t *testing.T) {
	geo := devicetest.Geometry4M
	geo.ZeroesMax = 4096
	disk := devicetest.CheckedDisk(t, geo, 4<<20)
	peer, _, _ := serve(t, disk, false)
	c := (&client{nc: peer, waiting: map[uint64]*answer{}}).start()
	disk.Poke(bytes.Repeat([]byte{1}, 4<<20), 0)
	if err := c.WriteZeroes(0, geo.Size); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, geo.Size)
	disk.Peek(got, 0)
	if !bytes.Equal(got, make([]byte, geo.Size)) {
		t.Error("not all is zero")
	}
	if n := disk.Count(device.WriteZeroes); n != 1024 {
		t.Errorf("%d requests, want 1024", n)
	}
}

// TestLargeReadFails: a reply that has begun cannot be taken back.
func TestLargeReadFails(t *testing.T) {
	geo := devicetest.Geometry4M
	disk := devicetest.CheckedDisk(t, geo, 4<<20) // 512 KiB at a time
	disk.SetErrors(func(r *device.Request) syscall.Errno {
		if r.Offset >= 2<<20 {
			return syscall.EIO
		}
		return 0
	})
	for _, structured := range []bool{false, true} {
		peer, _, wait := serve(t, disk, structured)
		c := (&client{nc: peer, structured: structured, waiting: map[uint64]*answer{}}).start()
		_, err := c.ReadAt(make([]byte, 4<<20), 0)
		if structured && err != syscall.EIO {
			t.Errorf("structured: %v, want EIO", err)
		}
		if !structured {
			if err == nil || err == syscall.EIO {
				t.Errorf("simple: %v, want an end of the connection", err)
			}
			if err := wait(); err == nil {
				t.Error("the server says that all was well")
			}
		}
		_, err = c.WriteAt(make([]byte, 4<<20), 0)
		if structured && err != syscall.EIO {
			t.Errorf("write: %v, want EIO", err)
		}
	}
}

// TestSlowReader: a client that does not read its replies has memory for some
// requests only, and the rest of the arena stays with others.
func TestSlowReader(t *testing.T) {
	disk := devicetest.CheckedDisk(t, devicetest.Geometry4M, 16<<20)
	peer, e, wait := serve(t, disk, false)
	e.drain = 100 * time.Millisecond
	for i := range 200 {
		if _, err := peer.Write(rawCommand(cmdRead, 0, uint64(i), 0, 256<<10)); err != nil {
			t.Fatal(err)
		}
	}
	for last := -1; last != disk.Count(device.Read); time.Sleep(50 * time.Millisecond) {
		last = disk.Count(device.Read)
	}
	if n := disk.Arena().InUse(); n > 4<<20 {
		t.Errorf("it has %d bytes of memory", n)
	}
	// What was asked for comes, once it is read.
	for i := range 200 {
		b := make([]byte, simpleSize+256<<10)
		if _, err := io.ReadFull(peer, b); err != nil {
			t.Fatalf("reply %d: %v", i, err)
		}
	}
	// One that reads nothing at all does not keep the export from closing.
	for i := range 100 {
		peer.Write(rawCommand(cmdRead, 0, uint64(i), 0, 256<<10))
	}
	start := time.Now()
	e.Close()
	if d := time.Since(start); d > drainTime {
		t.Errorf("closing took %v", d)
	}
	if err := wait(); err != nil {
		t.Error(err)
	}
}

// TestLostConnection: what is under way when the client is gone completes
// later, and gives its memory back.
func TestLostConnection(t *testing.T) {
	disk := devicetest.CheckedDisk(t, devicetest.Geometry4M, 4<<20)
	peer, _, wait := serve(t, disk, true)
	disk.Hold()
	for i := range 10 {
		peer.Write(rawCommand(cmdRead, 0, uint64(i), 0, 4096))
	}
	for disk.Held() < 10 {
		runtime.Gosched()
	}
	peer.Close()
	disk.Resume(0)
	wait()
	if n := disk.Arena().InUse(); n != 0 {
		t.Errorf("%d bytes were not given back", n)
	}
}

// TestTooManyConnections also checks that those who are there go on.
func TestTooManyConnections(t *testing.T) {
	disk := devicetest.CheckedDisk(t, devicetest.Geometry4M, 4<<20)
	e, err := NewExport(disk, "x", "")
	if err != nil {
		t.Fatal(err)
	}
	var clients []*client
	for range maxConns {
		server, peer := pair(t)
		go e.Serve(server)
		c, err := newClient(peer, true)
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c.start())
	}
	server, peer := pair(t)
	if err := e.Serve(server); err != errCrowded {
		t.Errorf("one too many: %v", err)
	}
	peer.Close()
	for _, c := range clients {
		if _, err := c.WriteAt(make([]byte, 512), 0); err != nil {
			t.Error(err)
		}
	}
	e.Close()
	if _, err := clients[0].ReadAt(make([]byte, 512), 0); err == nil {
		t.Error("a closed export was read")
	}
	server, peer = pair(t)
	if err := e.Serve(server); err != errClosed {
		t.Errorf("after the end: %v", err)
	}
	peer.Close()
}

func TestBadGeometry(t *testing.T) {
	disk := devicetest.CheckedDisk(t, devicetest.Geometry4M, 4<<20)
	e, err := NewExport(disk, "x", "")
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*device.Geometry){
		"block":    func(g *device.Geometry) { g.LogicalBlock = 520 },
		"no block": func(g *device.Geometry) { g.LogicalBlock = 0 },
		"size":     func(g *device.Geometry) { g.Size++ },
		"transfer": func(g *device.Geometry) { g.MaxTransfer = 511 },
	} {
		geo := devicetest.Geometry4M
		change(&geo)
		if e.Update(geo) == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// TestNoAllocation: the data path allocates nothing for a request.
func TestNoAllocation(t *testing.T) {
	if devicetest.RaceEnabled {
		t.Skip("the race detector allocates")
	}
	disk := devicetest.CheckedDisk(t, devicetest.Geometry4M, 4<<20)
	peer, _, _ := serve(t, disk, true)
	const batch = 16
	var commands []byte
	for i := range batch {
		commands = append(commands, rawCommand(cmdRead, 0, uint64(i), uint64(i)*4096, 4096)...)
		commands = append(commands, rawCommand(cmdWrite, 0, uint64(i), uint64(i)*4096, 4096)...)
		commands = append(commands, make([]byte, 4096)...)
	}
	replies := make([]byte, batch*(dataHeaderSize+4096+simpleSize))
	once := func() {
		if _, err := peer.Write(commands); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(peer, replies); err != nil {
			t.Fatal(err)
		}
	}
	once()
	if n := testing.AllocsPerRun(200, once); n > 1 {
		t.Errorf("%v allocations for %d requests", n, 2*batch)
	}
}
