package control

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"iscsictl/conf"
)

const helloLine = `{"hello":{"min":1,"max":1}}` + "\n"

// slow is a handler whose Discover waits, and which has sessions to list.
type slow struct {
	Handler
	sessions []Session
	ended    chan error // what ended Discover
}

func (s *slow) Version() string { return "test" }
func (s *slow) List() []Session { return s.sessions }
func (s *slow) Discover(ctx context.Context, _ conf.Session) ([]conf.Session, error) {
	<-ctx.Done()
	s.ended <- ctx.Err()
	return nil, syscall.EINTR
}

// conversation starts a server's side of a pipe, in a bubble, and returns the other
// side and a channel that is closed when the server hangs up.
func conversation(ctx context.Context, handler Handler) (net.Conn, <-chan struct{}) {
	client, conn := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer conn.Close()
		newServer(handler, defaultLimits).converse(ctx, conn)
	}()
	return client, done
}

// TestSilence wants exact times after which a client that says nothing, half a
// line, or one byte a second is hung up on.
func TestSilence(t *testing.T) {
	for _, test := range []struct {
		name string
		act  func(net.Conn)
		want time.Duration
	}{
		{"nothing", func(net.Conn) {}, defaultLimits.idle},
		{"half a line", func(c net.Conn) { io.WriteString(c, `{"hel`) }, defaultLimits.request},
		{"drop by drop", func(c net.Conn) {
			for {
				if _, err := c.Write([]byte{' '}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}, defaultLimits.request},
		{"after hello", func(c net.Conn) {
			io.WriteString(c, helloLine)
			bufio.NewReader(c).ReadString('\n')
		}, defaultLimits.idle},
		{"does not read the reply", func(c net.Conn) { io.WriteString(c, helloLine) }, defaultLimits.writeStep},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				client, done := conversation(t.Context(), &slow{})
				var actor sync.WaitGroup
				actor.Go(func() { test.act(client) })
				<-done
				if took := time.Since(begun); took != test.want {
					t.Errorf("hung up after %v, want %v", took, test.want)
				}
				client.Close()
				actor.Wait()
			})
		})
	}
}

// TestSlowReader reads a long reply, so slowly that a step of it takes too long, and
// then just so fast that none does, but the whole.
func TestSlowReader(t *testing.T) {
	for _, test := range []struct {
		name      string
		perSecond int
		want      time.Duration
	}{
		{"a step", 1, defaultLimits.writeStep},
		{"the whole", 8 << 10, defaultLimits.writeTotal},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				session := NewSession()
				session.TargetAlias = strings.Repeat("x", 1<<20)
				client, done := conversation(t.Context(), &slow{sessions: []Session{session}})
				io.WriteString(client, helloLine)
				bufio.NewReader(client).ReadString('\n')
				io.WriteString(client, `{"list":{}}`+"\n")
				begun := time.Now()
				var reader sync.WaitGroup
				reader.Go(func() {
					for {
						if _, err := io.ReadFull(client, make([]byte, test.perSecond)); err != nil {
							return
						}
						time.Sleep(time.Second)
					}
				})
				<-done
				if took := time.Since(begun); took != test.want {
					t.Errorf("hung up after %v, want %v", took, test.want)
				}
				reader.Wait()
			})
		})
	}
}

// TestDiscoverEndsWithItsClient hangs up, and stops the daemon, in the middle.
func TestDiscoverEndsWithItsClient(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(client net.Conn, stop func())
	}{
		{"client gone", func(c net.Conn, _ func()) { c.Close() }},
		{"daemon stops", func(_ net.Conn, stop func()) { stop() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				handler := &slow{ended: make(chan error, 1)}
				client, done := conversation(ctx, handler)
				defer client.Close()
				in := bufio.NewReader(client)
				io.WriteString(client, helloLine)
				in.ReadString('\n')
				from := configOf(conf.NewSession())
				from.Discovery, from.TargetAddress, from.InitiatorName = true, "h", "iqn.2012-06.com.example:i"
				go sendRequest(client, &request{Discover: from})
				time.Sleep(time.Hour) // no limit of its own
				select {
				case <-handler.ended:
					t.Fatal("it ended by itself")
				default:
				}
				begun := time.Now()
				go io.Copy(io.Discard, in)
				test.end(client, stop)
				<-done
				if err := <-handler.ended; !errors.Is(err, context.Canceled) || time.Since(begun) != 0 {
					t.Errorf("%v after %v", err, time.Since(begun))
				}
			})
		})
	}
}

// TestStop cancels a server whose clients wait, or do not read what it writes.
func TestStop(t *testing.T) {
	for _, test := range []struct {
		name string
		sent string
		want time.Duration
	}{
		{"idle", "", 0},
		{"half a line", `{"he`, 0},
		{"does not read", helloLine, defaultLimits.grace},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(t.Context())
				client, done := conversation(ctx, &slow{})
				defer client.Close()
				io.WriteString(client, test.sent)
				synctest.Wait()
				begun := time.Now()
				stop()
				<-done
				if took := time.Since(begun); took != test.want {
					t.Errorf("took %v, want %v", took, test.want)
				}
			})
		})
	}
}

func sendRequest(w io.Writer, r *request) {
	c := &Client{conn: w.(net.Conn), in: bufio.NewReader(strings.NewReader("{}\n"))}
	_, _ = c.call(context.Background(), 0, r)
}
