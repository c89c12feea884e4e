#!/usr/bin/env bash
# build.sh DIR: everything that gpu-check needs, in one folder that can be copied to
# a machine without a Go toolchain: three programs, the stand-ins, and Python.
# Run from the repository's root. No profile guides the build: the time goes in C and in the kernel.
set -euo pipefail
out=$1
most_mib=64 # of all together

mkdir -p "$out/stub"
go build -pgo=off -trimpath -ldflags '-s -w -extldflags=-Wl,-z,lazy' -o "$out/" ./cufile/internal/exporter ./bench/gpucheck ./cmd/stoker
go run -pgo=off ./cufile/internal/buildstub "$out/stub"
rm -rf "$out"/*.py "$out/python"
mkdir -p "$out/python/stoker"
cp python/stoker/*.py "$out/python/stoker/"
cp bench/gpucheck/*.py bench/gpucheck/run.sh python/tests/exporters.py "$out/"
git describe --always --dirty >"$out/commit" 2>/dev/null || rm -f "$out/commit"

mib=$(du -sm --apparent-size "$out" | cut -f1)
if [ "$mib" -ge "$most_mib" ]; then
	printf 'gpu-check: error: %s holds %d MiB, and must stay below %d\n           remedy: see du -a %s, leave out what grew\n' "$out" "$mib" "$most_mib" "$out" >&2
	exit 1
fi
