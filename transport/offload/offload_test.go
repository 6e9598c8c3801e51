package offload

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"iscsictl/transport"
	"iscsictl/transport/rdma/verbs"
)

// nobody is an address of this host where nobody listens.
func nobody(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String())
}

// TestSoftwareSaysWhy: where no RDMA device is on the way, and the portal does
// not speak iWARP either, the error has both.
func TestSoftwareSaysWhy(t *testing.T) {
	var log []string
	d := Dialer{Log: func(level int, format string, args ...any) {
		log = append(log, fmt.Sprint(level, " ", fmt.Sprintf(format, args...)))
	}}
	_, err := d.Dial(t.Context(), nobody(t), netip.AddrPort{}, transport.DialOptions{DSCP: -1, PCP: -1})
	if !errors.Is(err, syscall.ECONNREFUSED) || !strings.Contains(err.Error(), "iWARP in software was tried: 127.0.0.1 is reached by lo, which has no RDMA device") {
		t.Errorf("%v", err)
	}
	if len(log) != 2 || !strings.HasPrefix(log[0], "2 ") || !strings.HasPrefix(log[1], "1 ") || !strings.Contains(log[1], "by iwarp: ") {
		t.Errorf("log %q", log)
	}
}

// TestPinned: who asks for a driver gets it, and no other's troubles.
func TestPinned(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	to := nobody(t)
	_, err := Dialer{Pinned: "IWARP"}.Dial(ctx, to, netip.AddrPort{}, transport.DialOptions{DSCP: -1, PCP: -1})
	if !errors.Is(err, syscall.ECONNREFUSED) || strings.Contains(err.Error(), "tried") {
		t.Errorf("iwarp: %v", err)
	}
	if why := verbs.Probe(); why != nil {
		_, err = Dialer{Pinned: "Verbs"}.Dial(ctx, to, netip.AddrPort{}, transport.DialOptions{DSCP: -1, PCP: -1})
		if err == nil || err.Error() != why.Error() {
			t.Errorf("verbs: %v, want %v", err, why)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		pinned string
		iser   bool
		want   string
	}{
		{"", false, ""},
		{"", true, ""},
		{"None", false, ""},
		{"iWARP", true, ""},
		{"iwarp", false, "for Protocol = iSER"},
		{"cxgbei", true, `no offload driver "cxgbei"`},
	} {
		err := Check(c.pinned, c.iser)
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || errors.Is(err, ErrUnavailable)) {
			t.Errorf("%q, iSER %v: %v, want %q", c.pinned, c.iser, err, c.want)
		}
	}
	if why := verbs.Probe(); why != nil {
		err := Check("verbs", true)
		if !errors.Is(err, ErrUnavailable) || !errors.Is(err, why) || !strings.HasPrefix(err.Error(), "Offload = verbs: ") {
			t.Errorf("verbs: %v", err)
		}
	}
}
