package e2e

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"iscsictl/target"
)

// TestKeys moves data under all combinations of the keys that shape how it travels
// (RFC 7143 §13): immediate and unsolicited data, bursts, segments, R2Ts at a time,
// digests.
func TestKeys(t *testing.T) {
	t.Parallel()
	e := newTarget(t, target.Config{Targets: keyTargets()})
	// Small arenas: there are many sessions.
	d := newDaemon(t, "-o", "kern.iscsi.arena_size=4m")
	var conf strings.Builder
	for i, c := range keyTargets() {
		fmt.Fprintf(&conf, "n%d {\n TargetAddress = %s\n TargetName = %s\n", i, e.portal, c.Name)
		if c.Keys["HeaderDigest"] != "" {
			conf.WriteString(" HeaderDigest = CRC32C\n DataDigest = CRC32C\n")
		}
		conf.WriteString("}\n")
	}
	d.ok("-A", "-a", "-c", d.conf(conf.String()), "-w", "30")
	for _, c := range keyTargets() {
		t.Run(strings.TrimPrefix(c.Name, "iqn.2026-11.example:"), func(t *testing.T) {
			d := d.in(t)
			disk := d.disk(c.Name, 0)
			s := d.session(c.Name)
			if s.ImmediateData != c.Keys["ImmediateData"] || fmt.Sprint(s.MaxBurstLen) != c.Keys["MaxBurstLength"] ||
				fmt.Sprint(s.SendDataSegmentLen) != c.Keys["MaxRecvDataSegmentLength"] {
				t.Errorf("negotiated %+v from %v", s, c.Keys)
			}
			in, out := d.dir+"/in", d.dir+"/out"
			data := newImage(t, in, 5<<20)
			copyNBD(t, in, uri(disk))
			copyNBD(t, uri(disk), out)
			wantSame(t, out, data)
			// Lengths around those of the keys, several at a time.
			var io []string
			for i, n := range []int{512, 1024, 4096 - 512, 8192 + 512, 65536, 65536 + 512, 262144 - 512, 262144, 262144 + 512} {
				io = append(io, fmt.Sprintf("aio_write -P %d %dk %d", i+1, 512*i, n))
			}
			io = append(io, "aio_flush")
			for i, n := range []int{512, 1024, 4096 - 512, 8192 + 512, 65536, 65536 + 512, 262144 - 512, 262144, 262144 + 512} {
				io = append(io, fmt.Sprintf("read -P %d %dk %d", i+1, 512*i, n))
			}
			qemuIO(t, disk, io...)
		})
	}
	for _, s := range d.sessions() {
		if s.Reconnections != 0 || s.Errors != 0 {
			t.Errorf("%s: %d reconnections, %d errors; %s", s.Target.Name, s.Reconnections, s.Errors, s.LastFailure)
		}
	}
	if e.says("RFC 7143") || e.says("protocol error") {
		t.Error("the target found fault with iscsid")
	}
}

// keyTargets are targets for all combinations.
func keyTargets() (list []target.Target) {
	shapes := []map[string]string{
		{"MaxBurstLength": "262144", "FirstBurstLength": "65536", "MaxRecvDataSegmentLength": "262144", "MaxOutstandingR2T": "1"},
		{"MaxBurstLength": "16384", "FirstBurstLength": "16384", "MaxRecvDataSegmentLength": "8192", "MaxOutstandingR2T": "4"},
		{"MaxBurstLength": "1024", "FirstBurstLength": "512", "MaxRecvDataSegmentLength": "512", "MaxOutstandingR2T": "1"},
		{"MaxBurstLength": "262144", "FirstBurstLength": "4096", "MaxRecvDataSegmentLength": "16384", "MaxOutstandingR2T": "16", "HeaderDigest": "CRC32C", "DataDigest": "CRC32C"},
	}
	for i, shape := range shapes {
		for _, immediate := range []string{"Yes", "No"} {
			for _, r2t := range []string{"Yes", "No"} {
				keys := maps.Clone(shape)
				keys["ImmediateData"], keys["InitialR2T"] = immediate, r2t
				list = append(list, target.Target{
					Name: fmt.Sprintf("iqn.2026-11.example:shape%d-immediate-%s-initialr2t-%s", i, strings.ToLower(immediate), strings.ToLower(r2t)),
					LUNs: []target.LUN{memory(0, 5)}, Keys: keys,
				})
			}
		}
	}
	return list
}

// TestOneCommandAtATime uses a target that takes no second command, and one that
// sends the status of a read by itself and its texts in small pieces.
func TestOneCommandAtATime(t *testing.T) {
	t.Parallel()
	const one, split = "iqn.2026-11.example:one", "iqn.2026-11.example:split"
	e := newTarget(t, target.Config{Targets: []target.Target{
		{Name: one, LUNs: []target.LUN{memory(0, 8)}, Window: 1},
		{Name: split, LUNs: []target.LUN{memory(0, 8)}, SeparateStatus: true, TextChunk: 7},
	}})
	d := newDaemon(t)
	for _, name := range []string{one, split} {
		d.add(e.portal, name)
		fio(t, d.disk(name, 0), "--bs=32k", "--size=8M", "--iodepth=16")
		if s := d.session(name); s.Reconnections != 0 || s.Errors != 0 {
			t.Errorf("%s: %d reconnections, %d errors; %s", name, s.Reconnections, s.Errors, s.LastFailure)
		}
	}
	if text := d.ok("--discover", e.portal); !strings.Contains(text, one) || !strings.Contains(text, split) {
		t.Errorf("discovery in pieces:\n%s", text)
	}
}
