#!/usr/bin/env bash
# make lint: every linter runs, also after one has complained; it fails if any did.
# Needs go in PATH and .venv (make setup).
set -uo pipefail
export GOFLAGS=-pgo=off # what is looked at does not depend on it, and takes half the time
cd "$(dirname "$0")/../.."

go_folders=(cmd loader cufile backend prefetch shm bench internal)
python_folders=(python bench internal/tools docs/examples loader/dataset/tar/testdata loader/order/testdata)
bin=$PWD/.venv/bin
complained=()

check() { # name, command ...
	local name=$1
	shift
	printf '==== %s ====\n' "$name"
	"$@" || complained+=("$name")
}

check_gofmt() {
	local folder unformatted='' found
	for folder in "${go_folders[@]}"; do
		[ -d "$folder" ] || continue
		found=$(gofmt -l "$folder") || return 1
		unformatted+=${found:+$found$'\n'}
	done
	[ -z "$unformatted" ] || { printf '%sremedy: gofmt -w the files above\n' "$unformatted"; return 1; }
}

# mypy takes modules of one name once; the demo and the tools are programs of their own.
check_mypy() {
	local status=0
	cd python
	"$bin/mypy" --strict || status=1
	"$bin/mypy" --strict demo || status=1
	"$bin/mypy" --strict ../internal/tools || status=1
	"$bin/mypy" --strict ../docs/examples || status=1
	"$bin/mypy" --strict ../bench/gpucheck || status=1
	cd ..
	return $status
}

check_scripts() {
	local script status=0
	for script in internal/tools/*.sh bench/gpucheck/*.sh .ci/run; do
		bash -n "$script" || status=1
	done
	return $status
}

check gofmt check_gofmt
check 'go vet' go vet ./...
check staticcheck go tool staticcheck ./...
check 'ruff check' "$bin/ruff" check --config python/pyproject.toml "${python_folders[@]}"
check 'ruff format' "$bin/ruff" format --check --config python/pyproject.toml "${python_folders[@]}"
check 'mypy --strict' check_mypy
check 'bash -n' check_scripts

if [ "${#complained[@]}" -gt 0 ]; then
	printf '\nlint: complaints from: %s\n' "${complained[*]}" >&2
	exit 1
fi
printf '\nlint: clean\n'
