package nbd

import (
	"bytes"
	"io"
	"net"
	"testing"

	"iscsictl/device/devicetest"
)

// talk is a peer that says what was prepared and does not listen.
type talk struct {
	io.Reader
	said bytes.Buffer
}

func (t *talk) Write(p []byte) (int, error) { return t.said.Write(p) }

func FuzzNegotiate(f *testing.F) {
	flags := be.AppendUint32(nil, flagFixedNewstyle|flagNoZeroes)
	goDefault := option(optGo, make([]byte, 6))
	f.Add(append(bytes.Clone(flags), goDefault...))
	f.Add(append(be.AppendUint32(nil, 0), option(optExportName, []byte("x"))...))
	f.Add(append(append(bytes.Clone(flags), option(optStructuredReply, nil)...), goDefault...))
	f.Add(append(append(bytes.Clone(flags), option(optList, nil)...), option(optAbort, nil)...))
	f.Add(append(bytes.Clone(flags), option(optInfo, []byte("\x00\x00\x00\x01x\x00\x03\x00\x01\x00\x02\x00\x03"))...))
	f.Add(append(bytes.Clone(flags), option(optInfo, []byte("\xff\xff\xff\xffx\x00\x03"))...))
	f.Add(append(bytes.Clone(flags), option(5, make([]byte, maxOption+1))...))
	disk := devicetest.CheckedDisk(f, devicetest.Geometry4M, 4<<20)
	e, err := NewExport(disk, "x", "about it")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p := &talk{Reader: bytes.NewReader(b)}
		negotiate(p, e)
		if p.said.Len() > 64<<10 {
			t.Errorf("%d bytes were answered to %d", p.said.Len(), len(b))
		}
	})
}

func FuzzIntake(f *testing.F) {
	f.Add(rawCommand(cmdRead, 0, 1, 0, 512), true)
	f.Add(append(rawCommand(cmdWrite, cmdFlagFUA, 1, 0, 512), make([]byte, 512)...), false)
	f.Add(append(rawCommand(cmdWriteZeroes, cmdFlagNoHole, 1, 0, 4096), rawCommand(cmdTrim, 0, 2, 0, 8192)...), false)
	f.Add(append(rawCommand(cmdFlush, 0, 1, 0, 0), rawCommand(cmdDisconnect, 0, 2, 0, 0)...), true)
	f.Add(rawCommand(cmdRead, 0, 1, 0, 3<<20), false)
	f.Add(rawCommand(cmdRead, cmdFlagDF, 1, 0, 3<<20), true)
	f.Add(rawCommand(cmdWrite, 0, 1, 1<<63, 1<<31), true)
	disk := devicetest.CheckedDisk(f, devicetest.Geometry4M, 1<<20)
	f.Fuzz(func(t *testing.T, b []byte, structured bool) {
		peer, _, wait := serve(t, disk, structured)
		go func() {
			peer.Write(b)
			peer.(*net.UnixConn).CloseWrite()
		}()
		io.Copy(io.Discard, peer)
		wait()
		if n := disk.Arena().InUse(); n != 0 {
			t.Fatalf("%d bytes were not given back", n)
		}
	})
}

// TestNegotiateTruncated: a negotiation that ends early is an error, wherever.
func TestNegotiateTruncated(t *testing.T) {
	disk := devicetest.CheckedDisk(t, devicetest.Geometry4M, 4<<20)
	e, err := NewExport(disk, "x", "")
	if err != nil {
		t.Fatal(err)
	}
	b := be.AppendUint32(nil, flagFixedNewstyle)
	b = append(b, option(optStructuredReply, nil)...)
	b = append(b, option(optGo, []byte("\x00\x00\x00\x01x\x00\x01\x00\x03"))...)
	for n := range b {
		if _, err := negotiate(&talk{Reader: bytes.NewReader(b[:n])}, e); err == nil {
			t.Errorf("%d bytes of %d were enough", n, len(b))
		}
	}
	if structured, err := negotiate(&talk{Reader: bytes.NewReader(b)}, e); err != nil || !structured {
		t.Errorf("structured %v, %v", structured, err)
	}
}

func TestNegotiateBounds(t *testing.T) {
	disk := devicetest.CheckedDisk(t, devicetest.Geometry4M, 4<<20)
	e, err := NewExport(disk, "x", "")
	if err != nil {
		t.Fatal(err)
	}
	flags := be.AppendUint32(nil, flagFixedNewstyle)
	for name, b := range map[string][]byte{
		"unknown flags":    be.AppendUint32(nil, 1<<5),
		"many options":     append(bytes.Clone(flags), bytes.Repeat(option(optList, nil), maxOptions+1)...),
		"endless option":   append(bytes.Clone(flags), be.AppendUint32(be.AppendUint32(be.AppendUint64(nil, magicOption), 77), 1<<31)...),
		"unknown export":   append(bytes.Clone(flags), option(optExportName, []byte("y"))...),
		"bad option magic": append(bytes.Clone(flags), make([]byte, 16)...),
		"abort":            append(bytes.Clone(flags), option(optAbort, nil)...),
	} {
		if _, err := negotiate(&talk{Reader: bytes.NewReader(b)}, e); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	// Refused politely, after which the negotiation goes on.
	for name, x := range map[string]struct {
		option []byte
		want   uint32
	}{
		"TLS":                    {option(5, nil), repErrUnsup},
		"metadata context":       {option(10, []byte("abc")), repErrUnsup},
		"extended headers":       {option(11, nil), repErrUnsup},
		"long option":            {option(77, make([]byte, maxOption+1)), repErrTooBig},
		"list with data":         {option(optList, []byte("x")), repErrInvalid},
		"structured with data":   {option(optStructuredReply, []byte("x")), repErrInvalid},
		"info of another export": {option(optInfo, []byte("\x00\x00\x00\x01y\x00\x00")), repErrUnknown},
		"info with a bad length": {option(optInfo, []byte("\x00\x00\x00\x09y\x00\x00")), repErrInvalid},
		"info with a bad count":  {option(optInfo, []byte("\x00\x00\x00\x01x\x00\x09")), repErrInvalid},
	} {
		b := append(append(bytes.Clone(flags), x.option...), option(optGo, make([]byte, 6))...)
		p := &talk{Reader: bytes.NewReader(b)}
		if _, err := negotiate(p, e); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := be.Uint32(p.said.Bytes()[18+12:]); got != x.want {
			t.Errorf("%s: reply %#x, want %#x", name, got, x.want)
		}
	}
}
