#!/usr/bin/env bash
# The conformance suite of transport/rdma on the kernel's RDMA device, by verbs.
# timeout: 600
# quick: 6.12/*
set -euo pipefail
. "$VM_GUEST/lib.sh"
rdma_up "$RDMA"
rdma link show
VERBS_ADDR=$RD_ADDR timeout -s QUIT 570 "$VM_TESTS/verbs.test" -test.v -test.count=1
