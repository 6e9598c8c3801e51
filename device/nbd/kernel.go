package nbd

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"iscsictl/device"
	"iscsictl/device/block"
)

const (
	// stepTime bounds each step of detaching where it depends on the disk
	// or on those who use the device.
	stepTime = 5 * time.Second
	// deadTime is how long the host waits, in seconds, for a daemon to take
	// a device back. It is as long as the kernel can count on any processor.
	deadTime = 1<<31/1000 - 1
	// requestTimeout is the kernel's time-out of requests, in milliseconds.
	// At a time-out the driver does no more with a request than to look
	// whether it has to be sent again, which is so when its connection was
	// replaced. The kernel looks for time-outs about once a second, so that
	// what was under way when a daemon died is sent again 1.5 s after it came
	// first, or as soon as there is a daemon. A shorter time-out would fill
	// the kernel's log with requests of slow disks.
	requestTimeout = "500"
	// largestKB bounds a request, in KiB.
	largestKB = 1024
)

// The properties that the driver's devices have by themselves.
var asFound = map[string]string{
	"queue/io_timeout": "30000", "queue/max_sectors_kb": "128", "queue/rotational": "0", "queue/write_cache": "write back",
}

// Kernel is the back-end "nbd": for each disk a device of the kernel's NBD
// driver, /dev/nbdN, with this process as its server.
type Kernel struct {
	log  *slog.Logger
	step time.Duration // stepTime, but in tests

	devices block.Registry
}

// NewKernel makes the back-end. What ends a device without being asked is told
// to log, which may be nil.
func NewKernel(log *slog.Logger) *Kernel {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Kernel{log: log, step: stepTime}
}

// Name is device.Backend's.
func (k *Kernel) Name() string { return "nbd" }

// Probe is device.Backend's. It loads the driver where that is a module.
func (k *Kernel) Probe() error { return probe() }

// Clean is device.Backend's. There is nothing: a device that its daemon has left
// waits to be taken back, and has none of our files.
func (k *Kernel) Clean() []string { return nil }

// Attach is device.Backend's. Where ctx ends first, such as when the disk does
// not answer the kernel's search for partitions, all is taken back.
func (k *Kernel) Attach(ctx context.Context, disk device.Disk, name device.Name) (device.Device, error) {
	d, err := k.newDevice(disk, name)
	if err != nil {
		return nil, err
	}
	if err := d.create(ctx); err != nil {
		d.Detach()
		return nil, fmt.Errorf("nbd: %w", err)
	}
	d.whole = true
	return d, nil
}

// ownerWord begins what the kernel keeps of our devices as the identifier of
// their server.
const ownerWord = "iscsid"

// owner is the identifier of a logical unit's device.
func owner(name device.Name) string { return fmt.Sprintf("%s %s %d", ownerWord, name.Target, name.LUN) }

// pathOf names a device.
func pathOf(index int) string { return "nbd" + strconv.Itoa(index) }

// numberOf is the device of a path, "nbd3".
func numberOf(path string) (int, error) {
	digits, ours := strings.CutPrefix(path, "nbd")
	index, err := strconv.ParseUint(digits, 10, 20)
	if !ours || err != nil {
		return 0, fmt.Errorf("nbd: %q is not the name of a device", path)
	}
	return int(index), nil
}

// foreign returns the numbers of devices that a daemon of this program has
// made, but not this one.
func (k *Kernel) foreign() (all []int) {
	files, _ := filepath.Glob("/sys/block/nbd*/backend")
	for _, file := range files {
		index, err := numberOf(filepath.Base(filepath.Dir(file)))
		if err != nil || k.devices.Has(index) {
			continue
		}
		if b, err := os.ReadFile(file); err == nil && strings.HasPrefix(string(b), ownerWord+" ") {
			all = append(all, index)
		}
	}
	return all
}

// tune tells the host of a device what the driver does not. It can wait for
// the disk.
func tune(path string, l *limits) error {
	rotational, cache := "0", "write through"
	if l.Rotational {
		rotational = "1"
	}
	if l.WriteCache {
		cache = "write back"
	}
	largest := max(min(l.whole>>10, largestKB), os.Getpagesize()>>10)
	err := block.SetProperties(path, map[string]string{
		"queue/max_sectors_kb": strconv.Itoa(largest), "queue/rotational": rotational, "queue/write_cache": cache,
		"queue/io_timeout": requestTimeout,
	})
	if block.Property(path, "queue/io_timeout") != requestTimeout { // the others are about speed only
		return fmt.Errorf("what is under way when iscsid dies will wait 30 s longer than it has to: %w", err)
	}
	return nil
}

// restore undoes that, for those who use the device next.
func restore(path string) { _ = block.SetProperties(path, asFound) }
