package target

import "iscsictl/iscsi"

// AsyncEvent is an asynchronous message (RFC 7143 §11.9).
type AsyncEvent struct {
	Event      iscsi.AsyncEvent
	VendorCode uint8
	Parameters [3]uint16
	LUN        int   // of AsyncSCSIEvent
	Sense      Sense // of AsyncSCSIEvent
}

func (f *Fault) async() AsyncEvent {
	a := AsyncEvent{Event: iscsi.AsyncEvent(f.Event), Parameters: f.Parameters, Sense: f.Sense}
	if f.LUN != nil {
		a.LUN = *f.LUN
	}
	return a
}

// sendAsync sends an asynchronous message. After the events that say so, the
// connection is closed.
func (c *conn) sendAsync(a AsyncEvent) {
	var data []byte
	r := iscsi.AsyncMessage{
		StatSN: c.nextStatSN(), Event: a.Event, VendorCode: a.VendorCode,
		Parameter1: a.Parameters[0], Parameter2: a.Parameters[1], Parameter3: a.Parameters[2],
	}
	if a.Event == iscsi.AsyncSCSIEvent {
		r.LUN = wireLUN(a.LUN, false)
		data = iscsi.AppendResponseSense(nil, appendSense(nil, a.Sense.scsi()))
		r.DataSegmentLength = len(data)
	}
	r.ExpCmdSN, r.MaxCmdSN = c.window()
	r.Encode(&c.h)
	c.send(data, false)
	if a.Event == iscsi.AsyncDropConnection || a.Event == iscsi.AsyncDropSession {
		if c.flush() == nil {
			c.err = errDone
		}
		c.close()
	}
}
