#!/usr/bin/env bash
# make test: every check of CI, in turn, with a heading each and one closing
# summary. Without a build it stops; other parts run also after one has failed. No
# part skips a test.
set -euo pipefail
cd "$(dirname "$0")/../.."

counts=$(mktemp -d)
trap 'rm -rf "$counts"' EXIT
export STOKER_TEST_COUNTS=$counts
start=$SECONDS

failed=()

part() { # title, make target
	local began=$SECONDS
	printf '\n######## %s\n' "$1"
	if make "$2"; then
		printf '######## done: %s (%d s)\n' "$1" $((SECONDS - began))
	else
		printf '######## FAILED: %s (%d s). To run this part alone: make %s\n' "$1" $((SECONDS - began)) "$2"
		failed+=("$1")
	fi
}

must() {
	part "$@"
	[ "${#failed[@]}" -eq 0 ] || exit 1
}

must 'set-up: .venv' setup
setup_seconds=$((SECONDS - start))
must 'build' build
GOFLAGS=-pgo=off must 'build without cgo' nocgo # that it builds; optimised it takes as long again
part 'linters' lint
part 'Go tests with the race detector' race
part 'random sequences of cufile, without the race detector' sequences
part 'Python tests against the daemon' py
GPU_CHECK_STUB=1 part 'GPU check on the stand-ins' gpu-check

passed=0
printf '\n'
for file in "$counts"/*; do
	[ -f "$file" ] || continue
	read -r count <"$file"
	printf '%-8s %6d passed\n' "$(basename "$file")" "$count"
	passed=$((passed + count))
done
printf 'all parts done in %d s, %d s of it set-up\n' $((SECONDS - start)) "$setup_seconds"
if [ "${#failed[@]}" -gt 0 ]; then
	for title in "${failed[@]}"; do
		printf 'FAILED: %s (see above)\n' "$title"
	done
	exit 1
fi
printf '%d passed, 0 failed\n' "$passed"
