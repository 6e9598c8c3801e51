package main

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestMapping(t *testing.T) {
	for line, want := range map[string]int{
		"00400000-00a3f000 r-xp 00000000 fe:00 123                                /usr/sbin/iscsid":   unix.MADV_POPULATE_READ,
		"00a3f000-00f00000 r--p 0063f000 fe:00 123                                /usr/sbin/iscsid":   unix.MADV_POPULATE_READ,
		"00f00000-00f40000 rw-p 00b00000 fe:00 123                                /usr/sbin/iscsid":   unix.MADV_POPULATE_WRITE,
		"7f0000000000-7f0004000000 rw-s 00000000 00:01 2050                       /memfd:iscsi-arena": 0,
		"c000000000-c004000000 rw-p 00000000 00:00 0 ":                                                0,
		"7f0000000000-7f0000001000 ---p 00000000 fe:00 123                        /usr/lib/libx.so":   0,
		"7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]":            0,
		"x-y r-xp 00000000 fe:00 123                                              /usr/sbin/iscsid":   0,
		"": 0,
	} {
		start, size, advice, ok := mapping(line)
		if ok != (want != 0) || advice != want {
			t.Errorf("%q: %v, advice %d, want %d", line, ok, advice, want)
		}
		if ok && (start < 0x400000 || size == 0) {
			t.Errorf("%q: %#x, %#x bytes", line, start, size)
		}
	}
}

// TestMayExceed: what is told of the limit of locked memory is so.
func TestMayExceed(t *testing.T) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &r); err != nil {
		t.Fatal(err)
	}
	if r.Cur > 1<<30 {
		t.Skipf("SKIP: the limit of locked memory is %d bytes: nothing to exceed", r.Cur)
	}
	mem, err := unix.Mmap(-1, 0, int(r.Cur)+1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	if got, locked := mayExceed(r.Cur), unix.Mlock(mem) == nil; got != locked {
		t.Errorf("mayExceed says %v, and locking more is %v", got, locked)
	}
}
