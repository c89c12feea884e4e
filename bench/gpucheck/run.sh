#!/usr/bin/env bash
# gpu-check: try Stoker's ground floor on this machine's GPU and write gpu-check.json.
# Needs Python with torch and numpy; no Go, no compiler. Without a GPU, or with
# GPU_CHECK_STUB=1, everything runs on Stoker's stand-ins, and no speed is written.
# GPU_CHECK_STUB=0 makes it an error that the GPU's driver does not answer.
#
#   ./run.sh [--dir DIR] [--out FILE] [--seconds 455]
#
# PYTHON names the interpreter. Without --dir, where the temporary folder's file
# system is none that GPUDirect Storage takes (XFS, or ext4 that shows data=ordered)
# and we are root, an ext4 image is mounted for the files.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
image='' loop='' mounted='' check=''

finish() {
	[ -z "$check" ] || { kill "$check" && wait "$check"; } 2>/dev/null || true
	[ -z "$mounted" ] || { umount "$mounted" || umount -l "$mounted"; } 2>/dev/null || true
	[ -z "$loop" ] || losetup -d "$loop" 2>/dev/null || true
	[ -z "$mounted" ] || rmdir "$mounted" || true
	[ -z "$image" ] || rm -f "$image"
}
trap finish EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

"$python" -c 'import numpy, torch' || {
	printf 'gpu-check: error: %s has no numpy and torch\n           remedy: PYTHON=/path/to/python %s\n' "$python" "$0" >&2
	exit 1
}

chmod +x "$here"/{exporter,gpucheck,stoker} 2>/dev/null || true # a copy may have lost that

use_stub() {
	export STOKER_CUDA_LIB=$here/stub/libcuda.so.1 STOKER_CUFILE_LIB=$here/stub/libcufile.so.0
	export STOKER_STUB_QUIET=1 STOKER_STUB_ROUTE=${STOKER_STUB_ROUTE:-none}
	printf 'gpu-check: STUB: %s; nothing here says anything about a GPU\n' "$1"
}

# Whether there is a GPU; sets why where there is none.
have_driver() {
	why=$(PYTHONPATH=$here/python "$python" -c 'from stoker._cudriver import CudaDriver; assert CudaDriver().devices(), "it sees no GPU"' 2>&1) && return
	why=$(grep -m1 -E '^[A-Za-z_.]*(Error|Exception)' <<<"$why" || tail -1 <<<"$why")
	return 1
}

# A file system for the files: sets arguments.
mount_image() {
	local folder=${TMPDIR:-/tmp} free mib
	PYTHONPATH=$here "$python" -c 'import machine, pathlib, sys; sys.exit(not machine.direct_ready(pathlib.Path(sys.argv[1])))' "$folder" && return
	[ "$(id -u)" = 0 ] && command -v mkfs.ext4 losetup >/dev/null || {
		printf 'gpu-check: an ext4 image needs root, mkfs.ext4 and losetup; files lie in %s\n' "$folder"
		return 0
	}
	free=$(df --output=avail -BM "$folder" | tail -1)
	free=${free//[!0-9]/}
	mib=$((free / 2 < 16384 ? free / 2 : 16384))
	image=$(mktemp "$folder/gpu-check-XXXXXX.img")
	if truncate -s "${mib}M" "$image" && mkfs.ext4 -q -F "$image" && loop=$(losetup --find --show "$image"); then
		losetup --direct-io=on "$loop" || true # else what is cold for the file system is warm below it
		mounted=$(mktemp -d "$folder/gpu-check-XXXXXX")
		if mount -o data=ordered "$loop" "$mounted"; then
			arguments+=(--dir "$mounted")
			return
		fi
		rmdir "$mounted" && mounted=''
	fi
	printf 'gpu-check: no ext4 image could be mounted; files lie in %s\n' "$folder"
}

arguments=("$@") why=''
if [ "${GPU_CHECK_STUB:-}" = 1 ]; then
	use_stub 'GPU_CHECK_STUB=1'
elif have_driver; then
	case " $* " in *' --dir '*) ;; *) mount_image ;; esac
elif [ "${GPU_CHECK_STUB:-}" = 0 ]; then
	printf 'gpu-check: error: the driver of the GPU does not answer: %s\n' "$why" >&2
	exit 1
else
	use_stub "there is no GPU: $why"
fi
"$python" "$here/check.py" "${arguments[@]}" &
check=$!
status=0
wait "$check" || status=$?
check=''
exit $status
