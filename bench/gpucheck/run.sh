#!/usr/bin/env bash
# gpu-check: try Stoker's ground floor on this machine's GPU and write gpu-check.json.
# Needs Python with torch and numpy; no Go, no compiler. Without a GPU, or with
# GPU_CHECK_STUB=1, everything runs on Stoker's stand-ins, and no speed is written.
#
#   ./run.sh [--dir DIR] [--out FILE] [--seconds 480]
#
# PYTHON names the interpreter. Without --dir, where the temporary folder's file
# system is one that GPUDirect Storage never takes (overlay, tmpfs) and we are root,
# an ext4 image is mounted for the files.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
image='' mounted=''

finish() {
	if [ -n "$mounted" ]; then
		umount "$mounted" && rmdir "$mounted"
	fi
	if [ -n "$image" ]; then
		rm -f "$image"
	fi
}
trap finish EXIT

"$python" -c 'import numpy, torch' || {
	printf 'gpu-check: error: %s has no numpy and torch\n           remedy: PYTHON=/path/to/python %s\n' "$python" "$0" >&2
	exit 1
}

use_stub() {
	export STOKER_CUDA_LIB=$here/stub/libcuda.so.1 STOKER_CUFILE_LIB=$here/stub/libcufile.so.0
	export STOKER_STUB_QUIET=1 STOKER_STUB_ROUTE=${STOKER_STUB_ROUTE:-none}
	printf 'gpu-check: STUB: %s; nothing here says anything about a GPU\n' "$1"
}

have_driver() {
	PYTHONPATH=$here/python "$python" -c 'from stoker._cudriver import CudaDriver; assert CudaDriver().devices()' 2>/dev/null
}

# A file system for the files: sets arguments.
mount_image() {
	local type
	type=$(stat -f -c %T "${TMPDIR:-/tmp}")
	case $type in ext2/ext3 | xfs) return ;; esac
	[ "$(id -u)" = 0 ] && command -v mkfs.ext4 >/dev/null || return 0
	image=$(mktemp "${TMPDIR:-/tmp}/gpu-check-XXXXXX.img") && mounted=$(mktemp -d "${TMPDIR:-/tmp}/gpu-check-XXXXXX")
	truncate -s 8G "$image" && mkfs.ext4 -q -F "$image"
	if mount -o loop,data=ordered "$image" "$mounted" 2>/dev/null; then
		arguments+=(--dir "$mounted")
	else
		printf 'gpu-check: no ext4 image could be mounted; files lie on %s\n' "$type"
		rmdir "$mounted"
		mounted=''
	fi
}

arguments=("$@")
if [ "${GPU_CHECK_STUB:-}" = 1 ]; then
	use_stub 'GPU_CHECK_STUB=1'
elif ! have_driver; then
	use_stub 'there is no GPU'
else
	case " $* " in *' --dir '*) ;; *) mount_image ;; esac
fi
status=0
"$python" "$here/check.py" "${arguments[@]}" || status=$?
exit $status
