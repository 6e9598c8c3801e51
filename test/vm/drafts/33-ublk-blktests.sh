#!/usr/bin/env bash
# Those tests of blktests that take a block device, on a disk as /dev/ublkbN by
# TCP from LIO. Debian has no package of it: BLKTESTS is the path of a checkout
# whose programs were built (make).
# runs: 6.12/rxe
# timeout: 900
set -euo pipefail
. "$VM_GUEST/lib.sh"
[ -x "${BLKTESTS:-}/check" ] || skip "BLKTESTS names no checkout of blktests"
. "$VM_GUEST/disk.sh"
DISK_OPTIONS=(-o device=ublk)
iqn=iqn.2026-11.example:blktests

trap disk_finish EXIT
modprobe ublk_drv
ulimit -l unlimited
lio_init
mkdir -p /tmp/luns
lio_target $iqn "$(lio_file blktests /tmp/luns/blktests $((512 << 20)) emulate_tpu=1 emulate_tpws=1 emulate_write_cache=1)"
lio_portal $iqn 127.0.0.1:3270
daemon_start
ctl -A -t $iqn -p 127.0.0.1:3270 -w 60
cp -r "$BLKTESTS" /tmp/blktests
cd /tmp/blktests
printf 'TEST_DEVS=(%s)\nTIMEOUT=20\nQUICK_RUN=1\n' "$(disk_of $iqn 1)" >config
mapfile -t tests < <(grep -l '^test_device' tests/block/[0-9]* | sed 's,^tests/,,')
./check "${tests[@]}"
ctl -R -t $iqn
daemon_stop
