# shellcheck shell=bash
# A host with systemd of its own, inside of the guest: a PID, mount, network,
# cgroup and UTS namespace on a copy of the guest's file system.
#   . "$VM_GUEST/lib.sh"; . "$VM_GUEST/host.sh"
# The guest is the world around it: its kernel and devices are the guest's, and
# the one wire leads to $HOST_WORLD, where targets can be.

HOST=/run/host            # its root file system is in $HOST/root
HOST_WORLD=10.98.0.1 HOST_ADDR=10.98.0.2
host_pid=                 # of its systemd, as the guest sees it

# host_make lays its root file system over the guest's, with systemd's units as
# packages bring them and none of what the guest's administrator enabled.
host_make() {
	local unit
	mkdir -p $HOST
	mount -t tmpfs -o mode=755 host $HOST
	mkdir -p $HOST/{up,work,root}
	mount -t overlay -o "lowerdir=/,upperdir=$HOST/up,workdir=$HOST/work" host $HOST/root
	rm -rf $HOST/root/etc/systemd/system/* $HOST/root/etc/fstab
	# Nothing of this is needed, and an emulated processor takes long for it.
	for unit in getty.target console-getty.service dbus.service dbus.socket systemd-logind.service \
		systemd-modules-load.service systemd-update-utmp.service systemd-update-utmp-runlevel.service \
		systemd-random-seed.service systemd-pstore.service systemd-binfmt.service systemd-hwdb-update.service \
		systemd-udev-trigger.service systemd-remount-fs.service systemd-sysctl.service kmod-static-nodes.service \
		proc-sys-fs-binfmt_misc.automount dev-hugepages.mount dev-mqueue.mount sys-kernel-config.mount \
		sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount \
		open-iscsi.service iscsid.socket; do
		ln -s /dev/null "$HOST/root/etc/systemd/system/$unit"
	done
	: >$HOST/root/etc/machine-id
	ip netns add host
	ip link add world type veth peer name eth0 netns host
	ip addr add $HOST_WORLD/24 dev world
	ip link set world up
	ip -n host addr add $HOST_ADDR/24 dev eth0
	ip -n host link set eth0 up
	ip -n host link set lo up
}

# host_install puts our programs and all of init/ where a package would, and
# has them start at boot. (Debian has remote-fs.target enabled.)
host_install() {
	local from=init root=$HOST/root file
	cp "$VM_BIN"/{iscsid,iscsictl} $root/usr/sbin/
	cp "$from"/*.service $root/usr/lib/systemd/system/
	cp "$from/iscsid.sysusers" $root/usr/lib/sysusers.d/iscsid.conf
	cp "$from/iscsid.tmpfiles" $root/usr/lib/tmpfiles.d/iscsid.conf
	for file in "$from"/*.default; do cp "$file" "$root/etc/default/$(basename "$file" .default)"; done
	for file in "$from"/*.rules; do
		if [ -e "$file" ]; then cp "$file" $root/usr/lib/udev/rules.d/; fi
	done
	rm -f $root/etc/init.d/{iscsid,open-iscsi} # of the other iscsid
	systemd-sysusers --root=$root
	systemctl --root=$root enable remote-fs.target iscsid iscsictl
}

# host_boot starts its systemd and returns when that has begun.
host_boot() {
	local cgroup=/sys/fs/cgroup/host
	mkdir -p $cgroup
	# The process joins the cgroup first, which is the root of its namespace.
	bash -c 'echo $$ >/sys/fs/cgroup/host/cgroup.procs
		exec nsenter --net=/run/netns/host unshare --pid --fork --mount --uts --ipc --cgroup "$@"' - \
		bash "$VM_GUEST/host-init.sh" $HOST/root >>/tmp/host.log 2>&1 &
	host_unshare=$!
	wait_for 10 host_has_pid
}

host_has_pid() {
	host_pid=$(pgrep -P "$host_unshare") && [ -n "$host_pid" ]
}

# host COMMAND... runs a command in it.
host() { nsenter --target "$host_pid" --all -- env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb "$@"; }

# host_booted reports whether it has come up to the end.
host_booted() { [[ $(host systemctl is-system-running) =~ ^(running|degraded)$ ]]; }

# host_off SECONDS shuts it down, and says how long that took.
host_off() {
	local begin=${EPOCHREALTIME/./} took
	host systemctl poweroff --no-block 2>/dev/null # there is no D-Bus to ask first
	if ! wait_for "$1" host_is_off; then
		host_trouble
		return 1
	fi
	took=$((${EPOCHREALTIME/./} - begin)) host_pid=
	echo "shut down in $((took / 1000)) ms"
}

host_is_off() { ! kill -0 "$host_unshare"; }

# host_trouble prints what may tell why it did not go well.
host_trouble() {
	host systemctl list-jobs --no-pager || true
	host systemctl --failed --no-pager || true
	host journalctl -b --no-pager -o short-monotonic -n 120 || true
}

# host_clear ends it, if it lives, and takes all of it away.
host_clear() {
	if [ -n "$host_pid" ]; then kill -KILL "$host_pid" 2>/dev/null; wait "$host_unshare" 2>/dev/null; fi
	ip link del world 2>/dev/null
	ip netns del host 2>/dev/null
	umount -R $HOST/root $HOST 2>/dev/null
	rm -rf /dev/disk /dev/iscsi # udev's
	rm -f /dev/log              # the journal's, which leads nowhere now
	rmdir /sys/fs/cgroup/host 2>/dev/null
	return 0
}
