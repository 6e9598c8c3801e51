package conf

import (
	"fmt"
	"slices"
	"strings"
)

// DeviceKinds are the kinds of devices that a disk can be shown by, the one that
// is preferred first.
var DeviceKinds = []string{"ublk", "nbd", "loop", "socket"}

// ParseDevice reads what Device in the file and iscsid's -o device= say: one of
// DeviceKinds, in any case.
func ParseDevice(value string) (string, error) {
	kind := strings.ToLower(value)
	if slices.Contains(DeviceKinds, kind) {
		return kind, nil
	}
	hint := ""
	if meant := nearestOf(DeviceKinds, value); meant != "" {
		hint = fmt.Sprintf("; did you mean %s?", meant)
	}
	return "", fmt.Errorf("there is no kind of device %s: %s are%s", quote(value), strings.Join(DeviceKinds, ", "), hint)
}
