package nbd

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"iscsictl/device"
	"iscsictl/device/devicetest"
)

// attach makes a disk with its socket, and returns that and its URI.
func attach(t testing.TB, geo device.Geometry) (disk *devicetest.Disk, uri string) {
	t.Helper()
	disk = devicetest.CheckedDisk(t, geo, 32<<20)
	d, err := NewSocket(t.TempDir(), 0o600, -1).Attach(t.Context(), disk, device.Name{Session: 1, Target: "iqn.2012-06.example:disk", Serial: "abc"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Detach() })
	return disk, "nbd+unix:///?socket=" + d.Path()
}

func TestNbdinfo(t *testing.T) {
	geo := devicetest.Geometry4M
	geo.LogicalBlock, geo.Rotational = 4096, true
	_, uri := attach(t, geo)
	var got struct {
		Structured bool `json:"structured"`
		Exports    []struct {
			Name        string `json:"export-name"`
			Description string `json:"description"`
			Size        int64  `json:"export-size"`
			Min         int    `json:"block_size_minimum"`
			Max         int    `json:"block_size_maximum"`
			Flush       bool   `json:"can_flush"`
			FUA         bool   `json:"can_fua"`
			MultiConn   bool   `json:"can_multi_conn"`
			Trim        bool   `json:"can_trim"`
			Zero        bool   `json:"can_zero"`
			DF          bool   `json:"can_df"`
			Rotational  bool   `json:"is_rotational"`
			ReadOnly    bool   `json:"is_read_only"`
		} `json:"exports"`
	}
	for _, args := range [][]string{{"--json", uri}, {"--json", "--list", uri}} {
		out := devicetest.RunProgram(t, "nbdinfo", args...)
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if len(got.Exports) != 1 {
			t.Fatalf("%d exports\n%s", len(got.Exports), out)
		}
		e := got.Exports[0]
		if e.Size != geo.Size || e.Min != 4096 || e.Max < 1<<20 || !e.Flush || !e.FUA || !e.MultiConn ||
			!e.Trim || !e.Zero || !e.DF || !e.Rotational || e.ReadOnly || !got.Structured {
			t.Errorf("not as served:\n%s", out)
		}
		if !strings.Contains(e.Description, "iqn.2012-06.example:disk, LUN 0, serial number abc") {
			t.Errorf("description %q", e.Description)
		}
	}
	if got.Exports[0].Name != "iqn.2012-06.example:disk/0" {
		t.Errorf("listed as %q", got.Exports[0].Name)
	}
}

// randomFile makes a file of n bytes, the same each time.
func randomFile(t testing.TB, n int) (path string, content []byte) {
	t.Helper()
	content = make([]byte, n)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(content)
	clear(content[n/4 : n/2]) // for WRITE_ZEROES
	path = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, content
}

func TestNbdcopy(t *testing.T) {
	geo := devicetest.Geometry4M
	geo.Size = 32 << 20
	disk, uri := attach(t, geo)
	file, content := randomFile(t, int(geo.Size))
	devicetest.RunProgram(t, "nbdcopy", "--flush", "--connections=4", "--requests=64", file, uri)
	got := make([]byte, len(content))
	disk.Peek(got, 0)
	if !bytes.Equal(got, content) {
		t.Fatal("the disk is not what was copied to it")
	}
	back := filepath.Join(t.TempDir(), "back")
	devicetest.RunProgram(t, "nbdcopy", "--request-size=4194304", uri, back)
	if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("what was copied from the disk differs: %v", err)
	}
	if disk.Count(device.Flush) == 0 {
		t.Error("no flush came")
	}
}

func TestQemu(t *testing.T) {
	geo := devicetest.Geometry4M
	geo.Size = 32 << 20
	disk, uri := attach(t, geo)
	file, content := randomFile(t, int(geo.Size))
	devicetest.RunProgram(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", file, uri)
	got := make([]byte, len(content))
	disk.Peek(got, 0)
	if !bytes.Equal(got, content) {
		t.Fatal("the disk is not what was converted to it")
	}
	devicetest.RunProgram(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", file, uri)
	out := devicetest.RunProgram(t, "qemu-io", "-f", "raw", "-c", "write -f -P 0x5a 1M 64k", "-c", "read -P 0x5a 1M 64k",
		"-c", "discard 8M 4M", "-c", "write -z -u 2M 1M", "-c", "read -P 0 2M 1M", "-c", "flush",
		"-c", "aio_write -P 1 0 512", "-c", "aio_read 4096 1M", "-c", "aio_flush", uri)
	if strings.Contains(out, "error") || strings.Contains(out, "failed") {
		t.Errorf("qemu-io:\n%s", out)
	}
	if disk.FUA() == 0 || disk.Count(device.Discard) == 0 || disk.Count(device.WriteZeroes) == 0 {
		t.Error("FUA, discard or write zeroes did not reach the disk")
	}
}

func TestFio(t *testing.T) {
	geo := devicetest.Geometry4M
	geo.Size = 32 << 20
	disk, uri := attach(t, geo)
	disk.Shuffle(1)
	for _, rw := range []string{"randwrite", "write"} {
		bs := map[string]string{"randwrite": "--bsrange=512-64k", "write": "--bs=1M"}[rw]
		out := devicetest.RunProgram(t, "fio", "--name=x", "--ioengine=nbd", "--uri="+uri, "--rw="+rw, bs, "--iodepth=32",
			"--size=32M", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--randseed=7", "--fsync=64")
		if !strings.Contains(out, "err= 0") {
			t.Errorf("fio:\n%s", out)
		}
	}
}

func TestReadOnlyToQemu(t *testing.T) {
	geo := devicetest.Geometry4M
	geo.ReadOnly = true
	_, uri := attach(t, geo)
	if out := devicetest.RunProgram(t, "nbdinfo", "--is", "read-only", uri); out != "" {
		t.Error(out)
	}
	out := devicetest.RunProgram(t, "qemu-io", "-r", "-f", "raw", "-c", "read 0 1M", uri)
	if !strings.Contains(out, "read 1048576/1048576") {
		t.Error(out)
	}
}

func BenchmarkFio(b *testing.B) {
	geo := devicetest.Geometry4M
	geo.Size = 256 << 20
	_, uri := attach(b, geo)
	devicetest.Fio(b, "--ioengine=nbd", "--uri="+uri, "--size=256M")
}
