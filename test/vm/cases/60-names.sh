#!/usr/bin/env bash
# Names that stay: the links of real udev with the rule that is installed are
# those that it makes for the kernel's own initiator, on the same logical units;
# UUID= and LABEL= mounts; a daemon that dies; and the same without udev.
# timeout: 900
# runs: 6.12/rxe
# quick: 6.12/rxe
set -euo pipefail
. "$VM_GUEST/lib.sh"
DISK_RUN=/run/iscsid # where the rule looks
. "$VM_GUEST/disk.sh"
target=iqn.2026-11.example:names
udevd=
rules=$(dirname "$0")/../../../init/60-iscsid.rules

finish() {
	local status=$?
	set +e
	if [ $status -ne 0 ]; then
		ls -lR /dev/disk /dev/iscsi
		tail -n +1 /run/iscsid/udev/*
	fi
	if [ -n "$udevd" ]; then kill "$udevd"; fi
	(exit $status)
	disk_finish
}
trap finish EXIT

udev_start() {
	mkdir -p /run/udev/rules.d
	cp "$rules" /run/udev/rules.d/
	/lib/systemd/systemd-udevd >/tmp/udevd.log 2>&1 &
	udevd=$!
	wait_for 20 test -S /run/udev/control
}

udev_stop() {
	kill "$udevd"
	wait "$udevd" 2>/dev/null || true
	udevd=
	rm -rf /run/udev
}

# links prints the links to a device that udev does not make for any disk.
links() {
	local l
	for l in /dev/disk/by-path/* /dev/disk/by-id/* /dev/iscsi/*/*; do
		if [ -L "$l" ] && [ "$(readlink -f "$l")" = "$1" ]; then echo "${l#/dev/}"; fi
	done | sort
}

# same DEVICE LINK...: has just these.
same() {
	local device=$1 have want
	shift
	have=$(links "$device") want=$(printf '%s\n' "$@" | sort)
	[ "$have" = "$want" ] || fail "$device has the links"$'\n'"$have"$'\n'"and not"$'\n'"$want"
}

# by_udev DEVICE: udev has made all of them.
by_udev() {
	local have want
	udevadm settle --timeout=60
	have=$(udevadm info -q symlink -n "$1" | tr ' ' '\n' | sort)
	want=$(links "$1")
	[ -z "$(comm -13 <(echo "$have") <(echo "$want"))" ] || fail "udev has for $1"$'\n'"$have"$'\n'"and not all of"$'\n'"$want"
}

none() { [ -z "$(find /dev/disk/by-path /dev/disk/by-id /dev/iscsi -lname '*ublkb*' -o -lname '*loop*' 2>/dev/null)" ]; }

modprobe -a ext4 loop fuse ublk_drv
lio_init
one=$(lio_ram one 64) two=$(lio_ram two 64)
echo 6ba7b810-9dad-11d1-80b4-00c04fd430c8 >"$one/wwn/vpd_unit_serial"
lio_target $target "$one" "$two"
lio_portal $target 127.0.0.1:3270
lio_portal $target "[::1]:3270"

echo "== the kernel's initiator"
udev_start
oi_start
declare -A theirs
for portal in 127.0.0.1:3270 "[::1]:3270"; do
	mapfile -t disks < <(oi_login $target "$portal")
	udevadm settle --timeout=60
	for n in 0 1; do
		theirs[$portal,$n]=$(links "${disks[$n]}")
		echo "$portal LUN $n: ${disks[$n]}"
		echo "${theirs[$portal,$n]}"
	done
	oi_logout >/dev/null
	udevadm settle --timeout=60
done
[ -z "$(ls -A /dev/disk/by-path 2>/dev/null)" ]

echo "== ours, with udev"
daemon_start
for portal in 127.0.0.1:3270 "[::1]:3270"; do
	ctl -A -p "$portal" -t $target -w 60
	for n in 0 1; do
		d=$(disk_of $target $((n + 1)))
		[ "$(basename "$d")" = ublkb$n ]
		# shellcheck disable=SC2086 # a list
		same "$d" ${theirs[$portal,$n]} iscsi/$target/lun$n
		by_udev "$d"
		# shellcheck disable=SC2086
		same "$d" ${theirs[$portal,$n]} iscsi/$target/lun$n
	done
	ctl -R -a
	wait_for 20 test ! -e /dev/ublkb0
	udevadm settle --timeout=60
	none || fail "links are left"
done

