package disk

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing/synctest"

	"iscsictl/arena"
	"iscsictl/scsi"
	"iscsictl/session"
)

// fakeLU is a small logical unit in memory.
type fakeLU struct {
	kind     scsi.DeviceType
	block    int
	blocks   int // what it says
	data     []byte
	name     string // of VPD 83; "" for none
	serial   string
	limits   scsi.BlockLimits
	thin     scsi.Provisioning
	lbpme    bool
	readOnly bool
	fua      bool
	cache    cacheState
	noVPD    bool
	old      bool // knows READ CAPACITY(10) only
	noSame   bool
	tells    bool   // which commands it knows
	version  []byte // what standard INQUIRY answers, if not as a disk does

	// first is what commands of the background answer first.
	first map[scsi.Opcode][]outcome

	script []outcome // what commands of the data path answer first
	seen   []string  // those that came
	syncs  int
}

// outcome is an answer that a test asks for.
type outcome struct {
	err    error
	status scsi.Status
	sense  scsi.Sense
	short  int // bytes that a read lacks
}

func check(k scsi.SenseKey, c scsi.Code) outcome {
	return outcome{status: scsi.CheckCondition, sense: scsi.Sense{Key: k, Code: c}}
}

func newLU(name string) *fakeLU {
	return &fakeLU{block: 512, blocks: 8192, data: make([]byte, 8192*512), name: name, serial: "S" + name, fua: true, cache: cacheOn}
}

// fakeNexus is a session with a target of some logical units. Commands of the
// background are answered by themselves, those of disks when the test says so.
type fakeNexus struct {
	mem  *arena.Arena
	most int // data of one command; 0: any

	mu      sync.Mutex
	number  uint64 // of the last nexus
	up      bool
	lus     map[scsi.LUN]*fakeLU
	luns    []byte // what REPORT LUNS answers; nil: what is there
	noLUNs  bool   // it does not know REPORT LUNS
	pending []*session.Command
	stuck   bool // the background is not answered
	waiting []*session.Command
	gate    chan struct{} // commands of disks are taken once it is closed; nil: at once
}

func (n *fakeNexus) Arena() *arena.Arena { return n.mem }
func (n *fakeNexus) MaxTransfer() int    { return n.most }

