#!/usr/bin/env bash
# Those tests of blktests that take a block device, on disks as /dev/ublkbN and
# /dev/nbdN by TCP from LIO. (Its group nbd is of other servers.) Debian has no
# package of it: BLKTESTS is the path of a checkout whose programs were built (make).
# runs: 6.12/rxe
# timeout: 1500
set -euo pipefail
. "$VM_GUEST/lib.sh"
[ -x "${BLKTESTS:-}/check" ] || skip "BLKTESTS names no checkout of blktests"
. "$VM_GUEST/disk.sh"
iqn=iqn.2026-11.example:blktests

trap disk_finish EXIT
modprobe -a ublk_drv nbd
ulimit -l unlimited
lio_init
mkdir -p /tmp/luns
lio_target $iqn "$(lio_file blktests /tmp/luns/blktests $((512 << 20)) emulate_tpu=1 emulate_tpws=1 emulate_write_cache=1)"
lio_portal $iqn 127.0.0.1:3270
cp -r "$BLKTESTS" /tmp/blktests
cd /tmp/blktests
mapfile -t tests < <(grep -l '^test_device' tests/block/[0-9]* | sed 's,^tests/,,')
for kind in ublk nbd; do
	echo "== $kind"
	DISK_OPTIONS=(-o "device=$kind")
	daemon_start
	ctl -A -t $iqn -p 127.0.0.1:3270 -w 60
	printf 'TEST_DEVS=(%s)\nTIMEOUT=20\nQUICK_RUN=1\n' "$(disk_of $iqn 1)" >config
	./check "${tests[@]}" || {
		grep -r . results/*/block --include='*.out.bad' --include='*.full' | tail -40
		fail "blktests on $kind"
	}
	ctl -R -t $iqn
	daemon_stop
done
