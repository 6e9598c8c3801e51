package users

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"iscsictl/device"
)

func TestFind(t *testing.T) {
	at := root{t.TempDir(), t.TempDir()}
	write := func(path, content string) {
		t.Helper()
		os.MkdirAll(filepath.Dir(path), 0o755)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(at.sys+"/block/loop7/dev", "7:7\n")
	write(at.sys+"/block/loop7/loop7p1/dev", "259:3\n")
	write(at.sys+"/block/loop7/loop7p2/dev", "259:4\n")
	write(at.sys+"/block/loop7/loop7p2/holders/dm-0", "")
	write(at.proc+"/self/mountinfo", `22 1 254:1 / / rw - ext4 /dev/root rw
30 22 259:3 / /mnt/with\040space rw,relatime shared:1 - ext4 /dev/loop7p1 rw
31 22 0:40 /sub /btr rw - btrfs /dev/loop7 rw
32 22 7:70 / /other rw - ext4 /dev/loop70 rw
broken line
`)
	write(at.proc+"/swaps", "Filename\tType\tSize\n/dev/loop7p2 partition 100 0 -2\n/dev/loop70 partition 100 0 -2\n")
	write(at.proc+"/42/comm", "fio\n")
	write(at.proc+"/43/comm", "other\n")
	for pid, node := range map[int]string{42: "/dev/loop7", 43: "/dev/loop70"} {
		dir := fmt.Sprintf("%s/%d/fd", at.proc, pid)
		os.MkdirAll(dir, 0o755)
		os.Symlink("/dev/null", dir+"/0")
		os.Symlink(node, dir+"/5")
	}
	want := []device.User{
		{What: "mounted on /mnt/with space"},
		{What: "mounted on /btr"},
		{What: "swap on /dev/loop7p2"},
		{What: "held by dm-0"},
		{PID: 42, What: "process fio"},
	}
	if diff := cmp.Diff(want, find(at, "loop7")); diff != "" {
		t.Errorf("users (-want +got):\n%s", diff)
	}
	if users := find(root{t.TempDir(), t.TempDir()}, "loop7"); len(users) != 0 {
		t.Errorf("users out of nothing: %v", users)
	}
}

func FuzzMounts(f *testing.F) {
	f.Add("30 22 259:3 / /mnt rw,relatime shared:1 - ext4 /dev/loop7p1 rw\n")
	f.Add(`1 2 0:3 / /a\040b\0 rw - fuse.x \134 rw`)
	f.Add(" - \n")
	f.Fuzz(func(t *testing.T, s string) {
		for _, m := range parseMounts(s) {
			if m.Kind == "" {
				t.Errorf("no type in %q", s)
			}
		}
	})
}
