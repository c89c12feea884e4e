#!/usr/bin/env bash
# Makes .venv: the Python environment of make demo, test, lint and bench.
#
#   internal/tools/setup.sh            make it, or do nothing if it is up to date
#
# Environment: PYTHON (interpreter to use; default: python3, else the newest of
# python3.10 and later in PATH), TORCH_INDEX_URL (where to take torch from, for
# example PyTorch's index of CPU wheels), and all of pip's own PIP_* variables.
#
# A torch >= 2.1 that the chosen Python can import is used as it is. The stamp
# holds a hash of this script and of the requirement files, so a second call
# costs milliseconds and a changed pin is installed by the next call.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
requirements=$root/python/requirements
venv=$root/.venv
stamp=$venv/stoker-setup.stamp
unset PYTHONHOME PYTHONPATH PIP_TARGET PIP_PREFIX
export PYTHONNOUSERSITE=1 PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

say() { printf 'setup: %s\n' "$*"; }
die() { # what, remedy
	printf 'setup: error: %s\n       remedy: %s\n' "$1" "$2" >&2
	exit 1
}

# suits INTERPRETER: is it CPython >= 3.10 for 64-bit Linux?
suits() {
	"$1" -c 'import sys; sys.exit(not (sys.version_info >= (3, 10) and sys.maxsize > 2**32 and sys.platform == "linux"))' 2>/dev/null
}

choose_python() {
	local candidate
	if [ -n "${PYTHON:-}" ]; then
		command -v "$PYTHON" >/dev/null || die "PYTHON=$PYTHON is not a command" "name a Python 3.10 or newer, or leave PYTHON unset"
		suits "$PYTHON" || die "PYTHON=$PYTHON is not a 64-bit Python 3.10 or newer" "name another one, or leave PYTHON unset"
		python=$PYTHON
		return
	fi
	for candidate in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
		if command -v "$candidate" >/dev/null && suits "$candidate"; then
			python=$candidate
			return
		fi
	done
	die "no Python 3.10 or newer in PATH" "install one (Debian, Ubuntu: apt install python3 python3-venv; Fedora: dnf install python3), or name it: make setup PYTHON=/path/to/python3"
}

# The stamp: a hash of what was asked for, where .venv lies (it cannot be moved),
# and the choices of TORCH_INDEX_URL and PYTHON, which hold until others are made.
wanted_stamp() {
	cat "$0" "$requirements"/*.txt | sha256sum | cut -d' ' -f1
	printf '%s\n' "$venv" "${TORCH_INDEX_URL:-}" "${PYTHON:-}"
}

stamped() { # line
	sed -n "$1p" "$stamp" 2>/dev/null || true
}

# leave_venv: where .venv itself is activated, take the Python that it was made from.
leave_venv() {
	local base
	base=$("$python" -c 'import sys; print(sys._base_executable if sys.prefix == sys.argv[1] else "")' "$venv")
	python=${base:-$python}
}

# up_to_date: the stamp says so, the interpreter still runs, and no other choice
# was made.
up_to_date() {
	[ "$(wanted_stamp)" = "$(cat "$stamp" 2>/dev/null)" ] && "$venv/bin/python" -c '' 2>/dev/null
}

# base_of INTERPRETER: which installed Python it belongs to. It asks the
# interpreter, because a name in PATH may be a wrapper script.
base_of() {
	"$1" -c 'import os, sys; print(sys.version_info[:3], os.path.realpath(sys.base_prefix))' 2>/dev/null
}

# borrow_torch prints "version" and the site folders of a usable torch, if any.
borrow_torch() {
	PYTHONNOUSERSITE='' "$python" - <<'EOF' 2>/dev/null || true
import sys

import torch

version = torch.__version__
if tuple(int(part) for part in version.split("+")[0].split(".")[:2]) >= (2, 1):
    torch.ones(2).sum().item()
    print(version)
    for folder in sys.path:
        if folder.endswith(("site-packages", "dist-packages")):
            print(folder)
EOF
}

make_venv() {
	"$python" -c 'import venv, ensurepip' 2>/dev/null ||
		die "$("$python" --version) ($python) has no venv or ensurepip module" "Debian, Ubuntu: apt install python3-venv; or name another Python: make setup PYTHON=..."
	if [ -x "$venv/bin/python" ] && [ "$(base_of "$venv/bin/python")" = "$(base_of "$python")" ] &&
		[ "$(stamped 2)" = "$venv" ] && [ "$(stamped 3)" = "${TORCH_INDEX_URL:-}" ]; then
		say "updating $venv"
	else
		say "making $venv with $("$python" --version) ($(command -v "$python"))"
		rm -rf "$venv"
		"$python" -m venv "$venv" || die "python -m venv $venv did not work (see above)" "Debian, Ubuntu: apt install python3-venv; else check free disk space and PYTHON=$python"
	fi
	# Site folders borrowed by an earlier run must not satisfy pip now.
	rm -f "$stamp" "$venv"/lib/python3*/site-packages/stoker-*.pth
}

