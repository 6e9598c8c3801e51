package scsi

import "fmt"

// Opcode is the first byte of a command descriptor block (SPC-4 §4.3).
type Opcode uint8

// Operation codes.
const (
	OpTestUnitReady        Opcode = 0x00
	OpRequestSense         Opcode = 0x03
	OpRead6                Opcode = 0x08
	OpWrite6               Opcode = 0x0a
	OpInquiry              Opcode = 0x12
	OpModeSelect6          Opcode = 0x15
	OpModeSense6           Opcode = 0x1a
	OpStartStopUnit        Opcode = 0x1b
	OpPreventAllowRemoval  Opcode = 0x1e
	OpReadCapacity10       Opcode = 0x25
	OpRead10               Opcode = 0x28
	OpWrite10              Opcode = 0x2a
	OpVerify10             Opcode = 0x2f
	OpSynchronizeCache10   Opcode = 0x35
	OpWriteSame10          Opcode = 0x41
	OpUnmap                Opcode = 0x42
	OpModeSelect10         Opcode = 0x55
	OpModeSense10          Opcode = 0x5a
	OpPersistentReserveIn  Opcode = 0x5e
	OpPersistentReserveOut Opcode = 0x5f
	OpRead16               Opcode = 0x88
	OpWrite16              Opcode = 0x8a
	OpVerify16             Opcode = 0x8f
	OpSynchronizeCache16   Opcode = 0x91
	OpWriteSame16          Opcode = 0x93
	OpServiceActionIn16    Opcode = 0x9e // with a service action
	OpReportLUNs           Opcode = 0xa0
	OpMaintenanceIn        Opcode = 0xa3 // with a service action
	OpRead12               Opcode = 0xa8
	OpWrite12              Opcode = 0xaa
)

// Service actions, in the low five bits of byte 1.
const (
	ServiceReadCapacity16 = 0x10 // of OpServiceActionIn16
	ServiceReportOpcodes  = 0x0c // REPORT SUPPORTED OPERATION CODES, of OpMaintenanceIn
)

var opcodeNames = map[Opcode]string{
	OpTestUnitReady:        "TEST UNIT READY",
	OpRequestSense:         "REQUEST SENSE",
	OpRead6:                "READ(6)",
	OpWrite6:               "WRITE(6)",
	OpInquiry:              "INQUIRY",
	OpModeSelect6:          "MODE SELECT(6)",
	OpModeSense6:           "MODE SENSE(6)",
	OpStartStopUnit:        "START STOP UNIT",
	OpPreventAllowRemoval:  "PREVENT ALLOW MEDIUM REMOVAL",
	OpReadCapacity10:       "READ CAPACITY(10)",
	OpRead10:               "READ(10)",
	OpWrite10:              "WRITE(10)",
	OpVerify10:             "VERIFY(10)",
	OpSynchronizeCache10:   "SYNCHRONIZE CACHE(10)",
	OpWriteSame10:          "WRITE SAME(10)",
	OpUnmap:                "UNMAP",
	OpModeSelect10:         "MODE SELECT(10)",
	OpModeSense10:          "MODE SENSE(10)",
	OpPersistentReserveIn:  "PERSISTENT RESERVE IN",
	OpPersistentReserveOut: "PERSISTENT RESERVE OUT",
	OpRead16:               "READ(16)",
	OpWrite16:              "WRITE(16)",
	OpVerify16:             "VERIFY(16)",
	OpSynchronizeCache16:   "SYNCHRONIZE CACHE(16)",
	OpWriteSame16:          "WRITE SAME(16)",
	OpServiceActionIn16:    "SERVICE ACTION IN(16)",
	OpReportLUNs:           "REPORT LUNS",
	OpMaintenanceIn:        "MAINTENANCE IN",
	OpRead12:               "READ(12)",
	OpWrite12:              "WRITE(12)",
}

// String returns the standard's name of the command.
func (o Opcode) String() string {
	if s, ok := opcodeNames[o]; ok {
		return s
	}
	return fmt.Sprintf("command %#02x", uint8(o))
}

// Len returns the length of a command descriptor block with this operation
// code (SPC-4 §4.2.5.1): 6, 10, 12 or 16 bytes, or 0 where the code does not say.
func (o Opcode) Len() int {
	if o == 0x7e || o == 0x7f { // extended and variable length
		return 0
	}
	switch o >> 5 { // the group code
	case 0:
		return 6
	case 1, 2:
		return 10
	case 4:
		return 16
	case 5:
		return 12
	}
	return 0
}

// Status is how a device server ended a command (SAM-5 §5.3.1).
type Status uint8

// Status codes.
const (
	Good                Status = 0x00
	CheckCondition      Status = 0x02
	ConditionMet        Status = 0x04
	Busy                Status = 0x08
	ReservationConflict Status = 0x18
	TaskSetFull         Status = 0x28
	ACAActive           Status = 0x30
	TaskAborted         Status = 0x40
)

// String returns the standard's name of the status.
func (s Status) String() string {
	switch s {
	case Good:
		return "GOOD"
	case CheckCondition:
		return "CHECK CONDITION"
	case ConditionMet:
		return "CONDITION MET"
	case Busy:
		return "BUSY"
	case ReservationConflict:
		return "RESERVATION CONFLICT"
	case TaskSetFull:
		return "TASK SET FULL"
	case ACAActive:
		return "ACA ACTIVE"
	case TaskAborted:
		return "TASK ABORTED"
	}
	return fmt.Sprintf("status %#02x", uint8(s))
}
