package scsi

// Support is what a target says of one command (SPC-4 §6.35.3).
type Support uint8

// Answers to REPORT SUPPORTED OPERATION CODES.
const (
	SupportUnknown  Support = 0 // not known now
	SupportNone     Support = 1
	SupportStandard Support = 3
	SupportVendor   Support = 5 // in the vendor's own way
)

// ParseSupport parses one-command REPORT SUPPORTED OPERATION CODES parameter data.
func ParseSupport(b []byte) (Support, error) {
	if len(b) < 2 {
		return SupportUnknown, short("REPORT SUPPORTED OPERATION CODES data", len(b), 2)
	}
	return Support(b[1] & 7), nil
}
