"""Typed parts: the table of extensions, hostile bytes, and values as webdataset's own decoders give them."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import tracemalloc
import zipfile
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from webdataset import autodecode

from stoker import _decode
from stoker._decode import Kind, kind_of, read_part
from stoker.errors import CorruptError, InvalidError

BYTES = ["jpg", "png", "bin", "mp", "msg", "cbor", "ten", "tb", "txt2", "", "x.jpg", "txt.gz", "json.jpg"]
ALL = [_decode.TEXT, _decode.NUMBER, _decode.JSON, _decode.NPY, _decode.NPZ]


def read(part: str, content: bytes) -> Any:
    kind = kind_of(part)
    assert kind is not None
    return read_part(part, kind, memoryview(content))


def npy(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def npy_header(text: str, version: bytes = b"\x01\x00") -> bytes:
    width = 2 if version[0] == 1 else 4
    return b"\x93NUMPY" + version + len(text).to_bytes(width, "little") + text.encode("latin1")


def npz(compressed: bool = False, **contents: Any) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **contents)
    return file.getvalue()


@pytest.mark.parametrize("part", BYTES)
def test_parts_of_other_names_stay_bytes(part: str) -> None:
    assert kind_of(part) is None


def test_the_table_is_webdatasets_without_what_needs_other_packages() -> None:
    others = {"mp", "msg", "cbor", "ten", "tb"}
    assert set(_decode._KINDS) == set(autodecode.decoders) - others
    for extension in _decode._KINDS:
        assert kind_of(f"a.{extension}") is kind_of(extension), "the last extension says it"


@given(st.text())
def test_text_is_what_webdataset_reads(text: str) -> None:
    content = text.encode("utf-8", "surrogatepass")
    try:
        expected = autodecode.decoders["txt"](content)
    except UnicodeDecodeError:
        with pytest.raises(CorruptError, match="is no text"):
            read("txt", content)
    else:
        assert read("x.txt", content) == expected


@given(st.one_of(st.integers().map(str), st.text(alphabet=" +-_0123456789\n.e", max_size=12)).map(str.encode))
@example(b"")
@example(b"9223372036854775807\n")
@example(b"9223372036854775808")
@example(b"-9223372036854775808")
@example(b" 1_000 ")
def test_numbers_are_what_webdataset_reads_if_they_fit_64_bits(content: bytes) -> None:
    try:
        expected = autodecode.decoders["cls"](content)
        fits = -(2**63) <= expected < 2**63 and len(content) <= 64
    except ValueError:
        fits = False
    if fits:
        assert read("cls", content) == expected
    else:
        with pytest.raises(CorruptError, match="is no number"):
            read("cls", content)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(values)
def test_json_is_what_webdataset_reads(value: Any) -> None:
    for encoding in ("utf-8", "utf-16", "utf-32-le"):
        content = json.dumps(value, ensure_ascii=encoding == "utf-8").encode(encoding, "surrogatepass")
        assert read("meta.json", content) == autodecode.decoders["json"](content)


@pytest.mark.parametrize("content", [b"", b"{", b'{"a":1}x', b"\xff", b"[" * 100_000, b'"\\ud800', b"nul"])
def test_what_is_no_json_is_refused(content: bytes) -> None:
    with pytest.raises(CorruptError, match=r"'json' of .* is no JSON") as raised:
        read("json", content)
    assert "decode=False" in raised.value.remedy


@given(
    arrays.arrays(
        arrays.scalar_dtypes() | arrays.unicode_string_dtypes(min_len=1) | arrays.byte_string_dtypes(min_len=1),
        arrays.array_shapes(min_dims=0, min_side=0),
    ),
    st.sampled_from("CF"),
    st.sampled_from([(1, 0), (2, 0), (3, 0)]),
)
def test_arrays_are_what_webdataset_reads(array: Any, order: Any, version: tuple[int, int]) -> None:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array, order=order), version)
    mine, theirs = read("npy", file.getvalue()), autodecode.decoders["npy"](file.getvalue())
    assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
    assert mine.tobytes() == theirs.tobytes()
    assert mine.flags.f_contiguous == theirs.flags.f_contiguous
    assert mine.flags.writeable
    assert mine.flags.owndata or mine.base is not None


def test_structured_arrays_are_read() -> None:
    array = np.array([(1, 2.5)], dtype=[("a", "<i4"), ("\N{SNOWMAN}", "<f8")])
    with pytest.warns(UserWarning, match="Stored array in format 3.0"):
        content = npy(array)
    assert read("npy", content).tolist() == [(1, 2.5)]


def test_an_array_is_a_copy_and_keeps_no_memory_of_the_slot() -> None:
    content = bytearray(npy(np.arange(3)))
    array = read_part("npy", _decode.NPY, memoryview(content))
    content[:] = bytes(len(content))
    assert array.tolist() == [0, 1, 2]


HUGE = [
    "(1099511627776,)",
    "(4294967296, 4294967296)",
    "(1, 281474976710656)",
    "(18446744073709551616,)",
    "(-1,)",
    "(-4294967296, -4294967296)",
    "(9" + "9" * 3000 + ",)",
]


@pytest.mark.parametrize("version", [b"\x01\x00", b"\x02\x00", b"\x03\x00"])
@pytest.mark.parametrize("shape", HUGE, ids=lambda text: str(text)[:24])
@pytest.mark.parametrize("descr", ["'<f8'", "'|u1'", "'|V0'", "'<U0'", "'|S4096'"])
def test_a_header_that_asks_for_more_than_there_is_allocates_nothing(shape: str, version: bytes, descr: str) -> None:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"
    content = npy_header(header, version) + bytes(100)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptError, match="is no npy array"):
            read("npy", content)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00\xff\xff",
        b"\x93NUMPY\x09\x00" + bytes(100),
        npy_header("(" * 9000),
        npy_header("-" * 9000 + "1"),
        npy_header("{'descr': '<f8'}\n"),
        npy_header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n")[:40],
        npy_header("{'descr': 'nonsense', 'fortran_order': False, 'shape': (1,), }\n") + bytes(8),
        npy_header("__import__('os').abort()\n"),
        npy(np.arange(10))[:-1],
    ],
    ids=lambda content: repr(content[:30]),
)
def test_what_is_no_array_is_refused(content: bytes) -> None:
    with pytest.raises(CorruptError, match="is no npy array"):
        read("npy", content)


class Bomb:
    """Unpickling it is an error of the test."""

    def __reduce__(self) -> Any:
        return (pytest.fail, ("a pickle was read",))


def test_objects_inside_of_arrays_are_refused_unless_pickles_are_allowed() -> None:
    objects = np.array([Bomb(), {}], dtype=object)
    for part, content in (("npy", npy(objects)), ("npz", npz(x=objects))):
        with pytest.raises(InvalidError, match="Python objects holds pickles") as raised:
            read(part, content)
        assert "allow_pickle=True" in raised.value.remedy
    harmless = np.array([{"a": 1}, None], dtype=object)
    kind = _decode._WITH_PICKLES[_decode.NPY]
    assert read_part("npy", kind, memoryview(npy(harmless))).tolist() == [{"a": 1}, None]
    kind = _decode._WITH_PICKLES[_decode.NPZ]
    assert read_part("npz", kind, memoryview(npz(a=harmless)))["a"].tolist() == [{"a": 1}, None]


def test_pickles_are_read_only_through_their_own_kinds() -> None:
    content = pickle.dumps({"a": [1, 2]})
    for part in ("pkl", "pickle", "pyd"):
        assert read(part, content) == {"a": [1, 2]}
    file = io.BytesIO()
    torch.save({"t": torch.arange(3)}, file)
    assert read("x.pth", file.getvalue())["t"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("compressed", [False, True])
def test_archives_of_arrays_are_what_webdataset_reads(compressed: bool) -> None:
    content = npz(compressed, a=np.arange(12).reshape(3, 4), b=np.zeros((0, 2)), zeros=np.zeros(1_000_000))
    mine, theirs = read("npz", content), autodecode.decoders["npz"](content)
    assert list(mine) == list(theirs)
    for name, array in theirs.items():
        assert (mine[name].dtype, mine[name].tolist()) == (array.dtype, array.tolist())


def test_an_archive_that_lies_about_its_sizes_is_refused() -> None:
    content = bytearray(npz(a=np.arange(4)))
    with zipfile.ZipFile(io.BytesIO(bytes(content))) as archive:
        stated = archive.infolist()[0].file_size.to_bytes(4, "little")
    lies = bytes(content).replace(stated, (1 << 30).to_bytes(4, "little"))
    assert lies != bytes(content)
    odd = io.BytesIO()
    with zipfile.ZipFile(odd, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.npy", npy(np.arange(4)))
    short = io.BytesIO()
    with zipfile.ZipFile(short, "w") as archive:
        archive.writestr(
            "a.npy", npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (1 , 1000000000000)}\n")
        )
    for hostile in (lies, odd.getvalue(), short.getvalue(), content[:-30], b"PK"):
        tracemalloc.start()
        try:
            with pytest.raises(CorruptError, match="is no npz archive"):
                read("npz", bytes(hostile))
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
        finally:
            tracemalloc.stop()


def test_members_that_overlap_are_refused() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", npy(np.zeros(10_000)))
        for number in range(100):
            again = zipfile.ZipInfo(f"b{number}.npy")
            first = archive.infolist()[0]
            for name in ("header_offset", "file_size", "compress_size", "CRC", "compress_type"):
                setattr(again, name, getattr(first, name))
            archive.filelist.append(again)
        archive._didModify = True  # type: ignore[attr-defined]
    with pytest.raises(CorruptError, match="overlap"):
        read("npz", file.getvalue())


seeds = st.sampled_from(
    [npy(np.arange(6, dtype=np.int32)), npz(a=np.arange(3)), npz(True, a=np.zeros(100)), b'{"a": [1, 2]}', b"12"]
)
edits = st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=6)


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(ALL), seeds, edits, st.integers(0, 600))
def test_changed_bytes_are_a_value_or_corrupt(
    kind: Kind, content: bytes, changes: list[tuple[int, int]], length: int
) -> None:
    changed = bytearray(content)
    for place, value in changes:
        if place < len(changed):
            changed[place] = value
    with contextlib.suppress(CorruptError, InvalidError):
        read_part("part", kind, memoryview(bytes(changed[: max(1, length)])))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(ALL), st.binary(max_size=300))
def test_any_bytes_are_a_value_or_corrupt(kind: Kind, content: bytes) -> None:
    with contextlib.suppress(CorruptError, InvalidError):
        read_part("part", kind, memoryview(content))


def test_an_npz_archive_inflates_to_no_more_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_decode, "_NPZ_BYTES", 1 << 20)
    content = npz(True, a=np.zeros(100_000, np.uint8), b=np.zeros(900_000, np.uint8))
    assert sorted(read("npz", content)) == ["a", "b"]
    content = npz(True, a=np.zeros(100_000, np.uint8), b=np.zeros(1_000_000, np.uint8))
    with pytest.raises(
        CorruptError, match=r"would inflate to 1100\d\d\d bytes, more than the 1048576 allowed: 64 times"
    ):
        read("npz", content)
    noise = np.random.default_rng(1).bytes(40_000)
    large = npz(True, a=np.zeros(2_000_000, np.uint8), b=np.frombuffer(noise, np.uint8))
    assert read("npz", large)["a"].nbytes == 2_000_000, "64 times its bytes are more"
