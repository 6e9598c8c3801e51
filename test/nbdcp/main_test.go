package main

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestCopy copies to a server of other people and back.
func TestCopy(t *testing.T) {
	nbd, err := exec.LookPath("qemu-nbd")
	if err != nil {
		t.Skip("qemu-nbd is not installed (run: make deps)")
	}
	dir := t.TempDir()
	image, socket := filepath.Join(dir, "image"), filepath.Join(dir, "disk.sock")
	const size = 3<<20 + 512
	if err := os.WriteFile(image, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	server := exec.Command(nbd, "-f", "raw", "-t", "-k", socket, image)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		server.Process.Kill()
		server.Wait()
	}()
	for range 500 {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	want := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(want)
	source, copied := filepath.Join(dir, "source"), filepath.Join(dir, "copy")
	if err := os.WriteFile(source, want, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(source, socket); err != nil {
		t.Fatal(err)
	}
	if err := run(socket, copied); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(copied)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("what came back is not what was copied")
	}
	if err := run(source+"x", socket); err == nil {
		t.Error("a file that is not there was copied")
	}
	if err := os.WriteFile(source, make([]byte, size+1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(source, socket); err == nil {
		t.Error("a file larger than the disk was copied")
	}
}
