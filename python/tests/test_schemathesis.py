"""The HTTP API under schemathesis, which makes requests from its own description.

Every check that schemathesis has is on, on a real daemon over TCP, with and without a
token. The seed is fixed: a failure comes back when the test is run again.
"""

from __future__ import annotations

import http.client
import io
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Daemon, binary, eventually, write_raw, write_tokens

import stoker

TOKEN = "t0ken-of-this-test"
SEED = "20261122"

# What a dataset holds, no schema of requests says: a hint may be of what it has not.
CONFIGURATION = """
[[operations]]
include-name = "POST /v1/hints"
checks.positive_data_acceptance.expected-statuses = [201, 400, 401, 403, 404, 409, 429]
"""

# Requests per operation in the fuzzing phase, and seconds for all phases of one run.
EXAMPLES, SECONDS = "40", 90


class TCPDaemon(Daemon):
    """A daemon that also listens on TCP, at a port the kernel chooses."""

    def __init__(self, root: Path, token: str = "") -> None:
        super().__init__(root)
        self.token = token

    def start(self, *more: str) -> TCPDaemon:
        """Start it and wait until it has said its port."""
        # Fuzzing is no peer that asks at a sensible rate.
        settings: dict[str, Any] = {"listen": "127.0.0.1:0", "requests_per_second": 1_000_000}
        if self.token:
            secret = self.root / "token"
            secret.touch(0o600)
            secret.write_text(self.token)
            settings["token_file"] = str(secret)
        configuration = self.root / "stokerd.yaml"
        configuration.write_text(json.dumps({"api": settings}))  # JSON is YAML
        arguments = ["--runtime-dir", str(self.runtime_dir), "--data-dir", str(self.data_dir), *more]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [binary("stokerd"), "--config", str(configuration), *arguments], stderr=log, stdout=log
            )
        if not eventually(lambda: self._listens() and self._port() is not None, 20):
            raise RuntimeError(f"stokerd does not listen; its log:\n{self.log.read_text()}")
        return self

    def _port(self) -> int | None:
        found = re.search(r"msg=ready .*\btcp=127\.0\.0\.1:(\d+)", self.log.read_text())
        return int(found[1]) if found else None

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self._port()}"

    def status(self, method: str, path: str, **headers: str) -> int:
        """The status that a request over TCP is answered with."""
        connection = http.client.HTTPConnection(self.address, timeout=20)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()


def write_shard(directory: Path) -> Path:
    """A tar archive of three samples, one of which lacks a part."""
    directory.mkdir()
    with tarfile.open(directory / "000.tar", "w") as shard:
        for name in ("a.txt", "a.cls", "b.txt", "b.cls", "c.txt"):
            member = tarfile.TarInfo(name)
            member.size = 1
            shard.addfile(member, io.BytesIO(b"7"))
    return directory


@pytest.fixture(params=["", TOKEN], ids=["without a token", "with a token"])
def tcp_daemon(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TCPDaemon]:
    """A daemon with the dataset, the session and the hint that the description's examples name."""
    daemon = TCPDaemon(tmp_path, request.param).start()
    try:
        daemon.add("pets", write_raw(tmp_path / "pets", 20), format="raw")
        daemon.add("tokens", write_tokens(tmp_path / "tokens", 20, 8))
        daemon.add("shards", write_shard(tmp_path / "shards"), format="tar")
        pets = daemon.dataset("pets", batch_size=4)
        next(iter(pets))
        assert [session["id"] for session in daemon.sessions()] == ["s-1"]
        with stoker.hint("pets", indices=[1, 2, 3], runtime_dir=daemon.runtime_dir) as hint:
            assert hint.id == "h-1"
            yield daemon
        pets.close()
    finally:
        daemon.stop()


def description_of(daemon: TCPDaemon) -> dict[str, Any]:
    """The document that the daemon serves, made exact for one door.

    Objects are closed: what an answer holds besides the described fields is a failure here,
    though a client must let it pass. Where a token is asked for it is asked for everywhere,
    which the document, made for all doors, can not say.
    """
    document: dict[str, Any] = daemon.get("/v1/openapi.json")
    for schema in document["components"]["schemas"].values():
        if schema["type"] == "object":
            schema["additionalProperties"] = False
    document["security"] = [{"token": []}] if daemon.token else []
    del document["paths"]["/v1/trace"]  # it answers for as long as it is listened to; Go tests hold it
    return document


def statuses(report: Path) -> dict[str, set[int]]:
    """The statuses that each operation was answered with."""
    found: dict[str, set[int]] = {}
    with report.open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            recorder = json.loads(line).get("ScenarioFinished", {}).get("recorder", {})
            for interaction in recorder.get("interactions", {}).values():
                found.setdefault(recorder["label"], set()).add(interaction["response"]["status_code"])
    return found


def test_the_api_answers_whatever_it_is_asked_as_it_is_described(tcp_daemon: TCPDaemon, tmp_path: Path) -> None:
    document = description_of(tcp_daemon)
    described, report = tmp_path / "openapi.json", tmp_path / "events.ndjson"
    described.write_text(json.dumps(document))
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    authorization = ["--header", f"Authorization:Bearer {TOKEN}"] if tcp_daemon.token else []
    run = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", str(described)),
            *("--url", f"http://{tcp_daemon.address}", "--checks", "all"),
            *("--mode", "all", "--seed", SEED, "--max-examples", EXAMPLES, "--request-timeout", "20"),
            *("--report", "ndjson", "--report-ndjson-path", str(report), "--no-color", *authorization),
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    refused = 409 if tcp_daemon.token else 403  # a session has it open; without a token TCP only reads
    answered = statuses(report)
    for path, methods in document["paths"].items():
        if "get" in methods:
            assert 200 in answered[f"GET {path}"], path
        assert any(405 in answered[f"{method.upper()} {path}"] for method in methods), path
        if "delete" in methods:
            assert answered[f"DELETE {path}"] & {204, refused}, path
    assert refused in answered["DELETE /v1/datasets/{name}"]
    assert (201 if tcp_daemon.token else 403) in answered["POST /v1/hints"]
    assert tcp_daemon.get("/healthz") == '{"status":"ok"}\n'
    assert "panicked" not in tcp_daemon.log.read_text()


def test_the_token_decides(tcp_daemon: TCPDaemon) -> None:
    for authorization, right in {"": False, f"Bearer {TOKEN}": True, "Bearer wrong": False}.items():
        status = 200 if right or not tcp_daemon.token else 401
        assert tcp_daemon.status("GET", "/v1/version", Authorization=authorization) == status
    change = tcp_daemon.status("DELETE", "/v1/datasets/pets", Authorization=f"Bearer {TOKEN}")
    assert change == (409 if tcp_daemon.token else 403)  # a session has it open; without a token TCP only reads


def test_the_served_description_can_be_used_as_it_is(tcp_daemon: TCPDaemon) -> None:
    import schemathesis

    headers = {"Authorization": f"Bearer {TOKEN}"} if tcp_daemon.token else {}
    schema = schemathesis.openapi.from_url(f"http://{tcp_daemon.address}/v1/openapi.json", headers=headers)
    for path, methods in tcp_daemon.get("/v1/openapi.json")["paths"].items():
        method = next(name for name in ("get", "post") if name in methods)
        assert schema[path][method.upper()].path == path
