package block

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// setTime is how long is waited for properties to be set.
const setTime = 5 * time.Second

// Property returns what /sys says of a device, "queue/io_timeout" and the like,
// or "" where it says nothing.
func Property(name, property string) string {
	b, _ := os.ReadFile(filepath.Join("/sys/block", name, property))
	return strings.TrimSpace(string(b))
}

// SetProperties changes properties, where they are not as they are to be. The
// kernel holds new requests back meanwhile and waits for those under way (for each
// property since Linux 6.11, for some before): see apart.
func SetProperties(name string, want map[string]string) error {
	var files []string
	for property, value := range want {
		if Property(name, property) != value {
			files = append(files, filepath.Join("/sys/block", name, property), value)
		}
	}
	if len(files) == 0 {
		return nil
	}
	done := make(chan error, 1)
	go func() { done <- apart(writeFiles, files...) }()
	err, ended := Wait(done, setTime)
	switch {
	case !ended:
		return fmt.Errorf("properties of %s: the kernel waits for the disk", name)
	case err != nil:
		return fmt.Errorf("properties of %s: %w", name, err)
	}
	return nil
}
