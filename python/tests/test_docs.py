"""What the documents say is true: code runs, and commands, links, fields and messages exist."""

from __future__ import annotations

import ast
import inspect
import io
import os
import random
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, Daemon, binary
from PIL import Image

import stoker

DOCS = REPOSITORY / "docs"
# Written by hand; the metrics, the HTTP reference and the manual pages are generated and tested where they are made.
DOCUMENTS = sorted(path for path in DOCS.glob("*.md") if path.name != "metrics.md")
RUNNABLE = [path for path in DOCUMENTS if re.search(r"^```\w+ run$", path.read_text(), re.MULTILINE)]
FLAGS_OF_OTHERS = {"--user", "--shm-size", "--ipc"}  # docker's

_BLOCK = re.compile(r"^```(\w+)( run)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE_SPAN = re.compile(r"`([^`\n]+)`")


def names(path: Path) -> str:
    return path.name


def blocks(document: Path, language: str, *, marked: bool = False) -> list[tuple[int, str]]:
    """The fenced blocks of a language, each with the number of its first line; only those that are run, if so asked."""
    text = document.read_text()
    return [
        (text[: found.start(3)].count("\n") + 1, found[3])
        for found in _BLOCK.finditer(text)
        if found[1] == language and (found[2] or not marked)
    ]


def spans(document: Path) -> list[str]:
    """What stands between single backquotes outside of fenced blocks."""
    return _CODE_SPAN.findall(_BLOCK.sub("", document.read_text()))


# Code.


def image(chance: random.Random) -> bytes:
    """A small JPEG of one colour."""
    content = io.BytesIO()
    Image.new("RGB", (32, 24), tuple(chance.randrange(256) for _ in range(3))).save(content, "JPEG")
    return content.getvalue()


def write_data(directory: Path) -> None:
    """What the documents call /data: shards, photos and text."""
    chance = random.Random(0)
    (directory / "shards").mkdir(parents=True)
    for shard in range(2):
        with tarfile.open(directory / "shards" / f"train-{shard:06}.tar", "w") as archive:
            for sample in range(20):
                for part, data in (("cls", b"%d" % (sample % 3)), ("jpg", image(chance)), ("txt", b"a caption")):
                    member = tarfile.TarInfo(f"{shard:03}{sample:03}.{part}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    for number in range(20):
        folder = directory / "photos" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(image(chance))
    (directory / "text").mkdir()
    (np.arange(65 * 40) % 1000).astype(np.uint16).tofile(directory / "text" / "train.bin")


@pytest.mark.parametrize("document", RUNNABLE, ids=names)
def test_marked_blocks_run(document: Path, daemon: Daemon, tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    shell = [
        (line, code.replace("/data/", f"{tmp_path}/data/")) for line, code in blocks(document, "bash", marked=True)
    ]
    for name, format in (("shards", "tar"), ("photos", "raw"), ("text", "tokens")):
        if not any(f"dataset add {name} " in code for _, code in shell):
            daemon.add(name, tmp_path / "data" / name, format=format)
    environment = {
        **os.environ,
        "STOKER_RUNTIME_DIR": str(daemon.runtime_dir),
        "PYTHONPATH": str(REPOSITORY / "python"),
        "PATH": f"{Path(binary('stoker')).parent}:{os.environ['PATH']}",
    }

    def run(line: int, *command: str) -> None:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, f"{document.name}:{line}\n{done.stdout}\n{done.stderr}"

    for line, code in shell:
        run(line, "bash", "-euo", "pipefail", "-c", code)
    python = blocks(document, "python", marked=True)
    # Empty lines before each block make the numbers of a traceback those of the document.
    program = ""
    for line, code in python:
        program += "\n" * (line - 1 - program.count("\n")) + code
    if python:
        run(python[0][0], sys.executable, "-W", "error", "-c", program)


@pytest.mark.parametrize("document", DOCUMENTS, ids=names)
def test_python_blocks_are_python(document: Path) -> None:
    for line, code in blocks(document, "python"):
        try:
            ast.parse(code)
        except SyntaxError as error:
            pytest.fail(f"{document.name}:{line}: {error}")


@pytest.mark.parametrize("document", DOCUMENTS, ids=names)
def test_names_of_the_package_exist(document: Path) -> None:
    for name in re.findall(r"\bstoker\.([A-Z]\w+|[a-z]+_\w+)", document.read_text()):
        assert hasattr(stoker, name), f"{document.name}: stoker.{name}"


def test_every_argument_of_a_dataset_is_described() -> None:
    text = (DOCS / "pytorch.md").read_text()
    table = text[text.index("## Arguments") : text.index("## Order and seeds")]
    described = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in _CODE_SPAN.findall(row)}
    assert described == set(inspect.signature(stoker.Dataset).parameters) - {"name"}


# Commands.


@cache
def help_of(*words: str) -> str:
    """What a program says of itself or of one of its commands."""
    done = subprocess.run([binary(words[0]), *words[1:], "--help"], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@cache
def commands_of(*words: str) -> frozenset[str]:
    listed = re.search(r"^Available Commands:\n((?:  .*\n)+)", help_of(*words), re.MULTILINE)
    topics = re.search(r"^Additional help topics:\n((?:  .*\n)+)", help_of(*words), re.MULTILINE)
    found = [line.split() for part in (listed, topics) if part for line in part[1].splitlines()]
    return frozenset(word for line in found for word in line[: 1 if line[0] != words[0] else len(words) + 1])


def check_command(line: str, where: str) -> None:
    """That a line which begins with one of our programs names a command and flags that it has."""
    words = line.partition(" #")[0].split()
    path = [words.pop(0)]
    if path == ["stoker"] and words[:1] == ["help"]:
        assert words[1] in commands_of("stoker"), f"{where}: {line!r}: no such command or topic"
        return
    while words and commands_of(*path):
        if words[0].startswith("-"):
            break
        takes_arguments = re.search(rf"^  {' '.join(path)} [A-Z]", help_of(*path), re.MULTILINE)
        if words[0] not in commands_of(*path) and takes_arguments:
            break
        word = words.pop(0)
        assert word in commands_of(*path), f"{where}: {line!r}: {' '.join(path)} has no command {word!r}"
        path.append(word)
    for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", " ".join(words)):
        assert re.search(rf"{flag}\b", help_of(*path)), f"{where}: {line!r}: {' '.join(path)} has no flag {flag}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=names)
def test_commands_and_flags_exist(document: Path) -> None:
    lines = [line for _, code in blocks(document, "bash") for line in code.splitlines()]
    lines += [span for span in spans(document) if span.startswith(("stoker ", "stokerd "))]
    for line in lines:
        if found := re.search(r"(?:^|\s)(stokerd? (?!=).*?)(?: &$|\)|$)", line):
            before = line[: found.start(1)].strip()
            if not before or before.startswith(("srun", "source")):
                check_command(found[1], document.name)
    programs = [("stokerd",), ("stoker",), *(("stoker", word) for word in commands_of("stoker"))]
    programs += [(*path, word) for path in programs[2:] for word in commands_of(*path)]
    everything = "".join(help_of(*path) for path in programs)
    for span in spans(document):
        if span.startswith("--"):
            flag = re.split(r"[ =]", span)[0]
            assert flag in FLAGS_OF_OTHERS or re.search(rf"{flag}\b", everything), f"{document.name}: {span}"


# Fields, metrics.


def configuration_fields() -> set[str]:
    """The dotted names of all fields of the example configuration."""
    found, section = set(), ""
    for line in (REPOSITORY / "deploy" / "stokerd.yaml").read_text().splitlines():
        if field := re.match(r"( *)(\w+):(.*)", line):
            section = "" if not field[1] else section
            found.add(section + field[2])
            if not field[1] and not field[3].strip():
                section = field[2] + "."
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=names)
def test_fields_of_the_configuration_exist(document: Path) -> None:
    fields = configuration_fields()
    sections = {field.partition(".")[0] for field in fields if "." in field}
    for span in spans(document):
        if (found := re.fullmatch(r"(\w+)\.(?!sock$)(\w+)(:.*)?", span)) and found[1] in sections:
            assert f"{found[1]}.{found[2]}" in fields, f"{document.name}: {span}"


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What a daemon exports that has a flash store."""
    root = tmp_path_factory.mktemp("metrics")
    config = root / "stokerd.yaml"
    config.write_text(f"flash:\n  devices:\n    - path: {root / 'flash'}\n      limit: 256MiB\n")
    daemon = Daemon(root).start("--config", str(config))
    yield daemon.get("/metrics")
    daemon.stop()


@pytest.mark.parametrize("document", DOCUMENTS, ids=names)
def test_metrics_exist(document: Path, metrics: str) -> None:
    for name in re.findall(r"\bstoker_(?:\w+_(?:total|bytes)|sessions|datasets)\b", document.read_text()):
        assert f"# TYPE {name} " in metrics, f"{document.name}: {name}"


# Links.


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub makes of a document's headings."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", _BLOCK.sub("", document.read_text()), re.MULTILINE):
        found.add(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-"))
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=names)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _BLOCK.sub("", document.read_text())):
        if re.match(r"https?:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (document.parent / file).resolve() if file else document
        assert path.exists(), f"{document.name}: {target}"
        if anchor:
            assert anchor in anchors(path), f"{document.name}: {target}"


# Keys.


def test_names_are_divided_into_keys_and_parts_as_the_table_says(daemon: Daemon, tmp_path: Path) -> None:
    text = (DOCS / "datasets-and-formats.md").read_text()
    table = text[text.index("| member | key | part |") : text.index("### Select and missing parts")]
    expected, members = {}, []
    for row in re.findall(r"^\| `.*", table, re.MULTILINE):
        name, key, part = row.strip("| ").split(" | ")
        members += _CODE_SPAN.findall(name) + _CODE_SPAN.findall(part if key == "none" else "")
        if key != "none":
            expected[key.strip("`")] = _CODE_SPAN.findall(part)[0]
    expected["a/__meta__/b"] = "json"  # what the last row says is kept
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "0.tar", "w") as archive:
        for member in members:
            archive.addfile(tarfile.TarInfo(member))
    daemon.add("names", tmp_path / "shards", format="tar")
    ds = daemon.dataset("names", batch_size=100, decode=False)
    batch = next(iter(ds))
    found = {key: [part for part in batch if batch.present(part)[row]] for row, key in enumerate(ds.keys(batch))}
    assert found == {key: [part] for key, part in expected.items()}


