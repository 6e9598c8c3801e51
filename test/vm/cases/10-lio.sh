#!/usr/bin/env bash
# The programs with Linux's own target, LIO: by TCP, and by iSER on the run's
# RDMA (verbs; on siw also iWARP in software): login, several LUNs, data that is
# verified, a file system, a target that goes away for a while, and on ublk the
# death of the daemon under I/O.
# timeout: 900
# quick: 6.12/*
set -euo pipefail
. "$VM_GUEST/lib.sh"
target=iqn.2026-11.example:lio
run=/tmp/lio-run
daemon=

ctl() { "$VM_BIN/iscsictl" --socket $run/control.sock "$@"; }

daemon_start() {
	"$VM_BIN/iscsid" -d -P $run/pid --run $run -o kern.iser.debug=3 >>$run/log 2>&1 &
	daemon=$!
	wait_for 20 test -S $run/control.sock
	wait_for 20 ctl -L >/dev/null
}

finish() {
	status=$?
	[ $status -eq 0 ] || tail -n 60 $run/log
	if [ -n "$daemon" ]; then kill "$daemon" 2>/dev/null && wait "$daemon" || true; fi
	lio_clear
	exit $status
}

# device N is the path of the only session's N-th device.
device() { echo "/dev/$(ctl -L | awk -v n="$1" '/Connected:/ { print $(3 + n) }')"; }

verify() { # DEVICE SIZE: writes of all sizes, read back and compared
	fio --name=verify --filename="$1" --rw=randwrite --bsrange=4k-1m --bs_unaligned=0 --blockalign=4k --iodepth=16 \
		--ioengine=libaio --direct=1 --size="$2" --verify=crc32c --do_verify=1 --minimal >/tmp/fio.out
}

# session ARGUMENT...: adds a session and goes through what a disk must do.
session() {
	echo "== $*"
	ctl -A "$@" -t $target -w 60
	ctl -L -v
	local first second
	first=$(device 1) second=$(device 2)
	[ -b "$first" ] && [ -b "$second" ]
	verify "$first" 24m
	mkfs.ext4 -q -F "$second"
	mkdir -p /tmp/lio-mount
	mount "$second" /tmp/lio-mount
	head -c 8M /dev/urandom >/tmp/lio-mount/a
	sha256sum /tmp/lio-mount/a >/tmp/lio.sum
	if ctl -R -t $target; then fail "a mounted disk was removed"; fi
	# The target goes away under I/O, and comes back.
	verify "$first" 24m &
	local io=$!
	echo 0 >$LIO/iscsi/$target/tpgt_1/enable
	sleep 2
	echo 1 >$LIO/iscsi/$target/tpgt_1/enable
	wait $io
	if [[ $first == /dev/ublkb* ]]; then
		for _ in 1 2 3; do
			verify "$first" 24m &
			io=$!
			sleep 1
			kill -9 "$daemon"
			wait "$daemon" || true
			daemon_start
			wait $io
		done
		[ "$(device 1)" = "$first" ]
	fi
	umount /tmp/lio-mount
	mount "$second" /tmp/lio-mount
	sha256sum -c /tmp/lio.sum
	umount /tmp/lio-mount
	fsck.ext4 -f -n "$second" >/dev/null
	ctl -R -t $target
	wait_for 20 bash -c "! [ -e $LIO/iscsi/$target/tpgt_1/dynamic_sessions ] || ! grep -q . $LIO/iscsi/$target/tpgt_1/dynamic_sessions"
}

mkdir -p $run
trap finish EXIT
modprobe -a ext4 loop fuse || true
modprobe ublk_drv || true
ulimit -l unlimited
lio_init
lio_target $target "$(lio_ram one 64)" "$(lio_ram two 64)"
lio_portal $target 127.0.0.1:3270
daemon_start
session -p 127.0.0.1:3270

rdma_up "$RDMA"
lio_portal $target "$RD_ADDR:3260" iser
session -r -p "$RD_ADDR:3260"
grep "RDMA provider: verbs" $run/log
if [ "$RDMA" = siw ]; then
	cat >/tmp/iwarp.conf <<END
iwarp {
	TargetName = $target
	TargetAddress = $RD_ADDR:3260
	Protocol = iSER
	Offload = iwarp
}
END
	echo "== iWARP in software"
	ctl -A -a -c /tmp/iwarp.conf -w 60
	ctl -L -v | grep "RDMA provider: *iwarp"
	verify "$(device 1)" 24m
	ctl -R -a
fi
kill "$daemon"
wait "$daemon"
daemon=
if ls /dev/ublkb* 2>/dev/null; then fail "devices are left"; fi
