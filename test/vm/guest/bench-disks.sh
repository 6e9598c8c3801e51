#!/usr/bin/env bash
# bench-disks.sh runs in the guest: the disks of iscsid beside the kernel's own
# initiator, on one LIO target, by fio, in turn (A B C, A B C, ...). It prints a
# line for each run:
#   ROW KIND REQUESTS/S CPU  (CPU: microseconds of the whole machine for a request)
#   bench-disks.sh ROUNDS SECONDS KIND...
# KIND is the driver of the kernel's initiator, iscsi_tcp or ib_iser, which comes
# first and says how all connect, or what iscsid shows its disk by: ublk, nbd, loop.
set -euo pipefail
. "$VM_GUEST/lib.sh"
. "$VM_GUEST/disk.sh"
rounds=$1 seconds=$2
shift 2
iqn=iqn.2026-11.example:bench
rows='
4k-randread-1     randread  4k   1
4k-randread-32    randread  4k   32
4k-randwrite-32   randwrite 4k   32
128k-read-32      read      128k 32
128k-write-32     write     128k 32
1m-read-8         read      1m   8
1m-write-8        write     1m   8
'
declare -A disk daemons

portal=127.0.0.1:3270 transport=tcp add=()
if [ "$1" = ib_iser ]; then portal=$RD_ADDR:3260 transport=iser add=(-r); fi

# disk_up KIND sets disk[KIND].
disk_up() {
	if [ "$1" = iscsi_tcp ] || [ "$1" = ib_iser ]; then
		oi_start
		disk[$1]=$(oi_login $iqn "$portal" $transport)
		return
	fi
	DISK_RUN=/tmp/bench-$1 DISK_OPTIONS=(-o "device=$1")
	daemon_start
	ctl -A -t $iqn -p "$portal" "${add[@]}" -w 60
	disk[$1]=$(disk_of $iqn 1)
	daemons[$1]=$DAEMON
}

# busy prints the ticks that the machine's processors have worked.
busy() { awk '/^cpu / { print $2 + $3 + $4 + $7 + $8; exit }' /proc/stat; }

# measure ROW KIND RW BS DEPTH
measure() {
	local before after ios
	before=$(busy)
	ios=$(fio --name="$1" --filename="${disk[$2]}" --rw="$3" --bs="$4" --iodepth="$5" --ioengine=libaio --direct=1 \
		--runtime="$seconds" --time_based --size=192m --randrepeat=0 --norandommap --output-format=terse --terse-version=3 |
		awk -F';' '{ printf "%d %d", $8 * $9 / 1000, $49 * $50 / 1000 }')
	after=$(busy)
	# shellcheck disable=SC2086 # they are two: reads and writes
	awk -v row="$1" -v kind="$2" -v ticks=$((after - before)) -v seconds="$seconds" -v hz="$(getconf CLK_TCK)" '
		BEGIN { n = ARGV[1] + ARGV[2]; printf "%s %s %.1f %.1f\n", row, kind, n / seconds, ticks / hz * 1e6 / n }' $ios
}

trap disk_finish EXIT
modprobe -a ublk_drv loop fuse nbd 2>/dev/null || true
ulimit -l unlimited
lio_init
lio_target $iqn "$(lio_ram bench 256)"
lio_depth $iqn 128
if [ $transport = iser ]; then rdma_up "$RDMA" && lio_portal $iqn "$portal" iser; else lio_portal $iqn "$portal"; fi
for kind; do disk_up "$kind"; done
for _ in $(seq "$rounds"); do
	while read -r row rw bs depth; do
		if [ -n "$row" ] && [[ $row =~ ${ROWS:-} ]]; then for kind; do measure "$row" "$kind" "$rw" "$bs" "$depth"; done; fi
	done <<<"$rows"
done
if [ -n "${PROFILE:-}" ]; then . "$PROFILE"; fi # commands that look closer
for kind in "${!daemons[@]}"; do
	DAEMON=${daemons[$kind]}
	daemon_stop
done
oi_logout >/dev/null 2>&1 || true
lio_clear
