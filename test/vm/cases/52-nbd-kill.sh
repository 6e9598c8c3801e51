#!/usr/bin/env bash
# iscsid dies by kill -9, KILLS times, while fio writes and verifies on a disk and
# on a mounted file system, as /dev/nbdN: no I/O error, no wrong byte. Printed is how
# long after the new daemon's start a read takes that began while there was none.
# The same with an upgrade to another build, and with the target away meanwhile. By
# TCP to LIO and to tgt.
# runs: */rxe
# quick: 6.12/rxe
# timeout: 2400
set -euo pipefail
. "$VM_GUEST/lib.sh"
. "$VM_GUEST/disk.sh"
. "$VM_GUEST/kills.sh"
DISK_OPTIONS=(-o device=nbd)
trap disk_finish EXIT
modprobe -a nbd ext4
ulimit -l unlimited
kills_targets

daemon_start
kills_session lio "LIO by TCP" -p 127.0.0.1:3270
kills_session tgt "tgt by TCP" -p 127.0.0.1:3262

daemon_stop
if ls /sys/block/nbd*/backend 2>/dev/null; then fail "devices are left"; fi
tgt_stop
lio_clear
