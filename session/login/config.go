package login

import (
	"errors"
	"fmt"
	"strings"

	"iscsictl/iscsi"
)

// maxText is the longest text value of a key in bytes (RFC 7143 §6.1).
const maxText = 255

// check refuses what cannot be sent.
func (c *Config) check() error {
	if err := checkName("initiator", c.InitiatorName); err != nil {
		return err
	}
	if !c.Discovery {
		if err := checkName("target", c.TargetName); err != nil {
			return err
		}
	}
	if len(c.InitiatorAlias) > maxText || strings.ContainsRune(c.InitiatorAlias, 0) {
		return fmt.Errorf("initiator alias is longer than %d bytes or has a NUL", maxText)
	}
	if c.InitiatorTaskTag == iscsi.ReservedTag {
		return errors.New("initiator task tag is reserved")
	}
	for _, kv := range c.Offers.Extra {
		if _, ok := find(kv.Key); ok || kv.Key == "" || strings.ContainsAny(kv.Key, "=\x00") || strings.ContainsRune(kv.Value, 0) {
			return fmt.Errorf("further key %q cannot be offered", kv.Key)
		}
	}
	return nil
}

// checkName checks what matters for the wire; conf is stricter.
func checkName(whose, name string) error {
	if name == "" || len(name) > iscsi.MaxNameLen || strings.ContainsRune(name, 0) {
		return fmt.Errorf("%s name %.64q is empty, longer than %d bytes or has a NUL", whose, name, iscsi.MaxNameLen)
	}
	return nil
}