pip_install() {
	"$venv/bin/python" -m pip install "$@" ||
		die "pip could not install: $*" "check the network and pip's settings (PIP_INDEX_URL, PIP_CERT, proxies), then run make setup again: it goes on where it stopped"
}

install_torch() {
	if [ -n "${TORCH_INDEX_URL:-}" ]; then
		say "installing torch from TORCH_INDEX_URL"
		pip_install --no-deps --index-url "$TORCH_INDEX_URL" -r "$requirements/torch.txt"
	else
		say "installing torch; on x86-64 that is a download of about 2.6 GB, once"
	fi
	pip_install -r "$requirements/torch.txt" -c "$requirements/constraints.txt"
}

# install_rest BORROWED_TORCH_VERSION: the numbers of numpy go with torch's: those
# built before numpy 2 came out (torch < 2.3) cannot read its arrays.
install_rest() {
	local scratch numpy='s/^$//'
	case "$1" in 2.1.* | 2.2.*) numpy='s/^numpy==.*/numpy==1.26.4/' ;; esac
	scratch=$(mktemp -d)
	sed "$numpy" "$requirements/dev.txt" >"$scratch/dev.txt"
	sed "$numpy" "$requirements/constraints.txt" >"$scratch/constraints.txt"
	say "installing numpy, pytest, hypothesis, ruff, mypy, torchdata, lightning, webdataset, schemathesis"
	pip_install -r "$scratch/dev.txt" -c "$scratch/constraints.txt"
	pip_install --no-deps -r "$requirements/torchdata.txt"
	rm -rf "$scratch"
}

# verify: what the tests lean on works here: a step of training, both loaders.
verify() {
	"$venv/bin/python" -W ignore - <<'EOF' || die "the environment in .venv does not work (see above)" "rm -rf .venv, then make setup; if a torch of your own was used, try another PYTHON=..."
import platform

import numpy
import torch
from torchdata.stateful_dataloader import StatefulDataLoader

model = torch.nn.Linear(4, 1)
optimizer = torch.optim.AdamW(model.parameters())
model(torch.from_numpy(numpy.ones((2, 4), numpy.float32))).sum().backward()
optimizer.step()
assert len(list(StatefulDataLoader([1, 2, 3], batch_size=None))) == 3
print(f"setup: ready: Python {platform.python_version()}, numpy {numpy.__version__}, torch {torch.__version__} ({torch.__file__})")
EOF
}

main() {
	local borrowed site
	exec 9>"$root/.venv.lock"
	flock -n 9 || { say "waiting for another make setup"; flock 9; }
	TORCH_INDEX_URL=${TORCH_INDEX_URL:-$(stamped 3)}
	PYTHON=${PYTHON:-$(stamped 4)}
	if up_to_date; then
		return
	fi
	choose_python
	leave_venv
	say "looking for a torch >= 2.1 in $(command -v "$python")"
	borrowed=$(borrow_torch)
	make_venv
	site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
	if [ -n "$borrowed" ]; then
		say "using your own torch $(head -n1 <<<"$borrowed")"
	else
		install_torch
	fi
	install_rest "$(head -n1 <<<"$borrowed")"
	echo "$root/python" >"$site/stoker-python.pth"
	# After pip, and sorted last: what is pinned here is found before what is there.
	[ -z "$borrowed" ] || tail -n+2 <<<"$borrowed" >"$site/stoker-torch.pth"
	verify
	wanted_stamp >"$stamp"
}

main
