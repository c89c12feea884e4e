"""A test double of stokerd, for the corners of the protocol that a healthy daemon never shows.

:class:`FakeRing` is the producer's side of a ring. :class:`FakeDaemon` listens on
a session socket and lets a function behave as it likes on each connection;
:class:`Polite` is a behaviour that serves made-up datasets correctly.

Sample i of a token dataset is the row ``i, i + 1, ... i + block_size`` (mod 65536).
Samples of a tar dataset are given, as dictionaries of parts; sample i has the key
``dir/i`` with six digits and lies in shard ``i // 10``.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from stoker import _layout
from stoker._futex import Futex
from stoker._layout import ENTRY_STRUCT, FLAG_OVERSIZED, KIND_BATCH, KIND_END_OF_EPOCH, KIND_ERROR, NO_SLOT

Message = dict[str, Any]


def align(number: int, to: int) -> int:
    return -(-number // to) * to


def pack_batch(columns: Sequence[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]], rows: int) -> bytes:
    """A batch in the format of a slot; each column is its values and, if ragged, its offsets."""
    at = align(_layout.SLOT_HEADER_BYTES + _layout.COLUMN_BYTES * len(columns), 64)
    table, parts = [], []
    for values, offsets in columns:
        place = [0, 0]
        if offsets is not None:
            place = [at, offsets.nbytes]
            parts.append((at, offsets.tobytes()))
            at = align(at + offsets.nbytes, 64)
        table += [at, values.nbytes, *place]
        parts.append((at, values.tobytes()))
        at = align(at + values.nbytes, 64)
    batch = bytearray(at)
    _layout.column_table_struct(len(columns)).pack_into(batch, 0, len(columns), rows, *table)
    for offset, content in parts:
        batch[offset : offset + len(content)] = content
    return bytes(batch)


def token_batch(samples: Sequence[int], block_size: int) -> bytes:
    """The batch of these samples of a made-up token dataset."""
    index = np.array(samples, np.int64)
    tokens = (index[:, None] + np.arange(block_size + 1)).astype(np.uint16)
    return pack_batch([(tokens, None), (index, None)], len(samples))


def raw_batch(contents: Sequence[bytes], labels: Sequence[int]) -> bytes:
    """A batch of files with labels."""
    values = np.frombuffer(b"".join(contents), np.uint8)
    offsets = np.cumsum([0, *map(len, contents)], dtype=np.int64)
    rows = len(contents)
    index = np.arange(rows, dtype=np.int64)
    return pack_batch([(values, offsets), (np.array(labels, np.int64), None), (index, None)], rows)


def parts_batch(
    samples: Sequence[int], contents: Sequence[Mapping[str, bytes]], columns: Sequence[tuple[str, Sequence[str]]]
) -> bytes:
    """The batch of these samples of a tar dataset; ``columns`` are names with the parts that they may be."""
    packed: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]] = []
    masks = np.zeros(len(samples), np.int64)
    for bit, (_, parts) in enumerate(columns):
        found = [first_part(contents[sample], parts) for sample in samples]
        masks |= np.array([(part is not None) << bit for part in found], np.int64).reshape(-1)
        values = [part or b"" for part in found]
        offsets = np.cumsum([0, *map(len, values)], dtype=np.int64)
        packed.append((np.frombuffer(b"".join(values), np.uint8), offsets))
    if lacking(contents, columns):
        packed.append((masks, None))
    packed.append((np.array(samples, np.int64), None))
    return pack_batch(packed, len(samples))


def first_part(sample: Mapping[str, bytes], parts: Sequence[str]) -> bytes | None:
    return next((sample[part] for part in parts if part in sample), None)


def lacking(contents: Sequence[Mapping[str, bytes]], columns: Sequence[tuple[str, Sequence[str]]]) -> bool:
    return any(first_part(sample, parts) is None for sample in contents for _, parts in columns)


class FakeRing:
    """The producer's side of a ring, with the bookkeeping of a daemon that trusts nobody."""

    def __init__(self, slots: int = 4, slot_bytes: int = 4096) -> None:
        self.slots, self.slot_bytes = slots, slot_bytes
        self.queue_entries = 1
        while self.queue_entries < 2 * slots:
            self.queue_entries *= 2
        self.queue_offset = _layout.HEADER_BYTES
        self.released_offset = self.queue_offset + self.queue_entries * _layout.ENTRY_BYTES
        self.slots_offset = align(self.released_offset + 8 * slots, 4096)
        self.total_bytes = self.slots_offset + slots * slot_bytes
        self.descriptor = os.memfd_create("fake-ring", os.MFD_CLOEXEC)
        os.ftruncate(self.descriptor, self.total_bytes)
        self.memory = mmap.mmap(self.descriptor, self.total_bytes)
        self.generation = [0] * slots
        self.lent = [False] * slots
        self.published = 0
        header = memoryview(self.memory)[: _layout.HEADER_BYTES]
        self.words64, self.words32 = header.cast("Q"), header.cast("I")
        self.ready = Futex(self.memory, _layout.HEADER_FIELDS["ready_word"][0])
        self.write_header()

    def write_header(self, **different: int) -> None:
        fields = {
            "magic": _layout.MAGIC,
            "layout_version": _layout.LAYOUT_VERSION,
            "header_bytes": _layout.HEADER_BYTES,
            "slots": self.slots,
            "queue_entries": self.queue_entries,
            "slot_bytes": self.slot_bytes,
            "queue_offset": self.queue_offset,
            "released_offset": self.released_offset,
            "slots_offset": self.slots_offset,
            "total_bytes": self.total_bytes,
        }
        _layout.GEOMETRY_STRUCT.pack_into(self.memory, 0, *{**fields, **different}.values())

    def map(self) -> mmap.mmap:
        """A mapping as the trainer makes it."""
        return mmap.mmap(self.descriptor, self.total_bytes)

    def word(self, name: str) -> int:
        offset, width = _layout.HEADER_FIELDS[name]
        return int(self.words64[offset // 8] if width == 8 else self.words32[offset // 4])

    def set_word(self, name: str, value: int) -> None:
        offset, width = _layout.HEADER_FIELDS[name]
        if width == 8:
            self.words64[offset // 8] = value
        else:
            self.words32[offset // 4] = value

    def released(self, slot: int) -> int:
        return int(struct.unpack_from("<Q", self.memory, self.released_offset + 8 * slot)[0])

    def free_slots(self) -> list[int]:
        """Slots that may be filled: never lent, or given back under their generation."""
        for slot in range(self.slots):
            if self.lent[slot] and self.released(slot) == self.generation[slot]:
                self.lent[slot] = False
        return [slot for slot in range(self.slots) if not self.lent[slot]]

    def untaken(self) -> int:
        return self.published - self.word("taken")

    def publish(self, kind: int, content: bytes | None = None, **fields: int) -> int:
        """Publish an entry, with a free slot that holds ``content`` unless that is None. Returns its sequence."""
        slot = NO_SLOT
        if content is not None:
            slot = self.free_slots()[0]
            self.lent[slot] = True
            self.generation[slot] += 1
            at = self.slots_offset + slot * self.slot_bytes
            if not fields.get("flags", 0) & FLAG_OVERSIZED:
                self.memory[at : at + len(content)] = content
        self.published += 1
        now = time.monotonic_ns()
        entry = {
            "sequence": self.published,
            "kind": kind,
            "slot": slot,
            "generation": self.generation[slot] if slot != NO_SLOT else 0,
            "bytes": len(content or b""),
            **dict.fromkeys(("rows", "flags", "epoch", "position", "samples_consumed", "source_bytes"), 0),
            **dict.fromkeys(("t_wait_slot", "t_order", "t_index", "t_read", "t_done"), now),
            **dict.fromkeys(("disk_bytes", "reserved"), 0),
            **fields,
        }
        at = self.queue_offset + ((self.published - 1) % self.queue_entries) * _layout.ENTRY_BYTES
        ENTRY_STRUCT.pack_into(self.memory, at, *entry.values())
        self.set_word("published", self.published)
        self.set_word("ready_word", self.published & 0xFFFFFFFF)
        if self.word("trainer_waiting"):
            self.ready.wake()
        return self.published

    def publish_tokens(self, samples: Sequence[int], block_size: int = 8, **fields: int) -> int:
        content = token_batch(samples, block_size)
        return self.publish(KIND_BATCH, content, rows=len(samples), **fields)

    def close(self) -> None:
        os.close(self.descriptor)


class Refused(Exception):
    """Answered with an error of these: code, what, where."""


class Gone(Exception):
    """The client closed its connection."""


class FakeConnection:
    """The daemon's side of one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection

    def receive(self) -> Message:
        packet, descriptors, _, _ = socket.recv_fds(self.socket, 65536, 8)
        for descriptor in descriptors:
            os.close(descriptor)
        if not packet:
            raise Gone
        message: Message = json.loads(packet)
        return message

    def readable(self, seconds: float) -> bool:
        return bool(select.select([self.socket], [], [], seconds)[0])

    def send(self, message: Message | bytes, descriptors: Sequence[int] = ()) -> None:
        packet = message if isinstance(message, bytes) else json.dumps(message).encode()
        if isinstance(message, dict) and len(packet) > _layout.PACKET_BYTES:
            memory = os.memfd_create("fake-long", os.MFD_CLOEXEC)
            try:
                os.pwrite(memory, packet, 0)
                self.send({"type": "long", "bytes": len(packet)}, [memory, *descriptors])
            finally:
                os.close(memory)
            return
        try:
            socket.send_fds(self.socket, [packet], list(descriptors))
        except (BrokenPipeError, ConnectionResetError):
            raise Gone from None

    def hello(self, **different: Any) -> Message:
        """Answer hello; returns what the client said."""
        said = self.receive()
        answer = {"type": "hello", "version": 1, "features": ["ring", "socket"], "daemon": "fake", "pid": os.getpid()}
        self.send({**answer, **different})
        return said

    def wait_for_end(self) -> None:
        """Read until the client goes."""
        while True:
            self.receive()


Behaviour = Callable[[FakeConnection], None]


class FakeDaemon:
    """Listens in ``directory``; each connection gets ``behave`` in a thread of its own.

    A context manager. Errors of a behaviour, other than the client's going, are
    raised at its end.
    """

    def __init__(self, directory: Path, behave: Behaviour) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        self.path = directory / "session.sock"
        self.behave = behave
        self.errors: list[BaseException] = []
        self.connections: list[FakeConnection] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> FakeDaemon:
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(os.fspath(self.path))
        self._listener.listen(16)
        self._wake, self._woken = os.pipe()
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()
        return self

    def _accept(self) -> None:
        while True:
            ready, _, _ = select.select([self._listener.fileno(), self._wake], [], [])
            if self._wake in ready:
                return
            connection = FakeConnection(self._listener.accept()[0])
            self.connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: FakeConnection) -> None:
        try:
            self.behave(connection)
        except (Gone, ConnectionResetError, BrokenPipeError):
            pass
        except BaseException as error:
            self.errors.append(error)
        finally:
            connection.socket.close()

    def die(self) -> None:
        """End as a killed daemon does: the socket file stays, every connection ends."""
        os.write(self._woken, b"x")
        self._acceptor.join()
        self._listener.close()
        for connection in self.connections:
            try:
                connection.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        for thread in self._threads:
            thread.join(10)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._listener.fileno() >= 0:
            self.die()
        os.close(self._wake)
        os.close(self._woken)
        if self.errors and error is None:
            raise self.errors[0]


@dataclass
class Polite:
    """Serves a made-up dataset as stokerd does, in sequential order, rank 0 of 1: of tokens, or of ``contents``.

    ``oversized`` batches (by number in the epoch) come in a memfd of their own,
    whose pages are taken back as soon as the slot that stands for it is released;
    before batch ``fails_at`` there is an error entry, as often as ``failures``
    says; ``stale`` makes every seek leave that many entries of the old place.
    """

    samples: int = 40
    contents: Sequence[Mapping[str, bytes]] | None = None
    findings: Sequence[Message] = ()
    slots: int = 4
    slot_bytes: int = 4096
    index_id: str = "index-1"
    oversized: frozenset[int] = frozenset()
    fails_at: int = -1
    failures: int = 0
    stale: int = 0
    pass_descriptor: bool = True
    hello: Message = field(default_factory=dict)
    opened: Message = field(default_factory=dict)
    requests: list[Message] = field(default_factory=list)
    rings: list[FakeRing] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.contents is not None:
            self.samples = len(self.contents)

    def selected(self, request: Message) -> list[tuple[str, Sequence[str]]]:
        """The columns that a request asks for."""
        assert self.contents is not None
        names = sorted({part for sample in self.contents for part in sample})
        select = request.get("select") or [{"name": name, "parts": [name]} for name in names]
        columns = [(item["name"], item["parts"]) for item in select]
        missing = request.get("missing") or ("error" if "select" in request else "empty")
        if missing == "error" and lacking(self.contents, columns):
            raise Refused("invalid", "a sample lacks a column", "shard-000.tar")
        return columns

    def columns(self, request: Message) -> list[Message]:
        """What the columns of a session are."""
        if self.contents is None:
            shape = [request.get("block_size", 8) + 1]
            return [{"name": "tokens", "dtype": "uint16", "shape": shape, "ragged": False}]
        columns = self.selected(request)
        described = [{"name": name, "dtype": "uint8", "shape": [], "ragged": True} for name, _ in columns]
        if lacking(self.contents, columns):
            described.append({"name": "__present__", "dtype": "int64", "shape": [], "ragged": False})
        return described

    def batch(self, request: Message, first: int, count: int) -> bytes:
        """Samples as a session gives them."""
        samples = range(first, first + count)
        if self.contents is None:
            return token_batch(samples, request.get("block_size", 8))
        return parts_batch(samples, self.contents, self.selected(request))

    def name_of(self, sample: int) -> Message:
        if not 0 <= sample < self.samples:
            raise Refused("out_of_range", f"sample {sample} does not exist", "made-up")
        return {"file": f"shard-{sample // 10:03}.tar", "key": f"dir/{sample:06}"}

    def __call__(self, connection: FakeConnection) -> None:
        self.requests.append(connection.hello(**self.hello))
        request = connection.receive()
        self.requests.append(request)
        if request["type"] != "open":
            self._answer_other(connection, request)
            return
        PoliteSession(self, connection, request).serve()

    def _answer_other(self, connection: FakeConnection, request: Message) -> None:
        while True:
            try:
                self._answer_one(connection, request)
            except Refused as refused:
                code, what, where = refused.args
                connection.send({"type": "error", "error": {"code": code, "what": what, "where": where}})
            request = connection.receive()
            self.requests.append(request)

    def _answer_one(self, connection: FakeConnection, request: Message) -> None:
        kind = request["type"]
        if kind == "keys":
            connection.send({"type": "keys", "keys": [self.name_of(sample) for sample in request["samples"]]})
        elif kind == "sample" and self.contents is not None:
            self._send_sample(connection, request)
        elif kind == "dataset_info" and self.contents is not None:
            names = sorted({part for sample in self.contents for part in sample})
            parts = [{"name": name, "samples": sum(name in sample for sample in self.contents)} for name in names]
            described = {"name": request["name"], "index_id": self.index_id, "samples": self.samples, "parts": parts}
            connection.send({"type": "dataset", "dataset": described})
        elif kind == "dataset_rebuild":
            progress = {"files_done": 1, "files_total": 2, "bytes_done": 5, "bytes_total": 10, "samples_done": 3}
            connection.send({"type": "progress", **progress})
            parts = [{"name": "cls", "samples": 4, "bytes": 8, "max_bytes": 2}]
            described = {"name": request["name"], "format": "tar", "parts": parts, "archives": {"tar": 2}}
            connection.send({"type": "dataset", "dataset": described})
        elif kind == "dataset_lint":
            connection.send({"type": "progress", "files_done": 1, "samples_done": 3})
            for finding in self.findings:
                connection.send({"type": "findings", "findings": [finding]})
            summary = {
                "format": "tar",
                "files": 2,
                "samples": 9,
                "bytes": 99,
                "findings": {"tiny shard": 1},
                "notes": 1,
            }
            connection.send({"type": "lint", "summary": summary})
        else:
            raise Refused("invalid", f"no {kind} here", "")

    def _send_sample(self, connection: FakeConnection, request: Message) -> None:
        number = request["index"]
        name, described, content = self.name_of(number), self.columns(request), bytearray()
        assert self.contents is not None
        columns, mask = self.selected(request), 0
        for bit, (column, (_, parts)) in enumerate(zip(described, columns, strict=False)):
            part = first_part(self.contents[number], parts)
            mask |= (part is not None) << bit
            column.update(offset=len(content), bytes=len(part or b""), shape=[len(part or b"")])
            content += part or b""
        if len(described) > len(columns):
            content += bytes(-len(content) % 8)
            described[-1].update(offset=len(content), bytes=8)
            content += mask.to_bytes(8, "little")
        for column in described:
            del column["ragged"]
        descriptor = os.memfd_create("fake-sample", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, content)
            answer = {"type": "sample", **name, "columns": described, "bytes": len(content)}
            connection.send(answer, [descriptor])
        finally:
            os.close(descriptor)


class PoliteSession:
    def __init__(self, polite: Polite, connection: FakeConnection, request: Message) -> None:
        self.polite, self.connection = polite, connection
        self.batch_size, self.request = request["batch_size"], request
        self.socket_only = request["transport"] == "socket"
        self.ring = FakeRing(polite.slots, polite.slot_bytes)
        polite.rings.append(self.ring)
        self.halted = False
        self.given: list[tuple[int, int, mmap.mmap]] = []  # slot, generation and memory of oversized batches
        self.plan = self._plan(request["epoch"], request["samples_consumed"])
        self._open(request)

    def _open(self, request: Message) -> None:
        polite, ring = self.polite, self.ring
        if request["index_id"] not in ("", polite.index_id):
            what = f"the dataset's index is {polite.index_id}, not {request['index_id']}"
            self.connection.send({"type": "error", "error": {"code": "changed", "what": what, "where": "made-up"}})
            raise Gone
        answer = {
            "type": "opened",
            "session": "s-1",
            "transport": request["transport"],
            "index_id": polite.index_id,
            "order_version": 1,
            "samples": polite.samples,
            "format": "tokens" if polite.contents is None else "tar",
            "columns": self._columns(request),
            "classes": [],
            "ring": {"total_bytes": ring.total_bytes, "slots": ring.slots},
        }
        passed = polite.pass_descriptor and not self.socket_only
        self.connection.send({**answer, **polite.opened}, [ring.descriptor] if passed else [])

    def _columns(self, request: Message) -> list[Message]:
        try:
            return self.polite.columns(request)
        except Refused as refused:
            code, what, where = refused.args
            self.connection.send({"type": "error", "error": {"code": code, "what": what, "where": where}})
            raise Gone from None

    def _plan(self, epoch: int, consumed: int) -> Iterator[tuple[int, int, int]]:
        """(epoch, first sample, samples) of each batch; no samples at the end of an epoch."""
        while True:
            while consumed < self.polite.samples:
                count = min(self.batch_size, self.polite.samples - consumed)
                yield epoch, consumed, count
                consumed += count
            yield epoch, consumed, 0
            epoch, consumed = epoch + 1, 0

    def serve(self) -> None:
        try:
            while True:
                if self.connection.readable(0.0005) and not self._answer(self.connection.receive()):
                    return
                if not self.socket_only:
                    self._produce()
        finally:
            self.ring.close()
            for _, _, memory in self.given:
                memory.close()

    def _take_back(self) -> None:
        for given in list(self.given):
            slot, generation, memory = given
            if self.ring.released(slot) >= generation:
                memory.madvise(mmap.MADV_REMOVE)
                memory.close()
                self.given.remove(given)

    def _produce(self) -> None:
        self._take_back()
        while not self.halted and self.ring.free_slots() and self.ring.untaken() < self.ring.slots + 2:
            self._publish(*next(self.plan))

    def _publish(self, epoch: int, first: int, count: int) -> None:
        polite, ring = self.polite, self.ring
        if count == 0:
            ring.publish(KIND_END_OF_EPOCH, epoch=epoch, samples_consumed=first)
            return
        if polite.failures and first // self.batch_size == polite.fails_at:
            polite.failures -= 1
            self.halted = True
            text = {"code": "changed", "what": "photo.jpg changed", "where": "photo.jpg", "remedy": "put it back"}
            ring.publish(KIND_ERROR, json.dumps(text).encode(), epoch=epoch)
            return
        content = polite.batch(self.request, first, count)
        fields = {"rows": count, "epoch": epoch, "position": first, "samples_consumed": first + count}
        fields["source_bytes"] = count * (self.request.get("block_size", 8) + 1) * 2
        if first // self.batch_size in polite.oversized:
            fields["flags"] = FLAG_OVERSIZED
            self._send_oversized(ring.published + 1, content)
        ring.publish(KIND_BATCH, content, **fields)

    def _send_oversized(self, sequence: int, content: bytes) -> None:
        descriptor = os.memfd_create("fake-oversized", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, content)
            slot = self.ring.free_slots()[0]  # the one that publish takes
            self.given.append((slot, self.ring.generation[slot] + 1, mmap.mmap(descriptor, 0)))
            self.connection.send({"type": "oversized", "sequence": sequence, "bytes": len(content)}, [descriptor])
        finally:  # also if the client has gone
            os.close(descriptor)

    def _answer(self, request: Message) -> bool:
        self.polite.requests.append(request)
        kind = request["type"]
        if kind == "seek":
            for _ in range(self.polite.stale):
                if self.ring.free_slots():
                    self._publish(*next(self.plan))
            self.connection.send({"type": "seeked", "from_sequence": self.ring.published + 1})
            self.plan, self.halted = self._plan(request["epoch"], request["samples_consumed"]), False
        elif kind == "next":
            self._send_next()
        elif kind == "stats":
            self.connection.send({"type": "stats", "session": {"id": "s-1"}})
        else:
            self.connection.send({"type": "closed"})
            return False
        return True

    def _send_next(self) -> None:
        epoch, first, count = next(self.plan)
        content = self.polite.batch(self.request, first, count) if count else b""
        self.ring.published += 1
        kind = KIND_BATCH if count else KIND_END_OF_EPOCH
        entry = [self.ring.published, kind, NO_SLOT, 0, len(content), count, 0, epoch, first, first + count]
        packed = ENTRY_STRUCT.pack(*entry, *[0] * (len(_layout.ENTRY_FIELDS) - len(entry))) + content
        self.connection.send({"type": "batch", "entry_bytes": 128, "bytes": len(content)})
        for at in range(0, len(packed), 65536):
            self.connection.send(packed[at : at + 65536])