echo "== partitions, UUID= and LABEL="
ctl -A -p 127.0.0.1:3270 -t $target -w 60
printf 'o\nn\np\n1\n\n+16M\nn\np\n2\n\n+16M\nw\n' | busybox fdisk /dev/iscsi/$target/lun0 >/tmp/fdisk.log 2>&1 || true
# busybox gives the label no number, without which there is no PARTUUID.
printf '\x78\x56\x34\x12' | dd of=/dev/ublkb0 bs=1 seek=440 conv=notrunc,fsync status=none
udevadm settle --timeout=60
blockdev --rereadpt /dev/ublkb0 # partitions go and come
udevadm settle --timeout=60
wait_for 20 test -e /dev/iscsi/$target/lun0-part2
mkfs.ext4 -q -L onpart2 -U 11111111-2222-3333-4444-555555555555 /dev/iscsi/$target/lun0-part2
mkfs.ext4 -q -L whole /dev/ublkb1
wait_for 20 test -e /dev/disk/by-label/onpart2
wait_for 20 test -e /dev/disk/by-label/whole
[ "$(readlink -f /dev/disk/by-uuid/11111111-2222-3333-4444-555555555555)" = /dev/ublkb0p2 ]
[ "$(readlink -f /dev/disk/by-partuuid/12345678-02)" = /dev/ublkb0p2 ]
by_udev /dev/ublkb0p2
links /dev/ublkb0p2 | grep "^disk/by-path/ip-127.0.0.1:3270-iscsi-$target-lun-0-part2$"
links /dev/ublkb0p2 | grep '^disk/by-id/wwn-0x6001405.*-part2$'
mkdir -p /tmp/names
mount UUID=11111111-2222-3333-4444-555555555555 /tmp/names
umount /tmp/names
mount LABEL=whole /tmp/names
before=$(links /dev/ublkb0p2; links /dev/ublkb1)

echo "== a daemon that dies"
daemon_kill
[ "$(links /dev/ublkb0p2; links /dev/ublkb1)" = "$before" ]
daemon_start
wait_for 60 sh -c "'$VM_BIN/iscsictl' -L | grep 'Connected: ublkb0 ublkb1'"
date >/tmp/names/file
umount /tmp/names
udevadm settle --timeout=60
[ "$(links /dev/ublkb0p2; links /dev/ublkb1)" = "$before" ]
ctl -R -a
wait_for 20 test ! -e /dev/ublkb0
udevadm settle --timeout=60
none || fail "links are left"

echo "== loop devices with udev, and a daemon that dies"
daemon_stop
DISK_OPTIONS=(-o device=loop)
daemon_start
ctl -A -p 127.0.0.1:3270 -t $target -w 60
d=$(disk_of $target 2)
by_udev "$d"
# shellcheck disable=SC2086
same "$d" ${theirs[127.0.0.1:3270,1]} iscsi/$target/lun1
mount LABEL=whole /tmp/names
umount /tmp/names
daemon_kill
daemon_start
wait_for 60 sh -c "'$VM_BIN/iscsictl' -L | grep 'Connected: loop[0-9]* loop'"
d=$(disk_of $target 2)
by_udev "$d"
ctl -R -a
wait_for 20 none
udevadm settle --timeout=60
none || fail "links are left"
daemon_stop

echo "== without udev"
udev_stop
find /dev/disk /dev/iscsi -type l -delete 2>/dev/null || true
DISK_OPTIONS=()
daemon_start
ctl -A -p 127.0.0.1:3270 -t $target -w 60
# shellcheck disable=SC2086
same /dev/ublkb0 ${theirs[127.0.0.1:3270,0]} iscsi/$target/lun0
wait_for 5 test -e /dev/iscsi/$target/lun0-part2
mount UUID=11111111-2222-3333-4444-555555555555 /tmp/names
umount /tmp/names
blockdev --rereadpt /dev/ublkb1
wipefs -q -a /dev/ublkb0
blockdev --rereadpt /dev/ublkb0
wait_for 10 test ! -L /dev/iscsi/$target/lun0-part2
printf 'o\nn\np\n1\n\n+16M\nw\n' | busybox fdisk /dev/ublkb0 >/tmp/fdisk.log 2>&1 || true
blockdev --rereadpt /dev/ublkb0
wait_for 10 test -e /dev/iscsi/$target/lun0-part1
daemon_kill
daemon_start
wait_for 60 sh -c "'$VM_BIN/iscsictl' -L | grep 'Connected: ublkb0 ublkb1'"
ctl -R -a
wait_for 20 test ! -e /dev/ublkb0
wait_for 5 none
DISK_OPTIONS=(-o device=loop)
daemon_stop
daemon_start
ctl -A -p 127.0.0.1:3270 -t $target -w 60
[ -e /dev/iscsi/$target/lun0 ]
daemon_kill
rm -rf /var/lib/iscsid "$DISK_RUN/state" # nothing comes back
daemon_start
wait_for 5 none
daemon_stop
lio_clear
