#!/usr/bin/env bash
# init/iscsid.sh, for hosts without systemd: disks and their file systems come
# with start, outlive restart and go with stop, also when the target is gone.
# runs: 6.12/rxe
# quick: 6.12/rxe
# timeout: 240
set -euo pipefail
. "$VM_GUEST/lib.sh"
target=iqn.2026-11.example:init
link=/run/iscsid/by-target/$target/lun0

rc() { sh init/iscsid.sh "$@"; }
pid() { cat /var/run/iscsid.pid; }

finish() {
	status=$?
	set +e
	[ $status -eq 0 ] || cat /tmp/init-log
	mountpoint -q /tmp/init-mount && umount /tmp/init-mount
	rc stop
	kill "$syslog"
	lio_clear
	rm -rf /usr/local/sbin/{iscsid,iscsictl} /etc/iscsi.conf /tmp/init-*
	mv /tmp/fstab /etc/fstab
	exit $status
}

# open-iscsi's daemon of a case before would be taken for ours.
if [ -s /run/iscsid.pid ]; then
	kill "$(cat /run/iscsid.pid)" 2>/dev/null || true
	rm -f /run/iscsid.pid
fi
touch /etc/fstab
cp /etc/fstab /tmp/fstab
# A daemon that detaches wants a syslog.
busybox syslogd -n -O /tmp/init-log &
syslog=$!
trap finish EXIT
wait_for 10 test -S /dev/log
cp "$VM_BIN"/{iscsid,iscsictl} /usr/local/sbin/
truncate -s 64M /tmp/init-disk
mkfs.ext4 -q /tmp/init-disk
lio_init
lio_target $target "$(lio_file init-disk /tmp/init-disk 67108864)"
lio_portal $target 127.0.0.1:3271
(
	umask 077
	printf 'init {\n\tTargetAddress = 127.0.0.1:3271\n\tTargetName = %s\n}\n' $target >/etc/iscsi.conf
)
mkdir -p /tmp/init-mount
echo "$link /tmp/init-mount ext4 _netdev 0 0" >/etc/fstab

status=0
rc status || status=$?
[ $status -eq 3 ]
rc start
mountpoint /tmp/init-mount
rc status
rc start # again, which is nothing new
head -c 4M /dev/urandom >/tmp/init-mount/data
sha256sum /tmp/init-mount/data >/tmp/init-sum
before=$(pid) device=$(readlink -f $link)
[[ $device == /dev/ublkb* ]]
[ "$(cat "/proc/$before/oom_score_adj")" = -1000 ]

rc restart
[ "$(pid)" != "$before" ]
echo 3 >/proc/sys/vm/drop_caches
sha256sum -c /tmp/init-sum
[ "$(readlink -f $link)" = "$device" ]

rc stop
if mountpoint /tmp/init-mount; then fail "it is still mounted"; fi
if ls /dev/ublkb* 2>/dev/null; then fail "disks are left"; fi
wait_for 10 lio_idle
fsck.ext4 -f -n /tmp/init-disk

rc start
sha256sum -c /tmp/init-sum
echo dirty >/tmp/init-mount/more
echo 0 >$LIO/iscsi/$target/tpgt_1/enable
begin=$SECONDS
rc stop
[ $((SECONDS - begin)) -le 20 ]
if ls /dev/ublkb* 2>/dev/null; then fail "disks are left"; fi
