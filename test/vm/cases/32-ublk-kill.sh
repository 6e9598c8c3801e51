#!/usr/bin/env bash
# iscsid dies by kill -9, KILLS times, while fio writes and verifies on a disk and
# on a mounted file system: no I/O error, no wrong byte. Printed is how long after
# the new daemon's start a read takes that began while there was none. The same
# with an upgrade to another build, and with the target away meanwhile. By TCP to
# LIO and to tgt, by iSER to LIO.
# runs: 6.12/rxe
# timeout: 2400
set -euo pipefail
. "$VM_GUEST/lib.sh"
. "$VM_GUEST/disk.sh"
DISK_OPTIONS=(-o device=ublk)
lio=iqn.2026-11.example:lio tgt=iqn.2026-11.example:tgt

lio_away() { echo 0 >$LIO/iscsi/$lio/tpgt_1/enable; }
lio_back() { echo 1 >$LIO/iscsi/$lio/tpgt_1/enable; }

tgt_back() {
	tgt_start
	tgt_target iscsi 1 $tgt /tmp/luns/tgt1
	tgtadm --op new --mode logicalunit --tid 1 --lun 2 -b /tmp/luns/tgt2
}

trap disk_finish EXIT
modprobe -a ublk_drv ext4
ulimit -l unlimited
rdma_up "$RDMA"
mkdir -p /tmp/luns
truncate -s 256M /tmp/luns/tgt1 /tmp/luns/tgt2
lio_init
lio_target $lio "$(lio_file one /tmp/luns/one $((256 << 20)))" "$(lio_file two /tmp/luns/two $((256 << 20)))"
lio_portal $lio 127.0.0.1:3270
lio_portal $lio "$RD_ADDR:3260" iser
tgt_back

daemon_start
ctl -A -t $lio -p 127.0.0.1:3270 -w 60
disk_kills "LIO by TCP" $lio "$KILLS" lio_away lio_back
ctl -R -t $lio

ctl -A -r -t $lio -p "$RD_ADDR:3260" -w 60
disk_kills "LIO by iSER" $lio "$KILLS" lio_away lio_back
ctl -R -t $lio

ctl -A -t $tgt -p 127.0.0.1:3262 -w 60
disk_kills "tgt by TCP" $tgt "$KILLS" tgt_stop tgt_back
ctl -R -t $tgt

daemon_stop
if ls /dev/ublkb* 2>/dev/null; then fail "devices are left"; fi
