#!/usr/bin/env bash
# What a host lacks is said, with what to do about it: no device, no nodes, no
# library, no permission to lock memory; and which of two devices is taken.
# runs: 6.12/rxe
# timeout: 300
# quick: 6.12/rxe
set -euo pipefail
. "$VM_GUEST/lib.sh"
target=iqn.2026-11.example:lio
run=/tmp/missing-run
daemon=

ctl() { "$VM_BIN/iscsictl" --socket $run/control.sock "$@"; }

# start [COMMAND...] starts iscsid, by a command where there is one.
start() {
	stop
	rm -rf $run && mkdir -p $run
	"$@" "$VM_BIN/iscsid" -d -P $run/pid --run $run -o kern.iser.debug=3 -o device=socket >$run/log 2>&1 &
	daemon=$!
	wait_for 30 ctl -L
}

stop() {
	if [ -n "$daemon" ]; then kill "$daemon" && wait "$daemon" || true; fi
	daemon=
}

finish() {
	status=$?
	[ $status -eq 0 ] || tail -n 40 $run/log
	stop
	if [ -d /tmp/infiniband ]; then mv /tmp/infiniband/* /dev/infiniband/ || true; fi
	ip link del rd1 2>/dev/null || true
	lio_clear
	exit $status
}
trap finish EXIT

# entry NAME LINE... writes a configuration with one target.
entry() {
	{
		echo "$1 { TargetName = $target"
		echo "TargetAddress = $RD_ADDR:3260"
		echo "Protocol = iSER"
		printf '%s\n' "${@:2}" "}"
	} >/tmp/missing.conf
	chmod 600 /tmp/missing.conf
}

# says TEXT...: what was printed last has each of the texts.
says() {
	local text
	for text; do
		grep -qF -- "$text" /tmp/missing.out || { cat /tmp/missing.out && fail "it does not say: $text"; }
	done
}

# refused: the entry is refused when it is added.
refused() {
	if ctl -A -a -c /tmp/missing.conf >/tmp/missing.out 2>&1; then fail "Offload = verbs was accepted"; fi
}

rd_net
rdma_down
modprobe -a rdma_ucm ib_uverbs
entry pinned "Offload = verbs"

echo "== no device"
start
refused
says "no RDMA device" "modprobe rdma_rxe" "rdma link add"

rdma_up "$RDMA"
mkdir -p /tmp/infiniband
echo "== no rdma_cm"
mv /dev/infiniband/rdma_cm /tmp/infiniband/
refused
says "there is no /dev/infiniband/rdma_cm" "modprobe rdma_ucm"
# Without Offload, software is tried, and the reason for that is not lost.
entry free
ctl -A -a -c /tmp/missing.conf
wait_for 30 bash -c "$VM_BIN/iscsictl --socket $run/control.sock -L -v >/tmp/missing.out && grep -q 'Last failure: .*tried' /tmp/missing.out"
says "RDMA device ${RDMA}_rd0 is not used" "there is no /dev/infiniband/rdma_cm"
ctl -R -a
entry pinned "Offload = verbs"
echo "== no uverbs"
mv /tmp/infiniband/rdma_cm /dev/infiniband/
mv /dev/infiniband/uverbs* /tmp/infiniband/
refused
says "there is no /dev/infiniband/uverbs0" "modprobe ib_uverbs"
mv /tmp/infiniband/uverbs* /dev/infiniband/

echo "== no library"
library=$(ldconfig -p | awk '/librdmacm.so.1 / && !n++ { print $NF }') # to the end, or ldconfig fails
[ -n "$library" ] || library=$(find /usr/lib -name librdmacm.so.1 -print -quit)
: >/tmp/empty
start unshare -m bash -c 'mount --bind /tmp/empty "$1" && shift && exec "$@"' - "$(realpath "$library")"
refused
says "the RDMA libraries cannot be used" "librdmacm1"

lio_init
lio_target $target "$(lio_ram missing 16)"
lio_portal $target "$RD_ADDR:3260" iser

echo "== too little memory may be locked"
start setpriv --bounding-set -ipc_lock,-sys_resource --inh-caps -ipc_lock,-sys_resource \
	bash -c 'ulimit -l 64 && exec "$@"' -
ctl -A -a -c /tmp/missing.conf
wait_for 60 bash -c "$VM_BIN/iscsictl --socket $run/control.sock -L -v >/tmp/missing.out && grep -q 'Last failure: .*locked' /tmp/missing.out"
says "at most 64 KiB can be locked" "KiB are needed for each session" "LimitMEMLOCK="

echo "== all is there"
start
ctl -A -a -c /tmp/missing.conf -w 60
ctl -L -v >/tmp/missing.out
says "RDMA provider:" "verbs" "RDMA device:" "${RDMA}_rd0" "RDMA GID:" "Queue depth:" "RDMA Read depth:" "Remote invalidate:"
ctl -R -a

echo "== InitiatorAddress chooses the device"
ip link add rd1 type dummy && ip link set rd1 mtu 9000 up && ip addr add 10.98.0.1/24 dev rd1
rdma link add "${RDMA}_rd1" type "$RDMA" netdev rd1
entry second "InitiatorAddress = 10.98.0.1"
ctl -A -a -c /tmp/missing.conf
wait_for 30 grep "RDMA device ${RDMA}_rd1" $run/log
