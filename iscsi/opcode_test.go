package iscsi

import "testing"

// The numbers of §11.2.1.2.
func TestOpcodes(t *testing.T) {
	testNames(t, map[Opcode]string{
		0x00: "NOP-Out",
		0x01: "SCSI Command",
		0x02: "Task Management Function Request",
		0x03: "Login Request",
		0x04: "Text Request",
		0x05: "Data-Out",
		0x06: "Logout Request",
		0x10: "SNACK Request",
		0x20: "NOP-In",
		0x21: "SCSI Response",
		0x22: "Task Management Function Response",
		0x23: "Login Response",
		0x24: "Text Response",
		0x25: "Data-In",
		0x26: "Logout Response",
		0x31: "R2T",
		0x32: "Asynchronous Message",
		0x3f: "Reject",
		0x1c: "opcode 0x1c",
	})
}

func TestTaskAttributes(t *testing.T) {
	testNames(t, map[TaskAttribute]string{
		0: "untagged", 1: "simple", 2: "ordered", 3: "head of queue", 4: "ACA", 5: "task attribute 5",
	})
}
