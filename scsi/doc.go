// Package scsi is the SCSI language that a disk and its initiator speak: command
// descriptor blocks, status, sense data, INQUIRY and VPD pages, capacities, mode
// parameters and logical unit numbers, built and taken apart. It does no I/O and
// knows nothing of what carries it.
//
// Where a comment names a section, it means SAM-5 (architecture), SPC-4 (primary
// commands) or SBC-3 (block commands) of INCITS T10. All fields are big-endian.
//
// Parsers take what a target answered, which may be shorter than the standard
// asks for and may lie about its own length: fields that are not there have
// their zero value, and nothing past the slice is read. An error means that the
// answer is too short to mean anything, or is for another page.
package scsi
