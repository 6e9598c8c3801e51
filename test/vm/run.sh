#!/usr/bin/env bash
# run.sh is what `make check-vm` runs: it builds the programs and the tests with
# RDMA, boots a virtual machine for each run, and runs the cases there.
#
#   test/vm/run.sh [NAME...]     only the cases with one of these in their names
#   test/vm/run.sh --bench [ARGUMENT...]
#                                no cases: the benchmark (make bench-vm), with
#                                arguments of "go run ./test/bench rdma"
#
#   VM_RUNS       the runs, each a kernel and a kind of RDMA
#                 ("6.12/rxe 6.12/siw 6.1/rxe")
#   VM_QUICK      if it is set, only the cases that are quick, on the runs that
#                 they name for it: what make check does
#   VM_OPTIONAL   if it is set, a host where this cannot be done is no failure
#   KILLS         how often the cases that kill the daemon do so (10)
#   BLKTESTS      the path of a built checkout of blktests, for the case with these
#   CAMPAIGN_FAULTS, CAMPAIGN_SEED  of the campaigns
#   LOGINS        how many logins and logouts the case about them does (200)
#   MATRIX        "full": all that a disk must do, on each kind of disk
#   VM_CACHE      see prep.sh
#   VM_ACCEL      see vm.sh
#
# What was built, and the output of all, stay in bin/vm.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH=$PATH:/usr/sbin:/sbin
GO=${GO:-go}
which=runs
if [ -n "${VM_QUICK:-}" ]; then which=quick VM_RUNS=${VM_RUNS:-6.12/rxe 6.12/siw}; fi
runs=${VM_RUNS:-6.12/rxe 6.12/siw 6.1/rxe}
out=$PWD/bin/vm
tags=rdma,urfave_cli_no_docs,urfave_cli_no_suggest

# One line for each thing that the host must have, and Debian's package of it.
needs='
qemu-system-x86_64                 qemu-system-x86
busybox                            busybox-static
cpio                               cpio
xz                                 xz-utils
gcc                                gcc
make                               make
/usr/include/stdio.h               libc6-dev
/usr/include/infiniband/verbs.h    libibverbs-dev
/usr/include/rdma/rdma_cma.h       librdmacm-dev
'

missing() {
	while read -r thing package; do
		case $thing in
		'') ;;
		/*) [ -e "$thing" ] || echo "$package" ;;
		*) command -v "$thing" >/dev/null || echo "$package" ;;
		esac
	done <<<"$needs"
}

# cannot ends the run where there is no virtual machine to be had.
cannot() {
	printf '\nSKIP: the tests in a virtual machine did NOT run: %s\n\n' "$*" >&2
	[ -n "${VM_OPTIONAL:-}" ] && exit 0
	echo "(VM_OPTIONAL=1 makes that no failure)" >&2
	exit 1
}

[ "$(uname -sm)" = "Linux x86_64" ] || cannot "they need Linux on x86_64"
[ "$(id -u)" -eq 0 ] || cannot "they need root, whose files the guest reads"
command -v apt-get >/dev/null || cannot "there is no apt-get to fetch the guest's kernel with"
mapfile -t packages < <(missing | sort -u)
if [ ${#packages[@]} -gt 0 ]; then
	echo "vm: installing ${packages[*]}"
	apt-get -qq update >/dev/null || true
	DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 install --no-install-recommends "${packages[@]}" \
		</dev/null >/dev/null || cannot "apt-get could not install ${packages[*]}"
fi

mkdir -p "$out/bin" "$out/next" "$out/tests" "$out/logs"
exec 8>"$out/.lock"
flock -n 8 || { echo "vm: waiting for another run to end" && flock 8; }
echo "vm: building with RDMA"
CGO_ENABLED=1 $GO build -buildvcs=false -tags "$tags" -o "$out/bin/" ./cmd/...
# Another build, for upgrades.
CGO_ENABLED=1 $GO build -buildvcs=false -tags "$tags" -ldflags '-X main.version=next-build' \
	-o "$out/next/" ./cmd/iscsid ./cmd/iscsictl
for package in transport/rdma/verbs transport/rdma/iwarp device/ublk device/nbd test/zerocopy test/e2e; do
	CGO_ENABLED=1 $GO test -c -tags "$tags" -o "$out/tests/${package##*/}.test" "./$package"
done
if readelf -d "$out/bin/iscsid" 2>/dev/null | grep -q 'NEEDED.*\(ibverbs\|rdmacm\)'; then
	echo "vm: iscsid is linked to the RDMA libraries, which it should open at run time" >&2
	exit 1
fi

if [ "${1:-}" = --bench ]; then
	shift
	$GO build -o "$out/tests/bench" ./test/bench
	rm -f "$out/bench.md"
	mkdir -p "$out/logs/bench"
	test/vm/vm.sh --timeout "${VM_TIMEOUT:-3000}" -v --rw "$PWD" --keep "$out/logs/bench" --env RDMA=rxe \
		--env VM_BIN="$out/bin" --env VM_TESTS="$out/tests" -- \
		bash /run/vm/guest/bench.sh -out "$out/bench.md" "$@" 2>&1 | tee "$out/logs/bench/output"
	exec $GO run ./test/bench rdma -insert "$out/bench.md"