func (n *fakeNexus) Submit(batch []*session.Command) {
	if _, background := batch[0].Issuer.(*caller); !background && n.gate != nil {
		<-n.gate
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var now []*session.Command
	for _, c := range batch {
		c.Nexus = n.number
		_, background := c.Issuer.(*caller)
		switch {
		case !n.up:
			c.Err = session.ErrNexusLost
			now = append(now, c)
		case background && n.stuck:
			n.waiting = append(n.waiting, c)
		case background:
			n.execute(c)
			now = append(now, c)
		default:
			n.pending = append(n.pending, c)
		}
	}
	for _, c := range now {
		go c.Issuer.Complete([]*session.Command{c})
	}
}

// run answers what is pending, in batches, until nothing is.
func (n *fakeNexus) run() {
	for {
		synctest.Wait()
		if n.step(-1) == 0 {
			return
		}
	}
}

// step answers up to most of what is pending (all: -1) and returns how many.
func (n *fakeNexus) step(most int) int {
	n.mu.Lock()
	list := n.pending
	if most >= 0 && most < len(list) {
		list = list[:most]
	}
	n.pending = slices.Clone(n.pending[len(list):])
	for _, c := range list {
		n.execute(c)
	}
	n.mu.Unlock()
	complete(list)
	return len(list)
}

func complete(list []*session.Command) {
	for len(list) > 0 {
		k := 1
		for k < len(list) && list[k].Issuer == list[0].Issuer {
			k++
		}
		list[0].Issuer.Complete(list[:k])
		list = list[k:]
	}
}

// lose ends the nexus: what is pending has the fate that the test gives it.
func (n *fakeNexus) lose() {
	n.mu.Lock()
	list := append(n.pending, n.waiting...)
	n.pending, n.waiting, n.up = nil, nil, false
	for _, c := range list {
		c.Err, c.Nexus = session.ErrNexusLost, n.number
	}
	n.mu.Unlock()
	complete(list)
}

func (n *fakeNexus) execute(c *session.Command) {
	c.Err, c.Status, c.Received, c.Residual, c.SenseLen = nil, 0, 0, 0, 0
	cdb := scsi.CDB(c.CDB)
	if cdb.Opcode() == scsi.OpReportLUNs {
		n.reportLUNs(c)
		return
	}
	lu := n.lus[scsi.LUN(c.LUN)]
	if lu == nil {
		if cdb.Opcode() == scsi.OpInquiry {
			give(c, scsi.InquiryData{Qualifier: scsi.NotCapable, Type: scsi.TypeUnknown}.Append(nil))
			return
		}
		fail(c, check(scsi.IllegalRequest, scsi.CodeLUNotSupported))
		return
	}
	if _, background := c.Issuer.(*caller); background {
		lu.background(c, cdb)
		return
	}
	r, _ := cdb.Range()
	text := fmt.Sprintf("%s %d+%d", &cdb, r.LBA, r.Blocks)
	if r.FUA {
		text += " FUA"
	}
	lu.seen = append(lu.seen, text)
	if len(lu.script) > 0 {
		o := lu.script[0]
		lu.script = lu.script[1:]
		if o.err != nil || o.status != 0 {
			fail(c, o)
			return
		}
		lu.execute(c, cdb, r)
		c.Received -= o.short
		return
	}
	lu.execute(c, cdb, r)
}

func (n *fakeNexus) reportLUNs(c *session.Command) {
	if n.noLUNs {
		fail(c, check(scsi.IllegalRequest, scsi.CodeInvalidOpcode))
		return
	}
	b := n.luns
	if b == nil {
		var list []scsi.LUN
		for l := range n.lus {
			list = append(list, l)
		}
		slices.Sort(list)
		b = scsi.AppendLUNs(nil, list)
	}
	give(c, b)
}

func give(c *session.Command, b []byte) { c.Received = copy(c.In.Bytes(), b) }

func fail(c *session.Command, o outcome) {
	c.Err, c.Status = o.err, uint8(o.status)
	if o.status == scsi.CheckCondition {
		c.SenseLen = copy(c.Sense[:], o.sense.AppendFixed(nil))
	}
}

var invalidOpcode = check(scsi.IllegalRequest, scsi.CodeInvalidOpcode)

// background answers what a scan asks.
func (lu *fakeLU) background(c *session.Command, cdb scsi.CDB) {
	if list := lu.first[cdb.Opcode()]; len(list) > 0 {
		lu.first[cdb.Opcode()] = list[1:]
		fail(c, list[0])
		return
	}
	switch cdb.Opcode() {
	case scsi.OpInquiry:
		lu.inquiry(c, cdb)
	case scsi.OpTestUnitReady:
	case scsi.OpSynchronizeCache10:
		lu.syncs++
	case scsi.OpServiceActionIn16:
		if lu.old {
			fail(c, invalidOpcode)
			return
		}
		give(c, lu.capacity().Append16(nil))
	case scsi.OpReadCapacity10:
		give(c, lu.capacity().Append10(nil))
	case scsi.OpMaintenanceIn:
		if !lu.tells {
			fail(c, invalidOpcode)
			return
		}
		give(c, []byte{0, byte(scsi.SupportStandard), 0, 16})
	case scsi.OpModeSense10:
		b, _ := scsi.Mode{WriteProtected: true, Pages: scsi.Caching{}.AppendPage(nil)}.Append10(nil)
		give(c, b)
	case scsi.OpModeSense6:
		m := scsi.Mode{WriteProtected: lu.readOnly, DPOFUA: lu.fua}
		if lu.cache != cacheUnknown {
			m.Pages = scsi.Caching{WriteCache: lu.cache == cacheOn}.AppendPage(nil)
		}
		b, _ := m.Append6(nil)
		give(c, b)
	default:
		fail(c, invalidOpcode)
	}
}

func (lu *fakeLU) capacity() scsi.Capacity {
	return scsi.Capacity{LastLBA: uint64(lu.blocks - 1), BlockLength: uint32(lu.block), LBPME: lu.lbpme, LBPRZ: lu.thin.LBPRZ}
}

func (lu *fakeLU) inquiry(c *session.Command, cdb scsi.CDB) {
	page, evpd := cdb.VPDPage()
	if lu.version != nil {
		give(c, lu.version)
		return
	}
	if !evpd {
		give(c, scsi.InquiryData{Type: lu.kind, Version: 5, Vendor: "FAKE", Product: "disk"}.Append(nil))
		return
	}
	pages := map[uint8][]byte{
		scsi.VPDSerial:       scsi.AppendVPD(nil, lu.kind, scsi.VPDSerial, []byte(lu.serial)),
		scsi.VPDBlockLimits:  lu.limits.Append(nil),
		scsi.VPDProvisioning: lu.thin.Append(nil),
	}
	if lu.name != "" {
		pages[scsi.VPDIdentification] = scsi.AppendDesignators(nil, scsi.Designator{Type: scsi.DesignatorT10, CodeSet: scsi.CodeSetASCII, Value: []byte(lu.name)})
	}
	list := []byte{0}
	for p := range pages {
		list = append(list, p)
	}
	slices.Sort(list)
	pages[0] = scsi.AppendVPD(nil, lu.kind, 0, list)
	b, ok := pages[page]
	if !ok || lu.noVPD {
		fail(c, check(scsi.IllegalRequest, scsi.CodeInvalidFieldInCDB))
		return
	}
	give(c, b)
}

// execute does what a command of the data path says.
func (lu *fakeLU) execute(c *session.Command, cdb scsi.CDB, r scsi.Range) {
	if r.LBA+uint64(r.Blocks) > uint64(lu.blocks) {
		fail(c, check(scsi.IllegalRequest, scsi.CodeLBAOutOfRange))
		return
	}
	at := lu.data[int(r.LBA)*lu.block:]
	n := int(r.Blocks) * lu.block
	switch cdb.Opcode() {
	case scsi.OpRead10, scsi.OpRead16:
		if m := lu.limits.MaxTransfer; m != 0 && r.Blocks > m {
			fail(c, check(scsi.IllegalRequest, scsi.CodeInvalidFieldInCDB))
			return
		}
		c.Received = copy(c.In.Bytes(), at[:n])
	case scsi.OpWrite10, scsi.OpWrite16:
		if copy(at[:n], c.Out.Bytes()) != n {
			panic("a write without its data")
		}
	case scsi.OpSynchronizeCache10:
		lu.syncs++
	case scsi.OpUnmap:
		list, err := scsi.ParseUnmap(c.Out.Bytes())
		if err != nil {
			panic(err)
		}
		for _, e := range list {
			lu.seen = append(lu.seen, fmt.Sprintf("unmapped %d+%d", e.LBA, e.Blocks))
			clear(lu.data[int(e.LBA)*lu.block:][:int(e.Blocks)*lu.block])
		}
	case scsi.OpWriteSame16:
		if lu.noSame {
			fail(c, invalidOpcode)
			return
		}
		if r.Same&scsi.SameUnmap != 0 {
			lu.seen[len(lu.seen)-1] += " unmap"
		}
		if !bytes.Equal(c.Out.Bytes(), make([]byte, lu.block)) {
			panic("WRITE SAME with other than a block of zeroes")
		}
		clear(at[:n])
	default:
		fail(c, invalidOpcode)
	}
}

// answer sets what commands of the background answer first.
func (lu *fakeLU) answer(op scsi.Opcode, times int, o outcome) *fakeLU {
	if lu.first == nil {
		lu.first = map[scsi.Opcode][]outcome{}
	}
	for range times {
		lu.first[op] = append(lu.first[op], o)
	}
	return lu
}
