#!/usr/bin/env bash
# Runs every Fuzz* target of the repository in turn: fuzz.sh FUZZTIME
set -euo pipefail
cd "$(dirname "$0")/../.."
fuzztime=${1:?usage: fuzz.sh FUZZTIME, for example 30s}

targets=$(grep -rlE --include='*_test.go' '^func Fuzz' . | xargs -r -n1 dirname | sort -u | while read -r folder; do
	sed -nE "s|^func (Fuzz[A-Za-z0-9_]*)\(.*|$folder \1|p" "$folder"/*_test.go
done)
[ -n "$targets" ] || { echo 'fuzz: error: no fuzz target found' >&2; exit 1; }
total=$(wc -l <<<"$targets")
number=0
while read -r package target; do
	number=$((number + 1))
	printf '\n==== [%d/%d] %s %s, %s ====\n' "$number" "$total" "$package" "$target" "$fuzztime"
	# Making inputs smaller would take all of a short time: 100 tries are enough.
	go test -run '^$' -fuzz "^$target\$" -fuzztime "$fuzztime" -fuzzminimizetime 100x "$package" </dev/null ||
		{ printf 'fuzz: %s %s failed; its input lies in %s/testdata/fuzz/%s: commit it with the repair\n' "$package" "$target" "$package" "$target" >&2; exit 1; }
done <<<"$targets"
printf '\nfuzz: %d targets, none failed\n' "$total"