fi

# selected prints the cases of a run: those whose "# runs: PATTERN..." fits (or
# "# quick: PATTERN...", where only these are wanted), or
# who have none. Names, if there are any, restrict them further.
selected() {
	local run=$1 case pattern patterns name
	shift
	for case in "$PWD"/test/vm/cases/*.sh; do
		read -ra patterns <<<"$(sed -n "s/^# $which: *//p" "$case" | head -1)"
		if [ $which = quick ] && [ ${#patterns[@]} -eq 0 ]; then continue; fi
		for pattern in "${patterns[@]:-*}"; do
			# shellcheck disable=SC2053 # it is a pattern
			[[ $run == $pattern ]] || continue
			for name in "${@:-}"; do
				if [[ $(basename "$case") == *"$name"* ]]; then echo "$case" && continue 3; fi
			done
		done
	done
}

# What comes from the network is fetched before the first run.
for run in $runs; do
	options=()
	if [ "${run#*/}" = siw ]; then options+=(--siw); fi
	test/vm/prep.sh --kernel "${run%/*}" ${options[@]+"${options[@]}"} >/dev/null ||
		cannot "the kernel or the packages of the guest for $run could not be fetched (or, for siw, built)"
done

# packages makes packages of both builds, with the versions 0.1.0 and 0.2.0.
packages() {
	local deb
	for deb in 0.1.0=bin 0.2.0=next; do
		rm -rf "$out/deb/tree"
		make -s -o build install PREFIX=/usr BIN="$out/${deb#*=}" DESTDIR="$out/deb/tree" >/dev/null
		GO=$GO DEB_MAINTAINER='Nobody <nobody@example.org>' deb/build.sh "${deb%=*}" "$out/deb/tree" "$out/deb" >/dev/null
	done
}

# memory prints how many MiB a case wants its machine to have, where it says so.
memory() { sed -n 's/^# memory: *//p' "$1" | head -1; }

# outside starts a target beside the machine: what is to show that a disk works
# without memory must not compete with its target for it.
outside() {
	rm -f "$out/portal"
	"$out/bin/iscsitarget" --portal 127.0.0.1:0 --ready-file "$out/portal" --target iqn.2026-11.example:outside \
		--lun size=512m,thin,wce --lun size=768m,thin >"$1/target" 2>&1 8>&- &
	target=$!
	for _ in {1..100}; do
		if [ -s "$out/portal" ]; then return; fi
		sleep 0.1
	done
	echo "vm: the target did not start" >&2
	return 1
}

target=
trap 'if [ -n "$target" ]; then kill "$target"; fi' EXIT

# boot runs cases in one machine: boot RUN MEMORY CASE... The tree is shared at its
# own path: it may lie below /tmp, of which the guest has its own.
boot() {
	local run=$1 size=$2 kernel=${1%/*} kind=${1#*/} logs=$out/logs/${1//\//-}${2:+-$2} options=() status=0
	shift 2
	rm -rf "$logs"
	mkdir -p "$logs"
	if [ "$kind" = siw ]; then options+=(--siw); fi
	if [ -n "${BLKTESTS:-}" ]; then options+=(--rw "$BLKTESTS" --env BLKTESTS); fi
	if [ -n "$size" ]; then
		outside "$logs" || return
		options+=(--mem "$size" --net --env VM_TARGET="10.0.2.2:$(cut -d: -f2 "$out/portal")")
	fi
	echo "vm: Linux $kernel with $kind${size:+ and $size MiB of memory}, $# cases"
	test/vm/vm.sh --kernel "$kernel" ${options[@]+"${options[@]}"} --timeout "${VM_TIMEOUT:-3000}" -v \
		--rw "$PWD" --keep "$logs" --env RDMA="$kind" --env VM_BIN="$out/bin" --env VM_NEXT="$out/next" --env VM_DEB="$out/deb" \
		--env VM_TESTS="$out/tests" --env KILLS="${KILLS:-10}" --env LOGINS="${LOGINS:-200}" --env MATRIX="${MATRIX:-}" \
		--env CAMPAIGN_FAULTS="${CAMPAIGN_FAULTS:-}" --env CAMPAIGN_SEED="${CAMPAIGN_SEED:-}" -- \
		bash /run/vm/guest/cases.sh "$logs" "$@" 2>&1 | tee "$logs/output" || status=1
	if [ -n "$target" ]; then kill "$target" && target=; fi
	return $status
}

failed=
for run in $runs; do
	mapfile -t cases < <(selected "$run" "$@")
	if [ ${#cases[@]} -eq 0 ]; then continue; fi
	if [[ "${cases[*]}" == *-package.sh* ]]; then packages; fi
	# One machine for each amount of memory that is asked for.
	declare -A by=()
	for case in "${cases[@]}"; do by[x$(memory "$case")]+="$case"$'\n'; done
	for size in "${!by[@]}"; do
		mapfile -t those <<<"${by[$size]%$'\n'}"
		boot "$run" "${size#x}" "${those[@]}" || failed="$failed $run"
	done
done
if [ -n "$failed" ]; then
	echo "vm: failed:$failed (see $out/logs)" >&2
	exit 1
fi
