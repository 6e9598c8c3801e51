package ublk

import (
	"strings"
	"testing"

	"iscsictl/device/devicetest"
)

func TestFileSystem(t *testing.T) {
	for kind, mkfs := range map[string][]string{"ext4": {"mkfs.ext4", "-q", "-F"}, "xfs": {"mkfs.xfs", "-q", "-f"}} {
		t.Run(kind, func(t *testing.T) {
			geo := devicetest.Geometry4M
			geo.Size = 512 << 20
			disk := devicetest.CheckedDisk(t, geo, 32<<20)
			devicetest.FileSystem(t, attach(t, backend(t), disk), disk, kind, mkfs, nil)
		})
	}
}

func TestDirtyDetach(t *testing.T) {
	disk := devicetest.CheckedDisk(t, devicetest.Geometry4M, 32<<20)
	devicetest.DirtyDetach(t, attach(t, backend(t), disk), disk)
}

func TestNoAllocation(t *testing.T) {
	devicetest.NoAllocation(t, attach(t, backend(t), devicetest.CheckedDisk(t, devicetest.Geometry4M, 32<<20)))
}

func TestFio(t *testing.T) {
	b := backend(t)
	geo := devicetest.Geometry4M
	geo.Size, geo.MaxTransfer = 32<<20, 1<<20
	disk := devicetest.CheckedDisk(t, geo, 32<<20)
	disk.Shuffle(1)
	dev := attach(t, b, disk)
	for _, job := range [][]string{
		{"--rw=randwrite", "--bsrange=512-64k", "--iodepth=32", "--direct=1"},
		{"--rw=randrw", "--bs=4k", "--iodepth=128", "--direct=1", "--fsync=64"},
		{"--rw=write", "--bs=1M", "--iodepth=8", "--direct=1"},
		{"--rw=randwrite", "--bs=512", "--iodepth=1", "--direct=1", "--io_size=1M"},
		{"--rw=randwrite", "--bsrange=4k-1M", "--iodepth=16", "--direct=0", "--fsync=32"},
	} {
		out := devicetest.RunProgram(t, "fio", append(job, "--name=x", "--ioengine=libaio", "--filename=/dev/"+dev.Path(),
			"--size=32M", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--randseed=7")...)
		if !strings.Contains(out, "err= 0") {
			t.Errorf("fio:\n%s", out)
		}
	}
}

func BenchmarkFio(b *testing.B) {
	back := backend(b)
	geo := devicetest.Geometry4M
	geo.Size, geo.MaxTransfer = 64<<20, 1<<20
	dev := attach(b, back, devicetest.CheckedDisk(b, geo, 32<<20))
	devicetest.Fio(b, "--ioengine=libaio", "--direct=1", "--size=64M", "--filename=/dev/"+dev.Path())
}
