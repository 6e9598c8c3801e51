#!/usr/bin/env bash
# Runs every fuzz target of the tree for FUZZTIME, one after another, and says how
# many inputs each has been given. FUZZ, a regular expression of DIR:TARGET, is for
# some of them; FUZZFLAGS are further flags of go test, such as -parallel=1.
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go} time=${FUZZTIME:-10s} n=0 total=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
while IFS=: read -r file target; do
	dir=$(dirname "$file")
	if ! [[ $dir:$target =~ ${FUZZ:-.} ]]; then continue; fi
	printf '== %s %s\n' "$dir" "$target"
	# What is interesting is not made smaller for long: that is time without new inputs.
	# A worker that is at work when the time is over can be taken for one that has
	# failed: where nothing is written down, nothing was found.
	# shellcheck disable=SC2086 # flags are words
	"$go" test -run '^$' -fuzzminimizetime 10x -fuzz "^$target\$" -fuzztime "$time" ${FUZZFLAGS:-} "$dir" 2>&1 | tee "$log" ||
		{ grep -q '^ *context deadline exceeded$' "$log" && ! grep -q 'Failing input written' "$log"; }
	executions=$(sed -n 's/.*execs: \([0-9]*\).*/\1/p' "$log" | tail -1)
	total=$((total + ${executions:-0}))
	n=$((n + 1))
done < <(grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sed 's/func //' | sort)
if [ "$n" -eq 0 ]; then
	echo "fuzz: no fuzz target found" >&2
	exit 1
fi
echo "fuzz: $n targets, $time each, $total executions: no failure"
