#!/usr/bin/env bash
# A host with systemd (guest/host.sh) boots with file systems of /etc/fstab on
# iSCSI disks, keeps them when iscsid is restarted, killed or hangs, and shuts
# down in time, with its file systems clean, and also when the target is gone.
# runs: 6.12/rxe
# quick: 6.12/rxe
# timeout: 1200
set -euo pipefail
. "$VM_GUEST/lib.sh"
. "$VM_GUEST/host.sh"
target=iqn.2026-11.example:boot
lines=$(dmesg | wc -l)

step() { echo "== $* ($SECONDS s)"; }

finish() {
	status=$?
	set +e
	if [ $status -ne 0 ] && [ -n "$host_pid" ]; then host_trouble; fi
	host_clear
	lio_clear
	rm -rf /tmp/boot-*
	exit $status
}

# property NAME prints one of iscsid.service.
property() { host systemctl show --value -p "$1" iscsid; }

pid() { property MainPID; }
restarted() { [ "$(pid)" != "$1" ] && [ "$(property ActiveState)" = active ]; }
connected() { host iscsictl | grep 'Connected: ' >/dev/null; }
told() { property StatusText | grep '1 connected; 3 disks' >/dev/null; }

# boot also says how long a shutdown may take: 20 s, and longer on a machine so busy
# that the boot was slow. What hangs takes 90 s, the limit of systemd.
boot() {
	local begin=$SECONDS took
	host_boot
	wait_for 400 host_booted
	took=$((SECONDS - begin))
	shutdown_limit=20
	if [ $took -gt 60 ]; then shutdown_limit=60; fi
	echo "booted in $took s, so that a shutdown may take $shutdown_limit s"
}

# sums checks what the file systems hold.
sums() { host bash -c 'cd /srv && sha256sum --quiet -c sums'; }

# through COMMAND...: the command replaces iscsid while fio writes and verifies,
# and files are written and read.
through() {
	local before io
	before=$(pid)
	host fio --name=verify --filename=/dev/"$raw" --rw=randwrite --bsrange=4k-256k --blockalign=4k --iodepth=8 --size=12m \
		--ioengine=libaio --direct=1 --verify=crc32c --do_verify=1 --verify_fatal=1 --minimal >/tmp/boot-fio &
	io=$!
	sleep 1
	host "$@"
	wait_for 120 restarted "$before"
	host bash -c 'head -c 1M /dev/urandom >/srv/one/new && sync -f /srv/one/new'
	wait $io
	wait_for 120 connected
	[ "$disks" = "$(host iscsictl | sed -n 's/.*Connected: //p')" ]
	sums
}

# clean FILE: the file system was unmounted, and nothing is wrong with it.
clean() {
	fsck.ext4 -f -n "$1"
	tune2fs -l "$1" | grep '^Filesystem state: *clean$' >/dev/null
	if tune2fs -l "$1" | grep needs_recovery >/dev/null; then fail "$1 was not unmounted"; fi
}

trap finish EXIT
step prepare
for disk in one two raw; do truncate -s 64M /tmp/boot-$disk; done
mkfs.ext4 -q /tmp/boot-one
mkfs.ext4 -q /tmp/boot-two
host_make
host_install
lio_init
lio_target $target $(for disk in one two raw; do lio_file boot-$disk /tmp/boot-$disk 67108864; done)
lio_portal $target $HOST_WORLD:3260
root=$HOST/root
cat >$root/etc/iscsi.conf <<END
boot {
	TargetAddress = $HOST_WORLD
	TargetName    = $target
}
END
chmod 600 $root/etc/iscsi.conf
mkdir -p $root/srv/{one,two} $root/etc/systemd/system/iscsid.service.d
path=/dev/disk/by-path/ip-$HOST_WORLD:3260-iscsi-$target-lun-1
cat >$root/etc/fstab <<END
UUID=$(blkid -o value -s UUID /tmp/boot-one) /srv/one ext4 _netdev 0 2
$path /srv/two ext4 _netdev 0 2
END
printf '[Service]\nWatchdogSec=6\n' >$root/etc/systemd/system/iscsid.service.d/sooner.conf

step boot
boot
[ "$(host systemctl is-system-running)" = running ]
host mountpoint /srv/one
host mountpoint /srv/two
wait_for 60 told
host systemctl status iscsid iscsictl --no-pager --lines=20
host iscsictl -L -v
[ "$(host stat -c %G /run/iscsid/control.sock)" = iscsi ]
[ "$(host cat "/proc/$(pid)/oom_score_adj")" = -1000 ]
disks=$(host iscsictl | sed -n 's/.*Connected: //p')
read -r _ _ raw <<<"$disks"
host bash -c 'cd /srv && for i in one two; do head -c 4M /dev/urandom >$i/data; done && sha256sum */data >sums'

step restart
through systemctl restart iscsid
step kill
through bash -c "kill -KILL $(pid)"
step hang
through bash -c "kill -STOP $(pid)"
host journalctl -u iscsid --no-pager | grep 'Watchdog timeout'
if dmesg | tail -n +"$lines" | grep -E 'I/O error|EXT4-fs error'; then fail "an I/O error was seen"; fi

step shutdown
host_off $shutdown_limit
wait_for 10 lio_idle
clean /tmp/boot-one
clean /tmp/boot-two
if ls /dev/ublkb* 2>/dev/null; then fail "disks are left"; fi

step 'boot again'
boot
sums
host dd if=/dev/urandom of=/srv/one/lost bs=1M count=8 status=none
ip link set world down
step 'shutdown without the target'
host_off $shutdown_limit
ip link set world up
wait_for 90 lio_idle
# They could not be unmounted; what they hold is sound.
for disk in one two; do fsck.ext4 -p -f /tmp/boot-$disk || [ $? -eq 1 ]; done
step "all done"
