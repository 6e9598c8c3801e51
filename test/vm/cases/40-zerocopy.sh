#!/usr/bin/env bash
# By verbs, no payload byte is copied in our process: it has no access to the
# memory of a request while the request is under way, and the data is right.
# runs: 6.12/*
# quick: 6.12/rxe
set -euo pipefail
. "$VM_GUEST/lib.sh"
target=iqn.2026-11.example:lio
rdma_up "$RDMA"
lio_init
lio_target $target "$(lio_ram zerocopy 16)"
lio_portal $target "$RD_ADDR:3260" iser
trap lio_clear EXIT
ulimit -l unlimited
ZEROCOPY_PORTAL=$RD_ADDR:3260 ZEROCOPY_TARGET=$target timeout -s QUIT 280 \
	"$VM_TESTS/zerocopy.test" -test.v -test.count=1 -test.run Verbs
