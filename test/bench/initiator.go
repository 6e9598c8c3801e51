package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"iscsictl/iscsi"
	"iscsictl/scsi"
)

// bareInitiator is the role of a client that sends one SCSI command after the
// other to a real target, and waits for each answer in a read: what a socket and
// the target allow for a single request. It knows one kind of target, logs in with
// a single request, and looks at nothing that comes but its length and status.
const bareInitiator = "bare-initiator"

func (s *setup) bareInitiator(t *target) contender {
	return contender{
		name: "bare ping-pong", target: t.server, parse: parseReport,
		argv: func(r row) []string {
			self, _ := os.Executable() // on Linux, /proc/self/exe
			if r.depth != 1 {
				return nil
			}
			return []string{self, bareInitiator, t.portal, r.direction(), strconv.Itoa(r.block), s.seconds()}
		},
	}
}

// runBareInitiator takes portal, read or write, bytes and seconds.
func runBareInitiator(args []string) error {
	if len(args) != 4 {
		return errors.New("want PORTAL read|write BLOCK SECONDS")
	}
	block, err1 := strconv.Atoi(args[2])
	length, err2 := strconv.Atoi(args[3])
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	c, err := net.Dial("tcp", args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	return pingPong(c, row{block: block, write: args[1] == "write"}, time.Duration(length)*time.Second, os.Stdout)
}

func pingPong(c net.Conn, r row, length time.Duration, report io.Writer) error {
	statSN, err := logIn(c, r.block)
	if err != nil {
		return err
	}
	cmd := iscsi.SCSICommand{
		Final: true, Attribute: iscsi.Simple, InitiatorTaskTag: 1, CmdSN: 1, ExpStatSN: statSN + 1,
		ExpectedDataTransferLength: uint32(r.block),
	}
	if r.write {
		cmd.Write, cmd.DataSegmentLength, cmd.CDB = true, r.block, scsi.Write(0, uint32(r.block/sector), false)
	} else {
		cmd.Read, cmd.CDB = true, scsi.Read(0, uint32(r.block/sector), false)
	}
	ask, reply := sizes(r.block, r.write)
	out, in := make([]byte, ask), make([]byte, reply)
	var h iscsi.BHS
	latencies := make([]time.Duration, 0, limitSamples)
	requests, start := 0, time.Now()
	for elapsed := time.Duration(0); elapsed < length || requests == 0; {
		sent := elapsed
		cmd.Encode(&h)
		copy(out, h[:])
		if _, err := c.Write(out); err != nil {
			return err
		}
		if err := response(c, in, reply); err != nil {
			return err
		}
		cmd.CmdSN++
		cmd.ExpStatSN++
		elapsed = time.Since(start)
		if requests++; len(latencies) < limitSamples {
			latencies = append(latencies, elapsed-sent)
		}
	}
	return tell(report, requests, time.Since(start), latencies)
}

// response takes the answer to a command. The first ones are unit attentions,
// which are shorter.
func response(c net.Conn, in []byte, reply int) error {
	if _, err := io.ReadFull(c, in[:iscsi.BHSLen]); err != nil {
		return err
	}
	h := iscsi.BHS(in)
	n := h.DataSegmentLength()
	n += iscsi.Pad(n)
	if n > reply-iscsi.BHSLen && h.Opcode() == iscsi.OpDataIn {
		return fmt.Errorf("%v of %d bytes", h.Opcode(), n)
	}
	if n > reply-iscsi.BHSLen {
		in = make([]byte, iscsi.BHSLen+n)
	}
	_, err := io.ReadFull(c, in[iscsi.BHSLen:][:n])
	return err
}

// logIn enters the full-feature phase of a target that asks for no authentication.
func logIn(c net.Conn, block int) (statSN uint32, err error) {
	length := strconv.Itoa(block)
	var keys []byte
	for _, k := range []iscsi.KeyValue{
		{Key: "InitiatorName", Value: initiatorName + "-bare"},
		{Key: "TargetName", Value: targetName},
		{Key: "SessionType", Value: "Normal"},
		{Key: "ImmediateData", Value: "Yes"},
		{Key: "InitialR2T", Value: "Yes"},
		{Key: "FirstBurstLength", Value: length},
		{Key: "MaxBurstLength", Value: length},
		{Key: "MaxRecvDataSegmentLength", Value: length},
	} {
		keys = iscsi.AppendKey(keys, k.Key, k.Value)
	}
	p := iscsi.LoginRequest{
		Transit: true, CurrentStage: iscsi.StageOperational, NextStage: iscsi.StageFullFeature,
		ISID: [6]byte{0x80, 1, 2, 3, 4, 5}, CmdSN: 1, DataSegmentLength: len(keys),
	}
	var h iscsi.BHS
	p.Encode(&h)
	if _, err := c.Write(append(append(h[:], keys...), make([]byte, iscsi.Pad(len(keys)))...)); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(c, h[:]); err != nil {
		return 0, err
	}
	var answer iscsi.LoginResponse
	if err := answer.Decode(&h); err != nil {
		return 0, err
	}
	n := h.DataSegmentLength()
	text := make([]byte, n+iscsi.Pad(n))
	if _, err := io.ReadFull(c, text); err != nil {
		return 0, err
	}
	if answer.Status != 0 || !answer.Transit {
		return 0, fmt.Errorf("login: %v, %q", answer.Status, text[:n])
	}
	return answer.StatSN, nil
}
