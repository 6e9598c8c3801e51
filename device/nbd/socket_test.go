package nbd

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"iscsictl/device"
	"iscsictl/device/devicetest"
)

func TestConformance(t *testing.T) {
	for _, structured := range []bool{false, true} {
		name := "simple"
		if structured {
			name = "structured"
		}
		t.Run(name, func(t *testing.T) {
			devicetest.Run(t, &devicetest.Harness{
				New: func(t *testing.T) device.Backend { return NewSocket(t.TempDir(), 0o600, -1) },
				Open: func(_ *testing.T, d device.Device) (devicetest.Client, error) {
					nc, err := net.Dial("unix", d.Path())
					if err != nil {
						return nil, err
					}
					c, err := newClient(nc, structured)
					if err != nil {
						nc.Close()
						return nil, err
					}
					return c.start(), nil
				},
				Alloc: func(n int) []byte { return make([]byte, n) },
			})
		})
	}
}

func TestSocketFile(t *testing.T) {
	disk := devicetest.CheckedDisk(t, devicetest.Geometry4M, 4<<20)
	dir := t.TempDir()
	b := NewSocket(dir, 0o660, -1)
	name := device.Name{Session: 12, LUN: 4, Target: "iqn.x"}
	path := filepath.Join(dir, "12-4.sock")

	// One that a dead daemon left behind is replaced.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if d, err := b.Attach(t.Context(), disk, name); err == nil {
		d.Detach()
		t.Fatal("a socket in use was replaced")
	}
	l.Close()
	d, err := b.Attach(t.Context(), disk, name)
	if err != nil {
		t.Fatal(err)
	}
	if d.Path() != path {
		t.Errorf("path %s, want %s", d.Path(), path)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("socket %v, %v; want mode 0660", st.Mode(), err)
	}
	if err := d.Detach(); err != nil {
		t.Error(err)
	}
	if err := d.Detach(); err != nil {
		t.Error("again:", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestSocketRefusesOtherFiles(t *testing.T) {
	disk := devicetest.CheckedDisk(t, devicetest.Geometry4M, 4<<20)
	dir := t.TempDir()
	b := NewSocket(dir, 0o600, -1)
	path := filepath.Join(dir, "1-0.sock")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if d, err := b.Attach(t.Context(), disk, device.Name{Session: 1}); err == nil {
		d.Detach()
		t.Error("a file was replaced")
	}
	if lines := b.Clean(); len(lines) != 0 {
		t.Errorf("cleaned %q", lines)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestClean(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "3-1.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	b := NewSocket(dir, 0o600, -1)
	if lines := b.Clean(); len(lines) != 0 {
		t.Errorf("cleaned a socket in use: %q", lines)
	}
	l.Close()
	if lines := b.Clean(); len(lines) != 1 {
		t.Errorf("cleaned %q, want one line", lines)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket is still there")
	}
}

func TestLongPath(t *testing.T) {
	disk := devicetest.CheckedDisk(t, devicetest.Geometry4M, 4<<20)
	dir := filepath.Join(t.TempDir(), string(make([]byte, 0, 100))+"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789")
	if d, err := NewSocket(dir, 0o600, -1).Attach(t.Context(), disk, device.Name{}); err == nil {
		d.Detach()
		t.Error("a path that is too long for a socket was taken")
	}
}
