#!/usr/bin/env bash
# bench.sh runs in the guest: a null logical unit of LIO behind iSER on the RDMA
# device and behind TCP, the kernel's own disks of it, and the benchmark between
# them all.
#   bench.sh BENCH-ARGUMENT...
set -euo pipefail
. "$VM_GUEST/lib.sh"
target=iqn.2026-01.example:null
modprobe -a sd_mod ext4 2>/dev/null || true
ulimit -l unlimited
rdma_up "$RDMA"
lio_init
disk=$(lio_null null 1024)
lio_target $target "$disk"
lio_portal $target "$RD_ADDR:3260" iser
portal=127.0.0.1:3261
lio_portal $target $portal
oi_start iqn.2026-01.example:kernel

# kernel_disk PORTAL TRANSPORT prints the kernel's disk, set up to do what it is asked for.
kernel_disk() {
	local block queue
	block=$(oi_login $target "$1" "$2" | head -1)
	[ -b "$block" ] || return
	queue=/sys/block/${block##*/}/queue
	echo none >"$queue/scheduler" 2>/dev/null || true
	echo 1024 >"$queue/max_sectors_kb" 2>/dev/null || true
	echo "$block"
}
block=$(kernel_disk "$RD_ADDR:3260" iser)
tcp_block=$(kernel_disk $portal tcp)
"$VM_TESTS/bench" rdma -address "$RD_ADDR" -device "${RDMA}_rd0" -disk "$block" -portal $portal -tcp-disk "$tcp_block" \
	-bin "$VM_BIN" "$@"
oi_logout >/dev/null
lio_clear
