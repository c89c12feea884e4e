"""Slabs of another process: a real exporter, real descriptors; the driver is Stoker's stand-in (STUB).

What passes here says that the calls, their order and every lifetime are right, and
nothing about NVIDIA's driver or about speed.
"""

from __future__ import annotations

import ctypes
import gc
import os
import socket
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from exporters import Exporter, pattern, program, stub_environment
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoker import _cuda, _slab
from stoker._cudriver import CudaDriver
from stoker._dlpack import exports
from stoker.errors import (
    ConflictError,
    ForkedError,
    InvalidError,
    NotFoundError,
    OutOfRangeError,
    ProtocolError,
    UnavailableError,
)

BYTES = 3_000_001  # no multiple of anything
WHOLE = BYTES // 16 * 16
DTYPES = sorted(
    {
        value
        for name, value in vars(torch).items()
        if isinstance(value, torch.dtype) and not name.startswith(("q", "bits", "int", "uint"))
    }
    | {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64},
    key=str,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exporter")


@pytest.fixture(autouse=True)
def _stub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in stub_environment(folder / "state").items():
        monkeypatch.setenv(name, value)


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """After each test: no mapping, allocation or context, no descriptor, no array in a consumer's hands."""
    before = len(os.listdir("/proc/self/fd"))
    yield
    if live() or exports():  # an exception's frames, say
        gc.collect()
    assert live() == 0
    assert exports() == 0
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture(scope="module")
def exporter(folder: Path) -> Iterator[Exporter]:
    with Exporter(folder, "-bytes", str(BYTES), state=folder / "state") as running:
        yield running


def live(kind: str = "") -> int:
    """What the stand-in's books say is open in this process."""
    function = ctypes.CDLL(program("stub/libcuda.so.1")).stoker_stub_live
    function.restype, function.argtypes = ctypes.c_long, (ctypes.c_char_p,)
    return int(function(kind.encode()))


def receive(exporter: Exporter, **options: Any) -> _cuda.Slab:
    with exporter.connect() as connection:
        return _cuda.receive_slab(connection, **options)


def held(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("seqpacket", [False, True], ids=["stream", "seqpacket"])
@pytest.mark.parametrize("legacy", [False, True], ids=["descriptor", "legacy"])
def test_every_byte_is_the_exporters(tmp_path: Path, folder: Path, seqpacket: bool, legacy: bool) -> None:
    arguments = ["-bytes", str(BYTES), "-seed", "77", *(["-legacy"] if legacy else [])]
    with (
        Exporter(tmp_path, *arguments, state=folder / "state", seqpacket=seqpacket) as exporter,
        receive(exporter) as slab,
    ):
        assert slab.nbytes == BYTES == exporter.shared["bytes"]
        assert slab.device == exporter.shared["device"]
        assert (slab.stub, slab.writable) == (True, legacy)
        assert slab.read(0, BYTES) == pattern(BYTES, 77).tobytes()
        tensor = slab.tensor((BYTES,))
        assert np.array_equal(tensor.numpy(), pattern(BYTES, 77))
        assert "STUB" in repr(slab)
        del tensor


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_tensor_of_every_element_type_has_the_bytes(exporter: Exporter, dtype: torch.dtype) -> None:
    with receive(exporter) as slab:
        rows = 1000
        tensor = slab.tensor((rows, 2), dtype, 64)
        assert (tensor.dtype, tuple(tensor.shape), tensor.device.type) == (dtype, (rows, 2), "cpu")
        size = rows * 2 * dtype.itemsize
        assert ctypes.string_at(tensor.data_ptr(), size) == pattern(size, 1, 64).tobytes()
        assert tensor.data_ptr() == slab.address + 64
        del tensor


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("dtype", ["bfloat16", "torch.float8_e5m2", torch.int64], ids=str)
def test_a_tensor_has_any_shape(exporter: Exporter, shape: tuple[int, ...], dtype: Any) -> None:
    with receive(exporter) as slab:
        tensor = slab.tensor(shape, dtype)
        assert tuple(tensor.shape) == shape
        assert tensor.is_contiguous()
        assert held(tensor.reshape(-1)) == pattern(tensor.nbytes, 1).tobytes()
        del tensor


def test_a_tensor_is_no_copy(exporter: Exporter) -> None:
    with receive(exporter) as slab:
        tensor = slab.tensor((WHOLE,))
        exporter.ask("fill 9")
        assert np.array_equal(tensor.numpy(), pattern(WHOLE, 9))
        exporter.ask("fill 1")
        del tensor


def test_what_a_writable_slab_is_given_the_exporter_has(exporter: Exporter) -> None:
    with receive(exporter, writable=True) as slab:
        assert slab.writable
        slab.tensor((BYTES,)).copy_(torch.from_numpy(pattern(BYTES, 5)))
    assert exporter.ask("check 5") == {"wrong_at": -1}
    assert exporter.ask("check 6") == {"wrong_at": 0}
    exporter.ask("fill 1")


def test_a_write_to_a_slab_that_is_read_only_is_a_fault(exporter: Exporter) -> None:
    done = child(exporter, "slab.tensor((8,)).fill_(1)")
    assert done.returncode == -11, done.stderr
    assert exporter.ask("check 1") == {"wrong_at": -1}


def child(exporter: Exporter, program: str) -> subprocess.CompletedProcess[str]:
    """A Python process that has received the slab, after it ran ``program``."""
    text = (
        "import socket\nfrom stoker import _cuda\n"
        f"connection = socket.socket(socket.AF_UNIX); connection.connect({str(exporter.socket_path)!r})\n"
        f"slab = _cuda.receive_slab(connection); connection.close()\n{program}\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "python")}
    return subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("shape", "dtype", "offset", "error"),
    [
        ((BYTES + 1,), "uint8", 0, OutOfRangeError),
        ((1,), "uint8", BYTES, OutOfRangeError),
        ((BYTES,), "int64", 0, OutOfRangeError),
        ((1 << 40, 1 << 40), "int64", 0, OutOfRangeError),
        ((-1,), "uint8", 0, InvalidError),
        ((-1, -1), "uint8", 0, InvalidError),
        ((1,), "uint8", -1, InvalidError),
        ((1,), "int64", 4, InvalidError),
        ((1,), "no_such_type", 0, InvalidError),
        ((1,), "nn", 0, InvalidError),
    ],
)
def test_a_part_that_cannot_be_is_refused(
    exporter: Exporter, shape: tuple[int, ...], dtype: str, offset: int, error: type[Exception]
) -> None:
    with receive(exporter) as slab, pytest.raises(error):
        slab.tensor(shape, dtype, offset)
    assert live() == 0


def test_memory_stays_until_the_slab_is_closed_and_the_last_view_is_gone(exporter: Exporter) -> None:
    slab = receive(exporter)
    first, second = slab.tensor((100,)), slab.tensor((50, 2), "int64", 80)
    view = second[3:].t()
    assert slab.tensors == 2
    del first, second
    assert slab.tensors == 1
    assert not slab.close()
    assert live("mappings") == 1
    assert held(view) == pattern(800, 1, 80).reshape(50, 2, 8)[3:].transpose(1, 0, 2).tobytes()
    del view
    assert live() == 0
    assert slab.close()


def test_a_closed_slab_says_so(exporter: Exporter) -> None:
    slab = receive(exporter)
    assert slab.close()
    assert slab.close()
    for use in (lambda: slab.tensor((1,)), lambda: slab.read(0, 1), lambda: slab.address):
        with pytest.raises(ConflictError, match="closed"):
            use()
    assert "closed" in repr(slab)


def test_a_slab_that_nobody_closes_is_unmapped_when_it_is_collected(exporter: Exporter) -> None:
    receive(exporter)
    gc.collect()
    assert live() == 0


def test_a_lease_ends_with_the_last_view_of_its_tensor(exporter: Exporter) -> None:
    class Lease:
        pass

    with receive(exporter) as slab:
        lease = Lease()
        ended = weakref.ref(lease)
        view = slab.tensor((10, 10), lease=lease)[0]
        del lease
        assert ended() is not None
        del view
        assert ended() is None


def test_the_bare_pointer_keeps_its_owner_as_well(exporter: Exporter) -> None:
    class Owner:
        pass

    with receive(exporter) as slab:
        owner = Owner()
        ended = weakref.ref(owner)
        tensor = _cuda.bytes_at_pointer(torch, slab.address, 1000, torch.device("cpu"), owner)
        view = tensor.view(torch.int64)[1:]
        del owner, tensor
        gc.collect()
        assert ended() is not None
        assert held(view) == pattern(992, 1, 8).tobytes()
        del view
        gc.collect()
        assert ended() is None


def test_a_torch_without_dlpack_gets_its_tensor_by_the_bare_pointer(exporter: Exporter) -> None:
    class Torch:
        """torch, but for from_dlpack."""

        def __getattr__(self, name: str) -> Any:
            if name == "from_dlpack":
                raise AttributeError(name)
            return getattr(torch, name)

    with receive(exporter) as slab:
        tensor = _cuda.bytes_at(Torch(), slab.address, 1000, torch.device("cpu"), slab)
        assert held(tensor) == pattern(1000, 1).tobytes()
        del tensor


def test_a_slab_that_is_closed_while_a_tensor_is_made_stays_for_it(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    slab = receive(exporter)
    make, unmapped = _cuda.bytes_at, list[bool]()

    def closed_meanwhile(*arguments: Any) -> Any:
        unmapped.append(slab.close())  # as another thread may
        return make(*arguments)

    monkeypatch.setattr(_cuda, "bytes_at", closed_meanwhile)
    tensor = slab.tensor((800,))
    assert unmapped == [False]
    assert held(tensor) == pattern(800, 1).tobytes()
    del tensor
    assert live() == 0


def test_a_slab_that_is_closed_while_it_is_read_stays_for_that(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    slab = receive(exporter)
    call, unmapped = slab._driver.call, list[bool]()

    def closed_meanwhile(name: str, *arguments: Any) -> None:
        if name == "cuMemcpyDtoH_v2":
            unmapped.append(slab.close())
        call(name, *arguments)

    monkeypatch.setattr(slab._driver, "call", closed_meanwhile)
    assert slab.read(0, 800) == pattern(800, 1).tobytes()
    assert unmapped == [False]
    assert live() == 0


def test_threads_close_what_others_use(exporter: Exporter) -> None:
    failures: list[BaseException] = []

    def use(slab: _cuda.Slab) -> None:
        try:
            while True:
                assert held(slab.tensor((64,))) == pattern(64, 1).tobytes()
                assert slab.read(8, 64) == pattern(64, 1, 8).tobytes()
        except ConflictError:
            pass
        except BaseException as error:
            failures.append(error)

    for _ in range(30):
        slab = receive(exporter)
        threads = [threading.Thread(target=use, args=(slab,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        slab.close()
        for thread in threads:
            thread.join()
        assert live() == 0
    assert failures == []


@pytest.mark.parametrize(
    ("shape", "offset", "error"),
    [
        ((np.int64(1 << 62), np.int64(8)), 0, OutOfRangeError),  # whose product is 0 in 64 bits
        ((np.int64((1 << 61) + 1), np.int64(8)), 0, OutOfRangeError),
        ((8,), np.int64((1 << 63) - 8), OutOfRangeError),
        ((2.0,), 0, TypeError),
        ((2,), 8.0, TypeError),
    ],
)
def test_numbers_of_numpy_do_not_wrap_round(
    exporter: Exporter, shape: tuple[Any, ...], offset: Any, error: type[Exception]
) -> None:
    with receive(exporter) as slab, np.errstate(over="ignore"), pytest.raises(error):
        slab.tensor(shape, "int64", offset)


def test_threads_make_and_drop_tensors_at_once(exporter: Exporter) -> None:
    failures: list[BaseException] = []

    def work(slab: _cuda.Slab, number: int) -> None:
        try:
            for at in range(0, 4000, 8):
                tensor = slab.tensor((64,), "uint8", at + number * 8)
                assert held(tensor[:8]) == pattern(8, 1, at + number * 8).tobytes()
        except BaseException as error:
            failures.append(error)

    with receive(exporter) as slab:
        threads = [threading.Thread(target=work, args=(slab, number)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert slab.tensors == 0
    assert failures == []


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["map", "tensor", "view", "drop", "close"]), st.integers(0, 7)), max_size=40))
def test_any_order_of_use_and_release_leaves_nothing(exporter: Exporter, steps: list[tuple[str, int]]) -> None:
    slabs: list[_cuda.Slab] = []
    tensors: list[torch.Tensor] = []
    for step, number in steps:
        if step == "map" and len(slabs) < 4:
            slabs.append(receive(exporter))
        elif step == "tensor" and slabs:
            tensors.append(slabs[number % len(slabs)].tensor((16,), "int16", number * 32))
        elif step == "view" and tensors:
            tensors.append(tensors[number % len(tensors)][1:])
        elif step == "drop" and tensors:
            del tensors[number % len(tensors)]
        elif step == "close" and slabs:
            slabs.pop(number % len(slabs)).close()
        assert all(tensor.sum().item() is not None for tensor in tensors)  # touches them
    while slabs:
        slabs.pop().close()
    assert live("mappings") <= len(tensors)
    tensors.clear()
    assert live() == 0


@pytest.mark.parametrize(
    ("operation", "code", "legacy"),
    [
        ("cuDevicePrimaryCtxRetain", 2, False),
        ("cuCtxPushCurrent", 201, False),
        ("cuMemImportFromShareableHandle", 800, False),
        ("cuMemAddressReserve", 2, False),
        ("cuMemMap", 1, False),
        ("cuMemSetAccess", 801, False),
        ("cuIpcOpenMemHandle", 801, True),
    ],
)
def test_a_call_that_fails_is_named_and_undone(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, operation: str, code: int, legacy: bool
) -> None:
    with Exporter(tmp_path, *(["-legacy"] if legacy else []), state=folder / "state") as exporter:
        monkeypatch.setenv("STOKER_STUB_FAULTS", f"{operation}:{code}")
        with pytest.raises(UnavailableError, match=rf"{operation}.* answered {code} \(CUDA_ERROR_"):
            receive(exporter)
        assert live() == 0


@pytest.mark.parametrize("answers", [True, False])
def test_a_sender_is_not_believed_how_large_legacy_memory_is(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    if not answers:
        monkeypatch.setenv("STOKER_STUB_FAULTS", "cuMemGetAddressRange:1")
    ours, theirs = socket.socketpair()
    with Exporter(tmp_path, "-legacy", "-bytes", "4096", state=folder / "state") as exporter, ours, theirs:
        with exporter.connect() as connection:
            message = bytearray(connection.recv(_slab.MESSAGE_BYTES, socket.MSG_WAITALL))
            message[8:24] = struct.pack("<QQ", 1 << 40, 1 << 40)
            theirs.sendall(message)
            if answers:
                with pytest.raises(ProtocolError, match="1099511627776 bytes, and its memory has"):
                    _cuda.receive_slab(ours)
            else:
                _cuda.receive_slab(ours).close()
        assert live() == 0


def test_a_step_of_the_release_that_fails_is_raised_and_the_others_are_done(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOKER_STUB_FAULTS", "cuCtxSynchronize:700")
    slab = receive(exporter)
    with pytest.raises(UnavailableError, match="cuCtxSynchronize answered 700"):
        slab.close()
    assert live() == 0


def test_a_release_takes_no_context_from_the_thread_that_it_runs_in(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOKER_STUB_FAULTS", "cuCtxPushCurrent:201:2:1")
    slab = receive(exporter)
    driver, context = slab._driver, slab._open().context
    driver.call("cuCtxPushCurrent_v2", context)  # torch's, say
    with pytest.raises(UnavailableError, match="cuCtxPushCurrent_v2 answered 201"):
        slab.close()
    popped = ctypes.c_void_p()
    assert driver.answer("cuCtxPopCurrent_v2", ctypes.byref(popped)) == 0
    assert popped.value == context
    assert live() == 0


def test_without_torch_a_slab_can_be_read_and_says_what_a_tensor_needs(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with receive(exporter) as slab:
        assert slab.read(0, 64) == pattern(64, 1).tobytes()
        with pytest.raises(UnavailableError, match="torch"):
            slab.tensor((8,))


def test_devices_are_matched_by_uuid_not_by_number(exporter: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    with receive(exporter) as slab:
        assert slab.ordinal == 1
        assert slab.read(0, 64) == pattern(64, 1).tobytes()


def test_a_gpu_that_is_hidden_is_named(exporter: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with pytest.raises(NotFoundError, match=exporter.shared["device"]):
        receive(exporter)


def test_a_forked_child_touches_nothing(exporter: Exporter) -> None:
    with receive(exporter) as slab:
        tensor = slab.tensor((8,))
        child = os.fork()
        if child == 0:
            try:
                slab.read(0, 1)
            except ForkedError:
                del tensor
                slab.close()
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        assert held(tensor) == pattern(8, 1).tobytes()
        assert live("mappings") == 1
        del tensor


def test_a_process_may_end_with_tensors_in_its_globals(exporter: Exporter) -> None:
    done = child(exporter, "kept = slab.tensor((100,)); also = [kept.view(25, 4)[1:]]; slab.close()")
    assert (done.returncode, done.stderr) == (0, "")


def test_no_driver_is_an_answer_that_says_what_to_do() -> None:
    with pytest.raises(UnavailableError, match="no/such/libcuda") as caught:
        CudaDriver("/no/such/libcuda.so.1")
    assert "device='cpu'" in caught.value.remedy


def test_another_library_is_no_driver() -> None:
    with pytest.raises(UnavailableError, match="lacks cuInit"):
        CudaDriver("libc.so.6")


def test_a_driver_without_gpus_names_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOKER_STUB_FAULTS", "cuInit:100")
    with pytest.raises(UnavailableError, match="cuInit answered 100"):
        CudaDriver()


def test_a_stand_in_in_the_process_is_not_taken_for_the_gpus_driver() -> None:
    """By torch, say, which asks the loader for this name."""
    CudaDriver()
    try:
        found = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return
    assert not hasattr(found, "stoker_stub")
