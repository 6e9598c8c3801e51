package e2e

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// brittle is a file system that shows the files of a directory, as a target's disks
// which can be made to fail, or to stand still.
type brittle struct {
	mount string

	mu      sync.Mutex
	changed sync.Cond
	fails   bool
	holds   bool
}

// newBrittle mounts it, where that can be done.
func newBrittle(t *testing.T, dir string) (*brittle, error) {
	t.Helper()
	b := &brittle{mount: newDir(t)}
	b.changed.L = &b.mu
	behind := &fs.LoopbackRoot{Path: dir}
	root := &brittleNode{LoopbackNode: &fs.LoopbackNode{RootData: behind}, disks: b}
	behind.RootNode = root
	o := &fs.Options{MountOptions: fuse.MountOptions{DirectMount: os.Getuid() == 0, FsName: "brittle", Name: "brittle"}}
	server, err := fs.Mount(b.mount, root, o)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		b.set(false, false)
		if err := server.Unmount(); err != nil {
			t.Errorf("unmounting the target's disks: %v", err)
		}
	})
	return b, nil
}

func (b *brittle) set(fails, holds bool) {
	b.mu.Lock()
	b.fails, b.holds = fails, holds
	b.mu.Unlock()
	b.changed.Broadcast()
}

// pass is the way of each request.
func (b *brittle) pass() syscall.Errno {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.holds {
		b.changed.Wait()
	}
	if b.fails {
		return syscall.EIO
	}
	return 0
}

// faults are what it does in a campaign.
func (b *brittle) faults(c *campaign) []fault {
	return []fault{
		{name: "target's disk holds", class: classTarget, hold: silence, begin: func() { b.set(false, true) }, end: func() { b.set(false, false) }},
		{
			name: "target's disk fails", class: classTarget,
			begin: func() { c.failing.begin(); b.set(true, false) },
			end:   func() { b.set(false, false); c.failing.end() },
		},
	}
}

type brittleNode struct {
	*fs.LoopbackNode
	disks *brittle
}

// WrapChild implements fs.NodeWrapChilder.
func (n *brittleNode) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	return &brittleNode{LoopbackNode: ops.(*fs.LoopbackNode), disks: n.disks}
}

// Open implements fs.NodeOpener: nothing is kept in a cache.
func (n *brittleNode) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	f, err := os.OpenFile(filepath.Join(n.RootData.Path, n.Path(n.Root())), os.O_RDWR, 0)
	if err != nil {
		return nil, 0, fs.ToErrno(err)
	}
	return &brittleFile{n.disks, f}, fuse.FOPEN_DIRECT_IO, 0
}

type brittleFile struct {
	disks *brittle
	f     *os.File
}

func (h *brittleFile) Read(_ context.Context, p []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if errno := h.disks.pass(); errno != 0 {
		return nil, errno
	}
	n, err := h.f.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fs.ToErrno(err)
	}
	return fuse.ReadResultData(p[:n]), 0
}

func (h *brittleFile) Write(_ context.Context, p []byte, off int64) (uint32, syscall.Errno) {
	if errno := h.disks.pass(); errno != 0 {
		return 0, errno
	}
	n, err := h.f.WriteAt(p, off)
	return uint32(n), fs.ToErrno(err)
}

func (h *brittleFile) Fsync(context.Context, uint32) syscall.Errno { return h.disks.pass() }

func (h *brittleFile) Release(context.Context) syscall.Errno { return fs.ToErrno(h.f.Close()) }
