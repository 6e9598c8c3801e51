# shellcheck shell=bash
# What scripts use inside of the guest:  . "$VM_GUEST/lib.sh"
# It works with set -e and without. There is no network beyond the guest.

# ---- cases -------------------------------------------------------------------

# A case is a script in test/vm/cases; it ends with status 0 or it has failed.
# skip ends it as not done, with the reason.
skip() {
	echo "SKIP: $*"
	exit 77
}

fail() {
	echo "FAIL: $*" >&2
	exit 1
}

# wait_for SECONDS COMMAND... waits until the command succeeds.
wait_for() {
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		if [ $SECONDS -ge $end ]; then
			echo "waited in vain for: $*" >&2
			return 1
		fi
		sleep 0.2
	done
}

# ---- RDMA --------------------------------------------------------------------

# The network interface rd0 and its address carry all RDMA: librdmacm finds no
# route on lo with rxe, and both ends can have the one address.
RD_ADDR=10.99.0.1

rd_net() {
	if [ -e /sys/class/net/rd0 ]; then return; fi
	modprobe dummy numdummies=0 &&
		ip link add rd0 type dummy &&
		ip link set rd0 mtu 9000 up &&
		ip addr add "$RD_ADDR/24" dev rd0
}

# rdma_up rxe|siw makes RoCE or iWARP in software on rd0, with its device nodes,
# and takes the other away.
rdma_up() {
	local module
	case $1 in
	rxe) module=rdma_rxe ;;
	siw) module=siw ;; # vm.sh --siw compiles it
	*) echo "rdma_up: rxe or siw" >&2 && return 2 ;;
	esac
	rd_net && rdma_down && modprobe -a $module rdma_ucm ib_uverbs || return
	rdma link add "${1}_rd0" type "$1" netdev rd0 || return
	wait_for 5 test -c /dev/infiniband/rdma_cm && wait_for 5 ls /dev/infiniband/uverbs0
}

rdma_down() {
	local link
	for link in $(rdma link show 2>/dev/null | awk '{ sub("/.*", "", $2); print $2 }'); do
		rdma link delete "$link" || return
	done
}

# rdma_count prints how many of a resource programs have (not the kernel): qp,
# mr, pd, cq, cm_id.
rdma_count() { rdma resource show "$1" | grep -c ' pid ' || true; }

# ---- LIO, the kernel's target --------------------------------------------------

# By configfs and not with targetcli, which takes seconds for a call.
LIO=/sys/kernel/config/target

lio_init() {
	modprobe configfs && { mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config; } &&
		modprobe -a target_core_mod iscsi_target_mod
}

# lio_on DISK puts a disk into service and prints its path. It gets a serial
# number first: without one LIO names no page of vital product data.
lio_on() {
	basename "$1" | md5sum | cut -c1-32 >"$1/wwn/vpd_unit_serial" && echo 1 >"$1/enable" && echo "$1"
}

# lio_ram NAME MIB makes a disk in memory and prints its configfs path.
lio_ram() {
	local d=$LIO/core/rd_mcp_1/$1
	mkdir -p "$d" && echo "rd_pages=$(($2 * 256))" >"$d/control" && lio_on "$d"
}

# lio_null NAME MIB makes one that keeps nothing, for figures.
lio_null() {
	local d=$LIO/core/rd_mcp_1/$1
	mkdir -p "$d" && echo "rd_pages=$(($2 * 256)),rd_nullio=1" >"$d/control" && echo 1 >"$d/enable" && echo "$d"
}

# lio_file NAME FILE BYTES [ATTRIBUTE=VALUE...] makes a disk of a file, which may
# be sparse; block_size=4096, emulate_tpu=1 (UNMAP) and the like are attributes.
lio_file() {
	local d=$LIO/core/fileio_1/$1 attribute
	modprobe target_core_file
	truncate -s ">$3" "$2" || return # else it grows as it is written to
	mkdir -p "$d" && echo "fd_dev_name=$2,fd_dev_size=$3" >"$d/control" && lio_on "$d" || return
	for attribute in "${@:4}"; do echo "${attribute#*=}" >"$d/attrib/${attribute%%=*}" || return; done
}

