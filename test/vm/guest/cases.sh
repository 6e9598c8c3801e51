#!/usr/bin/env bash
# cases.sh runs in the guest: one case after the other, each in a process group
# of its own with a time limit, and tells how each went.
#   cases.sh LOGS CASE...
# The exit status is not 0 if one has failed. CASE_TIMEOUT is the limit in
# seconds of a case that does not name its own.
set -uo pipefail
export VM_LOGS=$1
logs=$1
shift
total=0 failed=0 skipped=0

# Programs start many times faster from memory than from the host's file system.
if [ -n "${VM_BIN:-}" ]; then
	cp -r "$VM_BIN" /run/vm-bin
	export VM_BIN=/run/vm-bin
fi

# setting prints what a case's comment says: "# NAME: VALUE".
setting() { sed -n "s/^# $1: *//p" "$2" | head -1; }

# alarms prints what the kernel has complained of since line $1 of its log.
alarms() {
	dmesg | tail -n +"$(($1 + 1))" |
		grep -E 'BUG:|Oops|WARNING:|general protection|blocked for more than|KASAN|Call Trace' | head -5
}

for case in "$@"; do
	name=$(basename "$case" .sh)
	limit=$(setting timeout "$case")
	limit=${limit:-${CASE_TIMEOUT:-300}}
	begin=$SECONDS lines=$(dmesg | wc -l)
	total=$((total + 1))
	timeout -s TERM -k 60 "$limit" bash "$case" >"$logs/$name.log" 2>&1
	status=$?
	took=$((SECONDS - begin))
	case $status in
	0) echo "ok $name ($took s)" ;;
	77)
		skipped=$((skipped + 1))
		echo "skip $name: $(sed -n 's/^SKIP: //p' "$logs/$name.log" | tail -1)"
		;;
	*)
		failed=$((failed + 1))
		if [ $status -ge 124 ] && [ $took -ge "$limit" ]; then echo "the limit of $limit s was reached" >>"$logs/$name.log"; fi
		echo "FAIL $name ($took s, status $status); the end of its output:"
		tail -n 40 "$logs/$name.log" | sed 's/^/     /'
		;;
	esac
	said=$(alarms "$lines")
	if [ -n "$said" ]; then
		echo "     the kernel says:"
		sed 's/^/     /' <<<"$said"
	fi
done
echo "$total cases: $((total - failed - skipped)) ok, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
