package e2e

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Where the ends of a cable are.
const (
	nearAddress = "192.0.2.1" // the initiator's
	farAddress  = "192.0.2.2" // the target's
)

// cable joins two network namespaces through this process, which does to the
// packets what a bad network does. TCP at both ends is the kernel's. A qdisc netem would
// do some of this, where the kernel has one; it cannot change data so that TCP's
// checksum is right, which is what digests are for.
type cable struct {
	near, far string // names of the namespaces
	ends      [2]*os.File
	pumps     sync.WaitGroup

	mu    sync.Mutex
	fault wireFault
	flows map[flow]int // bytes that went one way
	did   wireCounts
}

// wireFault is what happens to packets.
type wireFault struct {
	drop            [2]float64 // of those from the near end, and from the far end
	delay, jitter   time.Duration
	reorder, double float64
	corrupt         float64 // of those with data, once a login must be over
	reset           bool    // TCP connections are reset at the near end; the far end hears nothing
}

type wireCounts struct{ packets, dropped, late, doubled, corrupted, resets int }

type flow struct {
	from  int
	ports uint32
}

// afterLogin is how many bytes of a connection are never changed: neither digests nor
// MPA's CRC protect how it begins.
const afterLogin = 32 << 10

// newCable makes two namespaces and the cable between them, or tells why it can't.
func newCable(t *testing.T) (*cable, error) {
	t.Helper()
	if os.Getuid() != 0 {
		return nil, fmt.Errorf("needs root")
	}
	near, far, err := namespaces(t)
	if err != nil {
		return nil, err
	}
	c := &cable{near: near, far: far, flows: map[flow]int{}}
	for i, end := range []struct{ namespace, address string }{{near, nearAddress}, {far, farAddress}} {
		if c.ends[i], err = openTun(end.namespace); err != nil {
			return nil, err
		}
		must(t, "ip", "-n", end.namespace, "address", "add", end.address+"/24", "dev", "cable")
		must(t, "ip", "-n", end.namespace, "link", "set", "cable", "up")
	}
	for from := range c.ends {
		c.pumps.Go(func() { c.pump(from) })
	}
	t.Cleanup(func() {
		for _, end := range c.ends {
			end.Close()
		}
		c.pumps.Wait()
	})
	return c, nil
}

// openTun makes a network interface in a namespace, whose packets are read and written
// here.
func openTun(namespace string) (*os.File, error) {
	ns, err := os.Open("/run/netns/" + namespace)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	// The thread goes back to where it was: one that ends takes with it the
	// processes that it has started (start has the kernel do so).
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer home.Close()
	file, err := makeTun(int(ns.Fd()))
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		panic(fmt.Sprintf("a thread stays in the network namespace %s: %v", namespace, back))
	}
	runtime.UnlockOSThread()
	return file, err
}

func makeTun(namespace int) (*os.File, error) {
	if err := unix.Setns(namespace, unix.CLONE_NEWNET); err != nil {
		return nil, os.NewSyscallError("setns", err)
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq("cable")
	if err != nil {
		return nil, err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("TUNSETIFF", err)
	}
	return os.NewFile(uintptr(fd), "tun"), nil
}

// set has a fault happen from now on; the zero value ends it.
func (c *cable) set(f wireFault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = f
}

func (c *cable) counts() wireCounts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.did
}

// pump carries packets from one end to the other.
func (c *cable) pump(from int) {
	buf := make([]byte, 65536)
	for {
		n, err := c.ends[from].Read(buf)
		if err != nil {
			if c.ends[from].SetReadDeadline(time.Time{}) != nil { // it is closed
				return
			}
			time.Sleep(poll) // its interface is down
			continue
		}
		c.packet(from, buf[:n])
	}
}