# Lint.


def lint_table() -> str:
    """The table of findings, as the Go sources have them: errors, then warnings, then notes."""
    source = (REPOSITORY / "loader" / "dataset" / "lint_codes.go").read_text()
    formats = {"all": "all", "tar": "tar", "raw": "raw", "tokens": "tokens"}
    rows = ["| code | severity | in | means |", "|---|---|---|---|"]
    text = r'"((?:[^"\\]|\\.)*)"'
    for found in re.finditer(
        rf"^\t\t\{{{text}, Severity(\w+), ([^{{]*?|\[\]string\{{.*?\}}), {text}, {text}\}},$", source, re.M
    ):
        code, severity, where, meaning = found[1], found[2].lower(), found[3], found[4].replace('\\"', '"')
        where = formats.get(where) or ", ".join(re.findall(r'"(\w+)"', where))
        meaning = re.sub(r"__\w+__", r"`\g<0>`", meaning)  # which Markdown would take for bold
        rows.append(f"| `{code}` | {severity} | {where} | {meaning.removesuffix('.')} |")
    assert len(rows) - 2 == source.count('\t\t{"'), "a row of the sources is written in another way than the others"
    return "\n".join(rows) + "\n"


def test_the_table_of_findings_is_that_of_the_sources() -> None:
    table = lint_table()
    assert table in (DOCS / "datasets-and-formats.md").read_text(), f"the table should be:\n\n{table}"


