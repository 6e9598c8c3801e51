package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A process that serves a disk must never wait for memory that can only be had
// by writing to that disk. Three things see to that; where one cannot be had,
// as in a container without the capability for it, the daemon goes on without.
//
//   - PR_SET_IO_FLUSHER: when a thread of ours needs memory in the kernel, the
//     kernel does not write to disks or file systems to find some.
//   - What we have stays: nothing is swapped out, or dropped to be read again.
//     Memory is locked when it is first used (MCL_ONFAULT): the address space
//     that Go's runtime sets aside is far larger than what it uses. What data
//     passes through is there beforehand: see arena.NewResident.
//   - The kernel ends others when there is no memory left, and not us.

// protect does all three, and logs what cannot be done.
func protect(log *slog.Logger) {
	var missing []string
	for _, step := range []func() error{checkIOFlusher, lockMemory, spareFromOOM} {
		if err := step(); err != nil {
			missing = append(missing, err.Error())
		}
	}
	if len(missing) == 0 {
		return
	}
	text := "not protected against a shortage of memory, in which disks could stall: " + strings.Join(missing, "; ")
	if os.Geteuid() == 0 {
		log.Warn(text)
	} else {
		log.Info(text) // who is not root has NBD sockets, and cannot have it
	}
}

// checkIOFlusher returns nil where confine has marked the threads.
func checkIOFlusher() error {
	on, err := unix.PrctlRetInt(unix.PR_GET_IO_FLUSHER, 0, 0, 0, 0)
	switch {
	case errors.Is(err, unix.EPERM):
		return errors.New("PR_SET_IO_FLUSHER needs CAP_SYS_RESOURCE")
	case errors.Is(err, unix.EINVAL):
		return errors.New("this kernel has no PR_SET_IO_FLUSHER (needs Linux 5.6)")
	case err != nil:
		return fmt.Errorf("PR_SET_IO_FLUSHER: %w", err)
	case on != 1:
		return errors.New("PR_SET_IO_FLUSHER could not be set for all threads")
	}
	return nil
}

// lockMemory locks what there is and what will be, when it is used first.
func lockMemory() error {
	limit, err := raiseMemlock()
	if err != nil {
		return fmt.Errorf("the limit of locked memory: %w", err)
	}
	// Under a limit that holds for us, Go's runtime would get no more
	// memory at some time, and end.
	if limit != unix.RLIM_INFINITY && !mayExceed(limit) {
		return fmt.Errorf("memory is not locked: that needs CAP_IPC_LOCK, or no limit of locked memory (RLIMIT_MEMLOCK is %d KiB)", limit>>10)
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return fmt.Errorf("memory is not locked: mlockall: %w", err)
	}
	populate()
	return nil
}

// raiseMemlock lifts the limit of locked memory as far as may be, and returns it.
func raiseMemlock() (uint64, error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &r); err != nil {
		return 0, err
	}
	for _, most := range []uint64{unix.RLIM_INFINITY, r.Max} {
		if unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: most, Max: most}) == nil {
			return most, nil
		}
	}
	return r.Cur, nil
}

// mayExceed tries whether the limit holds for us: it does not with CAP_IPC_LOCK,
// but in a user namespace that capability is not the kernel's own.
func mayExceed(limit uint64) bool {
	page := uint64(os.Getpagesize())
	size := (limit/page + 1) * page
	if size > 1<<40 {
		return true // more than we will ever have
	}
	// Nothing of it is ever used.
	mem, err := unix.Mmap(-1, 0, int(size), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return false
	}
	defer unix.Munmap(mem)
	_, _, errno := unix.Syscall(unix.SYS_MLOCK2, uintptr(unsafe.Pointer(&mem[0])), uintptr(size), unix.MLOCK_ONFAULT)
	return errno == 0
}

// populate reads the program itself and its libraries, so that no page of them
// has to be read at the wrong time. It may fail (before Linux 5.14).
func populate() {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		start, size, advice, ok := mapping(lines.Text())
		if ok {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, start, size, uintptr(advice))
		}
	}
}

// mapping reads a line of /proc/self/maps. It reports false for what is not a
// file's, and for what is a file's that changes, such as an arena.
func mapping(line string) (start, size uintptr, advice int, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 6 || !strings.HasPrefix(fields[5], "/") || len(fields[1]) != 4 || fields[1][0] != 'r' || fields[1][3] != 'p' {
		return 0, 0, 0, false
	}
	from, to, _ := strings.Cut(fields[0], "-")
	a, errA := strconv.ParseUint(from, 16, 64)
	b, errB := strconv.ParseUint(to, 16, 64)
	if errA != nil || errB != nil || b <= a {
		return 0, 0, 0, false
	}
	advice = unix.MADV_POPULATE_READ
	if fields[1][1] == 'w' {
		advice = unix.MADV_POPULATE_WRITE
	}
	return uintptr(a), uintptr(b - a), advice, true
}

// oomFile and leastOOM make the kernel end anything else first.
const (
	oomFile  = "/proc/self/oom_score_adj"
	leastOOM = -1000
)

func spareFromOOM() error {
	if now, err := os.ReadFile(oomFile); err == nil && strings.TrimSpace(string(now)) == strconv.Itoa(leastOOM) {
		return nil // a service manager has done it
	}
	err := os.WriteFile(oomFile, []byte(strconv.Itoa(leastOOM)), 0)
	if errors.Is(err, fs.ErrPermission) {
		return errors.New("the kernel may end iscsid when there is no memory: oom_score_adj needs CAP_SYS_RESOURCE")
	}
	if err != nil {
		return fmt.Errorf("the kernel may end iscsid when there is no memory: %w", err)
	}
	return nil
}