// packet carries a packet, or does something else with it. Writes may fail: the other
// interface may be down, as an interface is at times.
func (c *cable) packet(from int, p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.fault
	c.did.packets++
	s, isTCP := parseSegment(p)
	switch {
	case f.reset && isTCP:
		if from == 0 && s.flags()&tcpRST == 0 {
			c.did.resets++
			_, _ = c.ends[0].Write(s.refusal())
		}
		return
	case rand.Float64() < f.drop[from]:
		c.did.dropped++
		return
	}
	if isTCP {
		c.change(from, s, f)
	}
	to := c.ends[1-from]
	delay := f.delay
	if f.jitter > 0 {
		delay += rand.N(f.jitter)
	}
	if rand.Float64() < f.reorder {
		delay += time.Duration(1+rand.IntN(10)) * time.Millisecond
	}
	copies := 1
	if rand.Float64() < f.double {
		c.did.doubled++
		copies = 2
	}
	for range copies {
		if delay == 0 {
			_, _ = to.Write(p)
			continue
		}
		c.did.late++
		kept := append([]byte(nil), p...)
		time.AfterFunc(delay, func() { _, _ = to.Write(kept) })
	}
}

// change flips a bit of a segment's data at times, and mends the checksum.
func (c *cable) change(from int, s segment, f wireFault) {
	data, id := s.data(), flow{from, s.ports()}
	if s.flags()&tcpSYN != 0 {
		c.flows[id] = 0
	}
	if len(data) == 0 {
		return
	}
	c.flows[id] += len(data)
	if c.flows[id] > afterLogin && rand.Float64() < f.corrupt {
		data[rand.IntN(len(data))] ^= 1 << rand.IntN(8)
		s.sum()
		c.did.corrupted++
	}
}

// segment is a packet of IPv4 with TCP (RFC 791, RFC 9293).
type segment struct {
	packet []byte
	tcp    int // where the TCP header begins
}

const (
	tcpSYN = 2
	tcpRST = 4
	tcpACK = 16
)

func parseSegment(p []byte) (segment, bool) {
	if len(p) < 20 || p[0]>>4 != 4 || p[9] != 6 {
		return segment{}, false
	}
	s := segment{p, int(p[0]&15) * 4}
	ok := len(p) >= s.tcp+20 && len(p) >= s.tcp+int(p[s.tcp+12]>>4)*4
	return s, ok
}

func (s segment) flags() byte   { return s.packet[s.tcp+13] }
func (s segment) ports() uint32 { return binary.BigEndian.Uint32(s.packet[s.tcp:]) }
func (s segment) data() []byte  { return s.packet[s.tcp+int(s.packet[s.tcp+12]>>4)*4:] }

// sum puts the checksum in place.
func (s segment) sum() {
	p := s.packet
	binary.BigEndian.PutUint16(p[s.tcp+16:], 0)
	total := uint32(6) + uint32(len(p)-s.tcp) // the pseudo-header: protocol, length, addresses
	total = add(add(total, p[12:20]), p[s.tcp:])
	binary.BigEndian.PutUint16(p[s.tcp+16:], fold(total))
}

func add(total uint32, p []byte) uint32 {
	for i := 0; i+1 < len(p); i += 2 {
		total += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	if len(p)%2 == 1 {
		total += uint32(p[len(p)-1]) << 8
	}
	return total
}

func fold(total uint32) uint16 {
	for total > 0xffff {
		total = total>>16 + total&0xffff
	}
	return ^uint16(total)
}

// refusal is the reset that answers a segment (RFC 9293 §3.5.2).
func (s segment) refusal() []byte {
	be, p := binary.BigEndian, make([]byte, 40)
	p[0], p[3], p[8], p[9] = 0x45, 40, 64, 6
	copy(p[12:16], s.packet[16:20])
	copy(p[16:20], s.packet[12:16])
	be.PutUint16(p[10:], fold(add(0, p[:20])))
	be.PutUint16(p[20:], be.Uint16(s.packet[s.tcp+2:]))
	be.PutUint16(p[22:], be.Uint16(s.packet[s.tcp:]))
	p[32], p[33] = 5<<4, tcpRST
	sequence, acknowledged := be.Uint32(s.packet[s.tcp+4:]), be.Uint32(s.packet[s.tcp+8:])
	if s.flags()&tcpACK != 0 {
		be.PutUint32(p[24:], acknowledged)
	} else {
		length := uint32(len(s.data()))
		if s.flags()&tcpSYN != 0 {
			length++
		}
		p[33] |= tcpACK
		be.PutUint32(p[28:], sequence+length)
	}
	segment{p, 20}.sum()
	return p
}
