"""Foreign bytes handed over by DLPack: whoever takes them keeps their owner, and nobody else does."""

from __future__ import annotations

import ctypes
import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.dlpack import from_dlpack

from stoker._dlpack import CPU, ByteArray, exports

BYTES = bytes(range(256)) * 16


class Owner:
    """Whose life is watched."""


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    gc.collect()
    assert exports() == 0


@pytest.fixture
def memory() -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(BYTES, len(BYTES))


def handed(
    memory: ctypes.Array[ctypes.c_char], kind: int = CPU, count: int = len(BYTES)
) -> tuple[ByteArray, weakref.ref[Owner]]:
    """An array over the memory, and how to see whether its owner lives."""
    owner = Owner()
    return ByteArray(ctypes.addressof(memory), count, (kind, 0), owner), weakref.ref(owner)


@pytest.mark.parametrize("wish", [{"copy": True}, {"dl_device": (2, 0)}, {"dl_device": (CPU, 1)}])
def test_a_wish_that_is_not_met_is_refused(memory: ctypes.Array[ctypes.c_char], wish: dict[str, Any]) -> None:
    array, _ = handed(memory)
    with pytest.raises(BufferError):
        array.__dlpack__(**wish)


@pytest.mark.parametrize(
    "wish", [{}, {"copy": False}, {"copy": None, "max_version": (1, 1)}, {"dl_device": (CPU, 0)}, {"stream": None}]
)
def test_a_wish_that_is_met_gets_the_memory(memory: ctypes.Array[ctypes.c_char], wish: dict[str, Any]) -> None:
    array, owner = handed(memory)
    capsule = array.__dlpack__(**wish)
    del array
    assert from_dlpack(capsule).numpy().tobytes() == BYTES
    assert owner() is None


def test_numpy_takes_it_with_and_without_a_copy(memory: ctypes.Array[ctypes.c_char]) -> None:
    array, _ = handed(memory)
    assert np.from_dlpack(array, copy=False).tobytes() == BYTES
    with pytest.raises(BufferError):
        np.from_dlpack(array, copy=True)


def test_a_tensor_keeps_the_owner_until_its_last_view_is_gone(memory: ctypes.Array[ctypes.c_char]) -> None:
    array, owner = handed(memory)
    tensor = from_dlpack(array)
    del array
    view = tensor[256:].view(torch.int32)
    del tensor
    assert view.numpy().tobytes() == BYTES[256:]
    assert owner() is not None
    del view
    assert owner() is None


def test_one_array_may_be_taken_several_times(memory: ctypes.Array[ctypes.c_char]) -> None:
    array, owner = handed(memory)
    first, second = from_dlpack(array), np.from_dlpack(array)
    del array
    assert exports() == 2
    assert bytes(first.tolist()) == second.tobytes() == BYTES
    del first
    assert owner() is not None
    del second
    assert owner() is None


def test_a_capsule_that_nobody_takes_keeps_nothing(memory: ctypes.Array[ctypes.c_char]) -> None:
    array, owner = handed(memory)
    capsule = array.__dlpack__(stream=None, max_version=(1, 0), dl_device=None, copy=None)
    del array
    assert exports() == 1
    assert owner() is not None
    del capsule
    assert owner() is None


def test_what_a_consumer_refuses_keeps_nothing(memory: ctypes.Array[ctypes.c_char]) -> None:
    array, owner = handed(memory, kind=99)
    with pytest.raises((RuntimeError, BufferError)):
        from_dlpack(array)
    del array
    gc.collect()
    assert owner() is None


def test_the_last_view_may_end_in_another_thread(memory: ctypes.Array[ctypes.c_char]) -> None:
    array, owner = handed(memory)
    kept = [from_dlpack(array)]
    del array
    thread = threading.Thread(target=kept.clear)
    thread.start()
    thread.join()
    assert owner() is None


def test_autograd_and_clones_see_plain_tensors(memory: ctypes.Array[ctypes.c_char]) -> None:
    array, owner = handed(memory)
    tensor = from_dlpack(array)
    weights = torch.ones(len(BYTES), requires_grad=True)
    (gradient,) = torch.autograd.grad((weights * tensor.to(torch.float32)).sum(), weights)
    assert gradient.sum().item() == sum(BYTES)
    copy = tensor.clone()
    del array, tensor, weights, gradient
    gc.collect()
    assert owner() is None
    assert bytes(copy.tolist()) == BYTES
