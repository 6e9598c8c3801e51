package iscsi

// Serial number arithmetic (RFC 1982 with SERIAL_BITS = 32), by which all
// sequence numbers are compared (RFC 7143 §4.2.2). Two numbers that are exactly
// 2^31 apart have no order: neither is less than the other.

// SerialLess says that a comes before b.
func SerialLess(a, b uint32) bool { return a != b && b-a < 1<<31 }

// SerialLessEq says that a comes before b or equals it.
func SerialLessEq(a, b uint32) bool { return b-a < 1<<31 }

// SerialMax returns the later of a and b; a where they have no order.
func SerialMax(a, b uint32) uint32 {
	if SerialLess(a, b) {
		return b
	}
	return a
}
