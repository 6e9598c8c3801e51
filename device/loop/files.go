package loop

import (
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"iscsictl/arena"
	"iscsictl/device"
)

const (
	diskInode = 2
	// maxTransfer is the most that the kernel asks FUSE for at once.
	maxTransfer = 1 << 20
	// maxParts is how many of the disk's requests one of FUSE's may be at a time.
	maxParts = 64
)

// diskFS is a FUSE file system with one file, which is a disk. Its methods are
// called by go-fuse, each call by a goroutine of its own that may wait.
type diskFS struct {
	fuse.RawFileSystem // answers that what is missing here is not supported
	disk               device.Disk
	geo                atomic.Pointer[device.Geometry]
	whole              int // the largest read or write, in bytes
	born               time.Time
	server             *fuse.Server
	stopped            chan struct{} // closed: requests fail

	mu      sync.Mutex
	free    []*call
	under   int // calls under way
	drained chan struct{}
	ending  bool
}

func newDiskFS(disk device.Disk, geo device.Geometry) *diskFS {
	f := &diskFS{
		RawFileSystem: fuse.NewDefaultRawFileSystem(), disk: disk, born: time.Now(),
		stopped: make(chan struct{}), drained: make(chan struct{}),
	}
	f.geo.Store(&geo)
	// Each call has one extent at a time; several of the largest fit.
	f.whole = min(maxTransfer, disk.Arena().Size()/8, maxParts*geo.MaxTransfer)
	f.whole = max(f.whole-f.whole%arena.PageSize, arena.PageSize)
	return f
}

func (f *diskFS) geometry() device.Geometry { return *f.geo.Load() }

// String is the file system's type.
func (f *diskFS) String() string { return "iscsid" }

// Init is told of the server.
func (f *diskFS) Init(s *fuse.Server) { f.server = s }

// invalidate has the kernel ask for the file's size again.
func (f *diskFS) invalidate() { f.server.InodeNotify(diskInode, -1, 0) }

func (f *diskFS) attr(ino uint64, out *fuse.Attr) fuse.Status {
	out.Ino = ino
	out.SetTimes(&f.born, &f.born, &f.born)
	out.Owner = fuse.Owner{Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())}
	switch ino {
	case fuse.FUSE_ROOT_ID:
		out.Mode, out.Nlink = unix.S_IFDIR|0o700, 2
	case diskInode:
		geo := f.geo.Load()
		out.Mode, out.Nlink = unix.S_IFREG|0o600, 1
		out.Size = uint64(geo.Size)
		out.Blocks = uint64(geo.Size / 512)
		out.Blksize = arena.PageSize
	default:
		return fuse.ENOENT
	}
	return fuse.OK
}

// Lookup and the next methods are RawFileSystem's. Attributes are never
// cached: the loop driver asks for them only when it has to know.
func (f *diskFS) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if h.NodeId != fuse.FUSE_ROOT_ID || name != fileName {
		return fuse.ENOENT
	}
	out.NodeId = diskInode
	return f.attr(diskInode, &out.Attr)
}

// GetAttr returns attributes.
func (f *diskFS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return f.attr(in.NodeId, &out.Attr)
}

// Open opens the file, past the page cache: the loop device has its own.
func (f *diskFS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.NodeId != diskInode {
		return fuse.ENOENT
	}
	if in.Flags&unix.O_ACCMODE != unix.O_RDONLY && f.geo.Load().ReadOnly {
		return fuse.EROFS
	}
	out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES | fuse.FOPEN_NOFLUSH
	return fuse.OK
}

// StatFs tells the loop driver the granularity of discards: a block's size.
func (f *diskFS) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	geo := f.geo.Load()
	out.Bsize = uint32(max(geo.LogicalBlock, geo.DiscardUnit))
	out.Frsize = out.Bsize
	out.Blocks = uint64(geo.Size) / uint64(out.Frsize)
	out.NameLen = 255
	return fuse.OK
}

// Read reads from the disk. Its result goes to the kernel from the extent.
func (f *diskFS) Read(_ <-chan struct{}, in *fuse.ReadIn, _ []byte) (fuse.ReadResult, fuse.Status) {
	geo := f.geo.Load()
	if in.NodeId != diskInode {
		return nil, fuse.EBADF
	}
	if in.Offset >= uint64(geo.Size) {
		return fuse.ReadResultData(nil), fuse.OK
	}
	n := min(int64(in.Size), geo.Size-int64(in.Offset))
	if n == 0 {
		return fuse.ReadResultData(nil), fuse.OK
	}
	c, errno := f.begin(geo, int64(in.Offset), n)
	if errno != 0 {
		return nil, fuse.Status(errno)
	}
	if errno := c.transfer(device.Read, geo, int64(in.Offset)); errno != 0 {
		f.end(c)
		return nil, fuse.Status(errno)
	}
	return c, fuse.OK // ended by Done
}

// Write writes to the disk. This is where data is copied: go-fuse has it in a
// buffer, of which nothing may be kept.
func (f *diskFS) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	geo := f.geo.Load()
	switch {
	case in.NodeId != diskInode:
		return 0, fuse.EBADF
	case geo.ReadOnly:
		return 0, fuse.EROFS
	case len(data) == 0:
		return 0, fuse.OK
	case in.Offset > uint64(geo.Size) || uint64(len(data)) > uint64(geo.Size)-in.Offset:
		return 0, fuse.Status(syscall.ENOSPC)
	}
	c, errno := f.begin(geo, int64(in.Offset), int64(len(data)))
	if errno != 0 {
		return 0, fuse.Status(errno)
	}
	defer f.end(c)
	copy(c.ext.Bytes(), data)
	if errno := c.transfer(device.Write, geo, int64(in.Offset)); errno != 0 {
		return 0, fuse.Status(errno)
	}
	return uint32(len(data)), fuse.OK
}

// Fsync makes what was written durable.
func (f *diskFS) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if in.NodeId != diskInode || !f.geo.Load().WriteCache {
		return fuse.OK
	}
	c := f.take()
	if c == nil {
		return fuse.EIO
	}
	defer f.end(c)
	return fuse.Status(c.flush())
}

// Flush comes when the file is closed, which promises nothing.
func (f *diskFS) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }

// Fallocate carries out what the loop driver makes of discards and of writes
// of zeroes. Both may come as holes to be punched, which have to read as
// zeroes, as a discarded range of a disk need not: so it is WriteZeroes either
// way, with which a thin disk gives its blocks back too.
func (f *diskFS) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	geo := f.geo.Load()
	mode := in.Mode &^ unix.FALLOC_FL_KEEP_SIZE
	switch {
	case in.NodeId != diskInode:
		return fuse.EBADF
	case geo.ReadOnly:
		return fuse.EROFS
	case geo.ZeroesMax == 0, mode != unix.FALLOC_FL_PUNCH_HOLE && mode != unix.FALLOC_FL_ZERO_RANGE:
		return fuse.Status(syscall.EOPNOTSUPP)
	case in.Offset > uint64(geo.Size) || in.Length > uint64(geo.Size)-in.Offset:
		return fuse.Status(syscall.ENOSPC)
	}
	if !aligned(geo, int64(in.Offset), int64(in.Length)) {
		return fuse.EINVAL
	}
	c := f.take()
	if c == nil {
		return fuse.EIO
	}
	defer f.end(c)
	return fuse.Status(c.zero(geo, int64(in.Offset), int64(in.Length), mode == unix.FALLOC_FL_ZERO_RANGE))
}

func aligned(geo *device.Geometry, off, n int64) bool {
	return (off|n)&int64(geo.LogicalBlock-1) == 0
}
