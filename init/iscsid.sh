#!/bin/sh
### BEGIN INIT INFO
# Provides:          iscsid iscsi
# Required-Start:    $network $local_fs
# Required-Stop:     $network $local_fs
# Should-Start:      $named $syslog
# X-Stop-After:      umountnfs
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
# Short-Description: iSCSI initiator, its sessions and their file systems
# Description:       Starts iscsid(8), adds the sessions that iscsictl_flags
#                    asks for (those of /etc/iscsi.conf), and mounts what
#                    /etc/fstab has with _netdev; takes all that back.
### END INIT INFO

# For hosts without systemd. The settings are those of rc.conf(5):
#   /etc/default/iscsictl   iscsictl_flags   (-Aa -w 30; "" adds nothing)
#   /etc/default/iscsid     iscsid_flags     ()

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
pidfile=/var/run/iscsid.pid

iscsid_flags=
iscsictl_flags='-Aa -w 30'
for settings in /etc/default/iscsid /etc/default/iscsictl; do
	# shellcheck disable=SC1090 # they are the administrator's
	if [ -r "$settings" ]; then . "$settings"; fi
done

# pid prints the daemon's process id, while it lives. Another's iscsid may have
# left its own in the file.
pid() {
	number=$(cat "$pidfile" 2>/dev/null) || return 1
	[ -n "$number" ] && [ "$(cat "/proc/$number/comm" 2>/dev/null)" = iscsid ] || return 1
	echo "$number"
}

# gone SECONDS PID waits until the process has ended.
gone() {
	left=$(($1 * 10))
	while kill -0 "$2" 2>/dev/null; do
		[ $left -gt 0 ] || return 1
		left=$((left - 1))
		sleep 0.1
	done
}

start_daemon() {
	if pid >/dev/null; then return 0; fi
	modprobe -a ublk_drv nbd loop fuse 2>/dev/null
	# shellcheck disable=SC2086 # these are words
	iscsid $iscsid_flags
}

# disks prints the block devices of all sessions.
disks() {
	iscsictl --libxo=json -Lv 2>/dev/null | sed 's/"device": *"/\n&/g' |
		sed -n 's/^"device": *"\(\/dev\/\)\{0,1\}\([a-z]*[0-9]*\)".*/\2/p' | sort -u
}

# unmount takes away what is mounted from our disks and their partitions, the
# last mount first, and swap on them.
unmount() {
	for disk in $(disks); do
		awk -v disk="/dev/$disk" '$1 == disk || index($1, disk "p") == 1 { print $1 }' /proc/swaps |
			while read -r device; do swapoff "$device"; done
		awk -v disk="/dev/$disk" '$1 == disk || index($1, disk "p") == 1 { print NR, $2 }' /proc/mounts |
			sort -rn | while read -r _ point; do umount "$(printf '%b' "$point")"; done
	done
}

start() {
	start_daemon || return
	# That not all are there in time is no failure: iscsid goes on trying.
	# shellcheck disable=SC2086 # these are words
	if [ -n "$iscsictl_flags" ]; then iscsictl $iscsictl_flags; fi
	mount -a -O _netdev
	return 0
}

stop() {
	number=$(pid) || return 0
	# From now on nothing waits long for a target that is away.
	kill -USR2 "$number"
	unmount
	iscsictl -Ra 2>/dev/null
	kill -TERM "$number" 2>/dev/null
	gone 20 "$number" || kill -KILL "$number"
	gone 5 "$number"
}

# restart keeps the sessions and those disks that outlive the daemon.
restart() {
	if number=$(pid); then
		kill -USR1 "$number"
		gone 10 "$number" || kill -KILL "$number"
		gone 5 "$number"
		start_daemon
	else
		start
	fi
}

case ${1-} in
start | stop | restart) "$1" ;;
force-reload) restart ;;
try-restart) if pid >/dev/null; then restart; fi ;;
status)
	if number=$(pid); then
		echo "iscsid is running, pid $number"
		iscsictl
	elif [ -e "$pidfile" ]; then
		echo "iscsid is not running, and has left $pidfile"
		exit 1
	else
		echo "iscsid is not running"
		exit 3
	fi
	;;
*)
	echo "usage: $0 start | stop | restart | force-reload | try-restart | status" >&2
	exit 2
	;;
esac
