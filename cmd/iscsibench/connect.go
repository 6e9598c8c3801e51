package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/bits"
	"strconv"

	"iscsictl/arena"
	"iscsictl/conf"
	"iscsictl/session"
	"iscsictl/transport"
	"iscsictl/transport/offload"
	"iscsictl/transport/tcp"
)

// probeMemory is what each session's arena has for commands that ask what there is.
const probeMemory = 1 << 20

// bench is all that one run has open.
type bench struct {
	o      *options
	log    *slog.Logger
	nexus  []*nexus
	loads  []*load
	failed chan struct{} // capacity 1: a load has failed
}

// nexus is one session, and the channel on which it tells of its fate.
type nexus struct {
	session *session.Session
	arena   *arena.Arena
	fate    chan error // nil: up
}

// Up implements session.Handler.
func (n *nexus) Up(uint64) { n.tell(nil) }

// Down implements session.Handler.
func (n *nexus) Down(err error) { n.tell(err) }

// Async implements session.Handler.
func (n *nexus) Async(uint64, []byte) {}

// tell keeps the first news, for connect, and then the first of those after, for load.failure.
func (n *nexus) tell(err error) {
	select {
	case n.fate <- err:
	default:
	}
}

// newLog shows warnings, of sessions that have trouble.
func newLog(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelError}))
}

// connect logs in, finds the logical units and makes the load ready.
func (b *bench) connect(ctx context.Context) error {
	var units []unit
	for i := range b.o.sessions {
		n, err := b.open(ctx)
		if err != nil {
			return fmt.Errorf("%s at %s: %w", b.o.target.TargetName, b.o.target.TargetAddress, err)
		}
		if i == 0 {
			if units, err = (prober{ctx, n}).units(b.o); err != nil {
				return err
			}
		} else if err := (prober{ctx, n}).settle(units); err != nil {
			return err
		}
		l, err := newLoad(b.o, n, units, i, b.failed)
		if err != nil {
			return err
		}
		b.loads = append(b.loads, l)
	}
	return nil
}

// open logs in once. A session would go on trying: the first failure counts.
func (b *bench) open(ctx context.Context) (*nexus, error) {
	tunables := conf.NewTunables()
	if err := tunables.Set("kern.iscsi.maxtags", strconv.Itoa(b.o.depth)); err != nil {
		return nil, err
	}
	if err := tunables.Set("kern.iser.spin", strconv.Itoa(b.o.spin)); err != nil {
		return nil, err
	}
	a, err := arena.New(arenaSize(b.o.depth, b.o.block))
	if err != nil {
		return nil, err
	}
	n := &nexus{arena: a, fate: make(chan error, 1)}
	isid := [6]byte{0x80} // of the type "random" (RFC 7143 §11.12.5)
	rand.Read(isid[1:])   // never fails (crypto/rand)
	n.session = session.New(session.Config{
		ID: uint32(len(b.nexus) + 1), ISID: isid, Target: b.o.target, Tunables: tunables,
		Dialer: func(t conf.Session) transport.Dialer { return dialer(t, tunables) },
		Arena:  a, Handler: n, Log: b.log, Rand: rand.Reader,
	})
	n.session.Start()
	b.nexus = append(b.nexus, n)
	select {
	case err = <-n.fate:
	case <-ctx.Done():
		err = errors.New("interrupted")
	}
	if err != nil {
		return nil, err
	}
	p := n.session.Info().Params
	if b.o.target.HeaderDigest && !(p.HeaderDigest && p.DataDigest) {
		return nil, errors.New("the target does not do CRC32C digests")
	}
	return n, nil
}

// dialer returns what connects a session.
func dialer(t conf.Session, tunables *conf.Tunables) transport.Dialer {
	if t.ISER {
		return offload.Dialer{Pinned: t.Offload, Spin: tunables.ISERSpin}
	}
	return tcp.Dialer{}
}

// arenaSize is the least power of two that holds what a session needs.
func arenaSize(depth, block int) int {
	extent := 1 << bits.Len(uint(max(block, arena.PageSize)-1))
	return 1 << bits.Len(uint(depth*extent+probeMemory-1))
}

// close logs out of all sessions.
func (b *bench) close() error {
	var err error
	for _, n := range b.nexus {
		n.session.Close()
	}
	for _, l := range b.loads {
		l.free()
	}
	for _, n := range b.nexus {
		err = errors.Join(err, n.arena.Close())
	}
	return err
}