# Messages.


def literals() -> str:
    """The text of all sources that can say something to a user, with literals that are divided among lines joined."""
    text = []
    for folder in ("backend", "cmd", "loader", "shm", "python/stoker"):
        for path in sorted((REPOSITORY / folder).rglob("*")):
            if path.suffix in (".go", ".py") and not path.name.endswith("_test.go"):
                source = path.read_text()
                source = re.sub(r'["`]\s*\+\s*["`]', "", source)
                text.append(re.sub(r'"\s*\n\s*f?"', "", source))
    return "\n".join(text).replace('\\"', '"')


def test_messages_are_those_of_the_sources() -> None:
    said = literals()
    quoted = re.findall(r"^### (.*)$", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(quoted) > 40
    for message in quoted:
        for part in message.split("…"):
            fragment = part.strip(" :,")
            assert not fragment or fragment in said, f"no source says {fragment!r}"


def test_causes_of_stalls_are_those_that_are_measured() -> None:
    text = (DOCS / "pytorch.md").read_text()
    table = text[text.index("## Stalls") : text.index("## Coming from")]
    from stoker.stats import CAUSES

    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(CAUSES)


def test_every_example_is_in_the_index() -> None:
    listed = re.findall(r"\]\(examples/(\w+\.py)\)", (DOCS / "README.md").read_text())
    assert sorted(listed) == sorted(path.name for path in (DOCS / "examples").glob("*.py"))
