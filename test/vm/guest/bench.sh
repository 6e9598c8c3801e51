#!/usr/bin/env bash
# bench.sh runs in the guest: a null logical unit of LIO behind iSER on the RDMA
# device, the kernel's own disk of it, and the benchmark between them all.
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
oi_start iqn.2026-01.example:kernel
block=$(oi_login $target "$RD_ADDR:3260" iser | head -1)
[ -b "$block" ]
echo none >"/sys/block/${block##*/}/queue/scheduler" 2>/dev/null || true
echo 1024 >"/sys/block/${block##*/}/queue/max_sectors_kb" 2>/dev/null || true
"$VM_TESTS/bench" rdma -address "$RD_ADDR" -device "${RDMA}_rd0" -disk "$block" -bin "$VM_BIN" "$@"
oi_logout >/dev/null
lio_clear
