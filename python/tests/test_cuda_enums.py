"""The numbers of ``cufile/abi.h`` beside those of cuda-bindings, which NVIDIA generates from its own headers.

The tests of ``cufile`` compare with the headers themselves, of one version. This
needs no compiler, and covers a newer version.
"""

from __future__ import annotations

import ctypes
import re
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY
from cuda.bindings import cufile, driver

from stoker import _cuda, _cudriver

ABI = (REPOSITORY / "cufile" / "abi.h").read_text()
OURS = {name: int(number, 0) for name, number in re.findall(r"^\s*STOKER_(\w+) = (\w+),$", ABI, re.MULTILINE)}
STORAGE_PREFIXES = {
    "OpError": "CU_FILE_",
    "DriverStatusFlags": "CU_FILE_",
    "DriverControlFlags": "CU_FILE_",
    "FeatureFlags": "CU_FILE_",
    "P2PFlags": "CUFILE_",
    "FileHandleType": "CU_FILE_HANDLE_TYPE_",
    "SizeTConfigParameter": "CUFILE_PARAM_",
    "BoolConfigParameter": "CUFILE_PARAM_",
    "StringConfigParameter": "CUFILE_PARAM_",
}
LENGTHS = {"CUFILE_GPU_UUID_LEN", "CU_IPC_HANDLE_SIZE"}


def theirs() -> dict[str, set[int]]:
    """Each of NVIDIA's names with its numbers."""
    found: dict[str, set[int]] = defaultdict(set)
    for name, value in vars(driver).items():
        if isinstance(value, int):
            found[name].add(value)
        for member, number in getattr(value, "__members__", {}).items():
            found[member].add(int(number))
    for family, prefix in STORAGE_PREFIXES.items():
        for member, number in getattr(cufile, family).__members__.items():
            found[prefix + member].add(int(number))
    return found


THEIRS = theirs()


def test_the_header_was_understood() -> None:
    assert len(OURS) > 100
    assert OURS["CU_FILE_IO_ERROR"] == 5044
    assert OURS["CUDA_ERROR_INVALID_CONTEXT"] == 201


@pytest.mark.parametrize("name", sorted(OURS.keys() - LENGTHS))
def test_a_number_is_nvidias(name: str) -> None:
    assert THEIRS[name] == {OURS[name]}


def test_no_code_of_the_storage_library_is_missing() -> None:
    beyond = {"SUCCESS", "IO_MAX_ERROR"}  # the latter moves with every release
    assert {f"CU_FILE_{name}" for name in cufile.OpError.__members__.keys() - beyond} <= OURS.keys()


def test_statistics_lie_where_the_header_says() -> None:
    """Of the newest layout; the older one is compared with the header that is installed."""
    words = int(re.findall(r"STATS1_VECTOR_WORDS = (\d+)", ABI)[0])
    assert np.dtype(cufile.stats_level1_dtype).itemsize == 512 + 8 * words
    level3 = np.dtype(cufile.stats_level3_dtype)
    assert field(level3, "num_gpus") == 1024 + 8 * words
    assert field(level3, "per_gpu_stats") == 1032 + 8 * words
    gpu = np.dtype(cufile.per_gpu_stats_dtype)
    assert gpu.itemsize == 248
    assert gpu["uuid"].shape == (OURS["CUFILE_GPU_UUID_LEN"],)
    counters = ["n_total_reads", "n_p2p_reads", "n_nvfs_reads", "n_posix_reads", "n_unaligned_reads", "n_reads_err"]
    assert [field(gpu, name) for name in counters] == [48, 56, 64, 72, 80, 112]


def field(layout: np.dtype[Any], name: str) -> int:
    assert layout.fields is not None
    return int(layout.fields[name][1])


@pytest.mark.parametrize(
    ("ours", "name"),
    [
        (_cuda._POSIX_DESCRIPTOR, "CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR"),
        (_cuda._ON_DEVICE, "CU_MEM_LOCATION_TYPE_DEVICE"),
        (_cuda._READ, "CU_MEM_ACCESS_FLAGS_PROT_READ"),
        (_cuda._READ_WRITE, "CU_MEM_ACCESS_FLAGS_PROT_READWRITE"),
        (_cuda._LAZY_PEER_ACCESS, "CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS"),
        (_cudriver.DEINITIALIZED, "CUDA_ERROR_DEINITIALIZED"),
        (_cudriver.OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"),
        (_cudriver.NOT_PERMITTED, "CUDA_ERROR_NOT_PERMITTED"),
        (_cudriver.NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED"),
        (_cudriver._NO_DEVICE, "CUDA_ERROR_NO_DEVICE"),
        (ctypes.sizeof(_cudriver.LegacyHandle), "CU_IPC_HANDLE_SIZE"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_numbers_in_python_are_nvidias(ours: int, name: str) -> None:
    assert THEIRS[name] == {ours}


def test_both_languages_call_the_same_symbols() -> None:
    """What Python calls and Go does not is listed here, so that an old name without _v2 is seen."""
    symbols = set(re.findall(r'X\(\w+, "(\w+)"', ABI))
    assert _cudriver._FUNCTIONS.keys() - symbols == {
        "cuCtxPopCurrent_v2",
        "cuCtxPushCurrent_v2",
        "cuCtxSynchronize",
        "cuGetErrorName",
        "cuGetErrorString",
        "cuMemcpyDtoH_v2",
    }