# lio_block NAME DEVICE makes a disk of a block device (dm-flakey and the like).
lio_block() {
	local d=$LIO/core/iblock_1/$1
	modprobe target_core_iblock
	mkdir -p "$d" && echo "udev_path=$2" >"$d/control" && lio_on "$d"
}

# lio_target IQN DISK... makes a target that is open to all, with LUN 0 and on.
lio_target() {
	local tpg=$LIO/iscsi/$1/tpgt_1 n=0 disk
	shift
	mkdir -p "$tpg" || return
	for disk; do
		mkdir -p "$tpg/lun/lun_$n" && ln -s "$disk" "$tpg/lun/lun_$n/disk" || return
		n=$((n + 1))
	done
	echo 0 >"$tpg/attrib/authentication"
	echo 0 >"$tpg/attrib/demo_mode_write_protect"
	echo 1 >"$tpg/attrib/generate_node_acls"
	echo 1 >"$tpg/attrib/cache_dynamic_acls"
	echo 1 >"$tpg/enable"
}

# lio_depth IQN N sets how many commands a session may have outstanding, which
# holds for sessions that log in from then on.
lio_depth() { echo "$2" >"$LIO/iscsi/$1/tpgt_1/attrib/default_cmdsn_depth"; }

# lio_chap IQN USER SECRET [MUTUAL_USER MUTUAL_SECRET] asks for CHAP.
lio_chap() {
	local auth=$LIO/iscsi/$1/tpgt_1/auth
	# Without a line feed, which LIO would take for a part of them.
	printf %s "$2" >"$auth/userid" && printf %s "$3" >"$auth/password" || return
	if [ $# -ge 5 ]; then
		printf %s "$4" >"$auth/userid_mutual" && printf %s "$5" >"$auth/password_mutual" || return
	fi
	echo 1 >"$LIO/iscsi/$1/tpgt_1/attrib/authentication"
}

# lio_portal IQN ADDRESS:PORT [iser]
# A portal is a TCP listener, and iser makes an RDMA listener beside it. On siw
# that is a TCP socket as well, and there is none free; on rxe both live, and an
# initiator that quietly fell back to TCP would not be noticed. So the TCP
# listener of an iSER portal is made in a network namespace where nobody calls.
# (By nsenter: "ip netns exec" hides configfs below a new /sys.)
lio_portal() {
	local np=$LIO/iscsi/$1/tpgt_1/np/$2
	if [ "${3:-}" != iser ]; then
		mkdir "$np"
		return
	fi
	modprobe ib_isert || return
	if ! [ -e /run/netns/lio ]; then
		ip netns add lio && ip -n lio link set lo up || return
	fi
	ip -n lio addr add "${2%:*}/32" dev lo 2>/dev/null || true
	nsenter --net=/run/netns/lio mkdir "$np" && echo 1 >"$np/iser"
}

# lio_idle reports whether nobody is logged in.
lio_idle() { ! cat $LIO/iscsi/*/tpgt_*/dynamic_sessions 2>/dev/null | tr -d '\0' | grep -q .; }

# lio_remove IQN takes a target away, and leaves its disks.
lio_remove() {
	local tpg=$LIO/iscsi/$1/tpgt_1
	echo 0 >"$tpg/enable" &&
		rmdir "$tpg"/np/* &&
		rm "$tpg"/lun/lun_*/disk* && rmdir "$tpg"/lun/lun_* "$tpg" "$LIO/iscsi/$1"
}

# lio_clear takes every target and every disk away. Who has gone a moment ago is
# waited for: disabling a portal group in the middle of a session's end can hang
# in the kernel for good, and LIO gives somebody who has vanished during a login 15
# seconds.
lio_clear() {
	local x
	if ! wait_for 60 lio_idle; then
		echo "LIO does not end a session; its targets are left as they are" >&2
		return
	fi
	echo 0 2>/dev/null >$LIO/iscsi/discovery_auth/enforce_discovery_auth || true
	for x in $LIO/iscsi/*/tpgt_*; do if [ -d "$x" ]; then echo 0 >"$x/enable" || true; fi; done
	for x in $LIO/iscsi/*/tpgt_*/np/*; do if [ -d "$x" ]; then rmdir "$x" || true; fi; done
	for x in $LIO/iscsi/*/tpgt_*/lun/lun_*/disk; do if [ -L "$x" ]; then rm "$x" || true; fi; done
	# Some of these directories are the kernel's own, and stay.
	for x in $LIO/iscsi/*/tpgt_*/lun/lun_* $LIO/iscsi/*/tpgt_* $LIO/iscsi/iqn* $LIO/core/*/*; do
		if [ -d "$x" ]; then rmdir "$x" 2>/dev/null || true; fi
	done
}

# ---- open-iscsi, the kernel's initiator ----------------------------------------

# oi_start [INITIATORNAME] starts its daemon.
oi_start() {
	modprobe -a iscsi_tcp sd_mod
	mkdir -p /etc/iscsi /run/lock/iscsi /var/lib/iscsi
	echo "InitiatorName=${1:-iqn.2026-11.example:guest}" >/etc/iscsi/initiatorname.iscsi
	# By its path: ours has the same name.
	if ! [ -s /run/iscsid.pid ] || ! kill -0 "$(cat /run/iscsid.pid)" 2>/dev/null; then /usr/sbin/iscsid; fi
}

# oi_login IQN ADDRESS:PORT [tcp|iser] logs in and prints the disks' names.
oi_login() {
	local iface=default transport=${3:-tcp}
	if [ "$transport" = iser ]; then
		iface=iser
		modprobe ib_iser || return
	fi
	# A second record of the same portal would make two sessions of it.
	iscsiadm -m node -T "$1" -p "$2" -I "$iface" >/dev/null 2>&1 ||
		iscsiadm -m node -T "$1" -p "$2" -I "$iface" -o new >/dev/null || return
	iscsiadm -m node -T "$1" -p "$2" -I "$iface" --login >&2 || return
	wait_for 10 oi_has_disks "$1" "$transport"
	sleep 0.5 # further LUNs come a little later
	oi_disks "$1" "$transport"
}

# oi_disks IQN tcp|iser prints the block devices of the target's sessions.
oi_disks() {
	local s host d
	for s in /sys/class/iscsi_session/session*; do
		[ "$(cat "$s/targetname" 2>/dev/null)" = "$1" ] || continue
		host=$(basename "$(dirname "$(readlink -f "$s/device")")")
		[ "$(cat "/sys/class/scsi_host/$host/proc_name")" = "iscsi_$2" ] || continue
		for d in "$s"/device/target*/*/block/sd*; do [ -e "$d" ] && echo "/dev/${d##*/}"; done
	done
}

