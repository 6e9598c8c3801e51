#!/usr/bin/env bash
# bench-disks.sh is what `make bench-disks` runs: it measures, in a virtual
# machine, the disks of iscsid beside the kernel's own initiator on the same LIO
# target, and prints docs/performance.md's tables of them.
#
#   test/vm/bench-disks.sh [--iser] [KIND...]     kinds of devices (ublk nbd), on
#                                                 TCP, or by iSER on rxe
#
#   ROUNDS        how often each disk has its turn with each row (3)
#   SECONDS_EACH  how long one turn takes (3)
#   ROWS          an expression that the rows' names match, like 4k- or write (all)
#   PROFILE       a file below bin/vm with commands that look closer, run in the
#                 guest's script at its end
#   VM_ACCEL      see vm.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$PWD/bin/vm
mkdir -p "$out/bench"
kernel=iscsi_tcp cgo=0
if [ "${1:-}" = --iser ]; then
	shift
	kernel=ib_iser cgo=1
fi
if [ $# -eq 0 ]; then set -- ublk nbd; fi
CGO_ENABLED=$cgo ${GO:-go} build -buildvcs=false -tags rdma,urfave_cli_no_docs,urfave_cli_no_suggest -o "$out/bench/" ./cmd/iscsid ./cmd/iscsictl
test/vm/vm.sh --timeout "${VM_TIMEOUT:-3000}" --rw "$out" --env VM_BIN="$out/bench" --env RDMA=rxe --env ROWS="${ROWS:-}" --env PROFILE="${PROFILE:-}" -- \
	bash /run/vm/guest/bench-disks.sh "${ROUNDS:-3}" "${SECONDS_EACH:-3}" $kernel "$@" 2>"$out/bench/errors" | tee "$out/bench/runs" ||
	{ cat "$out/bench/errors" >&2 && exit 1; }

# table FIELD HEADING prints a field of the runs: medians, and the ratios to the
# kernel's of the same round, with the least and the greatest.
table() {
	printf '\n%s:\n\n| Requests | Outstanding | %s |' "$2" $kernel
	printf ' %s | ratio |' "${@:3}"
	printf '\n|---|--:|--:|'
	for _ in "${@:3}"; do printf -- '--:|--:|'; done
	tr -d '\r' <"$out/bench/runs" | awk -v field="$1" -v kernel=$kernel -v kinds="$kernel ${*:3}" '
		function median(list, n,    i, j, t) {
			for (i = 2; i <= n; i++)
				for (j = i; j > 1 && list[j] < list[j - 1]; j--) { t = list[j]; list[j] = list[j - 1]; list[j - 1] = t }
			return n % 2 ? list[(n + 1) / 2] : (list[n / 2] + list[n / 2 + 1]) / 2
		}
		$1 ~ /^[0-9]+[km]-/ && NF == 4 {
			if (!($1 in rounds)) order[++rows] = $1
			if ($2 == kernel) rounds[$1]++
			value[$1, $2, rounds[$1]] = $field
		}
		END {
			printf "\n"
			split(kinds, kind, " ")
			for (r = 1; r <= rows; r++) {
				n = rounds[order[r]]
				split(order[r], part, "-")
				printf "| %s %s | %s |", part[1], part[2], part[3]
				for (k = 1; k in kind; k++) {
					for (i = 1; i <= n; i++) list[i] = value[order[r], kind[k], i]
					printf " %.0f |", median(list, n)
					if (k == 1) continue
					for (i = 1; i <= n; i++) list[i] = value[order[r], kind[k], i] / value[order[r], kind[1], i]
					m = median(list, n)
					printf " **%.2f** (%.2f–%.2f) |", m, list[1], list[n]
				}
				printf "\n"
			}
		}'
}
table 3 "Requests/s" "$@"
table 4 "CPU of the whole machine, µs/request" "$@"
