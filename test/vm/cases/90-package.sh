#!/usr/bin/env bash
# From open-iscsi to our package and its next version, on a host with systemd
# (guest/host.sh): what open-iscsi's records become, a disk that keeps its I/O while
# the package is upgraded, and what docs/containers.md says of devices.
# runs: 6.12/rxe
# quick: 6.12/rxe
# timeout: 1200
set -euo pipefail
. "$VM_GUEST/lib.sh"
. "$VM_GUEST/host.sh"
target=iqn.2026-11.example:package
secret=twelve-letters

step() { echo "== $* ($SECONDS s)"; }

finish() {
	status=$?
	set +e
	if [ $status -ne 0 ] && [ -n "$host_pid" ]; then host_trouble; fi
	if [ -n "$host_pid" ]; then host iscsictl -Ra 2>/dev/null; fi
	host_clear
	lio_clear
	rm -rf /tmp/package-* /etc/iscsi/nodes /var/lib/iscsi/nodes
	exit $status
}

pid() { host systemctl show --value -p MainPID iscsid; }
connected() { host iscsictl | grep -q 'Connected: '; }
active() { [ "$(host systemctl is-active iscsid)" = active ] && host iscsictl -L; }
# runs FILE: the daemon is this program.
runs() { active && cmp -s "/proc/$(host_pid_of "$(pid)")/exe" "$1"; }
# host_pid_of PID prints the guest's number of a process of the host's.
host_pid_of() { awk -v p="$1" '$1 == "NSpid:" && $NF == p && NF == 3 { print $2 }' /proc/[0-9]*/status 2>/dev/null | head -1; }

trap finish EXIT
step prepare
truncate -s 64M /tmp/package-disk
mkfs.ext4 -q /tmp/package-disk
host_make
lio_init
lio_target $target "$(lio_file package-disk /tmp/package-disk 67108864)"
lio_chap $target somebody $secret
lio_portal $target $HOST_WORLD:3260
root=$HOST/root

step "open-iscsi's records"
record() { iscsiadm -m node -T "$1" -p $HOST_WORLD:3260 "${@:2}"; }
oi_start
for name in $target $target-manual; do record $name -o new >/dev/null; done
record $target -o update -n node.startup -v automatic
record $target -o update -n node.session.auth.authmethod -v CHAP
record $target -o update -n node.session.auth.username -v somebody
record $target -o update -n node.session.auth.password -v $secret
record $target-manual -o update -n node.startup -v manual
kill "$(cat /run/iscsid.pid)"
(umask 077 && "$VM_BIN/iscsictl" --import-open-iscsi >$root/etc/iscsi.conf)
sed "s/$secret/(secret)/" $root/etc/iscsi.conf
[ "$(grep -c '^[^#[:space:]].*{' $root/etc/iscsi.conf)" = 2 ]

step install
# As without open-iscsi; and an image's policy may be that nothing is started.
rm -f $root/usr/sbin/{iscsid,iscsiadm,policy-rc.d} $root/etc/init.d/{iscsid,open-iscsi}
cp "$VM_DEB"/*.deb $root/srv/
host_boot
wait_for 400 host_booted
host dpkg -i /srv/iscsictl_0.1.0_amd64.deb
wait_for 120 active
runs "$VM_BIN/iscsid"
[ "$(host systemctl is-enabled iscsid iscsictl | sort -u)" = enabled ]
wait_for 120 connected # by iscsictl.service, which does "iscsictl -A -a"
host iscsictl -L
disk=$(host iscsictl | sed -n "s/.*Connected: *\([^ ]*\).*/\1/p")
[[ $disk == ublkb* ]]
if host iscsictl -L | grep -q -e "$target-manual.*Connected"; then fail "a manual record was started"; fi

step devices
blkext=$(awk '/^Block/ { b = 1 } b && $2 == "blkext" { print $1 }' /proc/devices)
char=$(awk '/^Block/ { exit } $2 == "ublk-char" { print $1 }' /proc/devices)
echo "blkext $blkext, ublk-char $char"
[ "$blkext" = 259 ]
[ "$(host lsblk -dno MAJ:MIN "/dev/$disk" | tr -d ' ' | cut -d: -f1)" = "$blkext" ]
[ "$((0x$(host stat -c %t "/dev/ublkc${disk#ublkb}")))" = "$char" ]
# The kernel's nbd can be spoken to in any network namespace, and this host has its own.
modprobe nbd
host genl ctrl get name nbd

step upgrade
lines=$(dmesg | wc -l)
host mount "/dev/$disk" /mnt
host fio --name=verify --filename=/mnt/fio --rw=randwrite --bsrange=4k-64k --blockalign=4k --iodepth=8 --size=12m \
	--ioengine=libaio --direct=1 --verify=crc32c --do_verify=1 --verify_fatal=1 --time_based=0 --loops=4 --minimal >/tmp/package-fio &
io=$!
sleep 1
before=$(pid)
host dpkg -i /srv/iscsictl_0.2.0_amd64.deb
kill -0 $io || echo "(fio was faster than dpkg)"
wait_for 120 runs "$VM_NEXT/iscsid"
[ "$(pid)" != "$before" ]
wait $io
[ "$(host iscsictl | sed -n "s/.*Connected: *\([^ ]*\).*/\1/p")" = "$disk" ]
host bash -c 'echo 3 >/proc/sys/vm/drop_caches; head -c 1M /dev/urandom >/mnt/more && sync -f /mnt/more'
if dmesg | tail -n +"$lines" | grep -E 'I/O error|EXT4-fs error'; then fail "an I/O error was seen"; fi

step remove
if host dpkg -r iscsictl; then fail "the package of a mounted disk was removed"; fi
host bash -c 'echo more >/mnt/more && sync -f /mnt/more'
host umount /mnt
host dpkg -r iscsictl
if ls /dev/ublkb* 2>/dev/null; then fail "disks are left"; fi
wait_for 10 lio_idle
fsck.ext4 -f -n /tmp/package-disk
step "all done"