oi_has_disks() { [ -n "$(oi_disks "$@")" ]; }

# oi_logout ends all sessions of open-iscsi, and leaves no records.
oi_logout() {
	iscsiadm -m node -u
	iscsiadm -m node -o delete
}

# ---- tgtd, a target in user space -----------------------------------------------

# tgt_start serves TCP at 127.0.0.1:3262 and iSER at *:3260: version 1.0.85 takes
# no other port for iSER, and on siw two listeners cannot share one.
tgt_start() {
	tgtd -f --iscsi portal=127.0.0.1:3262 >/tmp/tgtd.log 2>&1 &
	TGT_PID=$!
	echo $TGT_PID >/tmp/tgt.pid # who starts it need not be who stops it
	if ! wait_for 10 tgtadm --op show --mode sys; then
		cat /tmp/tgtd.log >&2
		return 1
	fi
}

# tgt_target iscsi|iser TID IQN FILE INITIATOR... makes a target with LUN 1. Over
# iSER, tgtd lets in whom it knows by address and by name.
tgt_target() {
	local driver=$1 tid=$2 iqn=$3 file=$4 name
	shift 4
	tgtadm --lld "$driver" --op new --mode target --tid "$tid" -T "$iqn" &&
		tgtadm --lld "$driver" --op new --mode logicalunit --tid "$tid" --lun 1 -b "$file" &&
		tgtadm --lld "$driver" --op bind --mode target --tid "$tid" --initiator-address ALL || return
	for name; do
		tgtadm --lld "$driver" --op bind --mode target --tid "$tid" --initiator-name "$name" || return
	done
}

tgt_pid() { cat /tmp/tgt.pid; }

tgt_lives() { kill -0 "$(tgt_pid)" 2>/dev/null; }

tgt_stop() {
	kill -KILL "$(tgt_pid)" 2>/dev/null || true
	wait "$(tgt_pid)" 2>/dev/null || true
	wait_for 10 tgt_dead
}

tgt_dead() { ! tgt_lives; }
