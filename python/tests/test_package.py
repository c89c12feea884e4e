"""The package as such: what importing it does, its types, its documentation."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

import stoker

PACKAGE = Path(stoker.__file__).parent
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")
USER_CODE = """
from __future__ import annotations
import stoker
from typing import Any

ds = stoker.Dataset("n", batch_size=4, shuffle=True)
for batch in ds:
    reveal_type(batch)
    reveal_type(batch.epoch)
    reveal_type(batch.waited.causes)
reveal_type(ds.stats().worst[0].seconds)
reveal_type(ds[0].key)
reveal_type(len(ds))
state: dict[str, Any] = ds.state_dict()
ds.load_state_dict(state)
info: stoker.DatasetInfo = stoker.add_dataset("n", "/data", progress=lambda progress: print(progress.files_done))
reveal_type(info.classes)
reveal_type(ds.keys([1, 2]))
reveal_type(stoker.lint_dataset("n").listed[0].offset)
reveal_type(stoker.rebuild_dataset("n").parts[0].max_bytes)
reveal_type(ds.stats().transform_failures[0].key)
def transform(sample: stoker.Sample) -> Any:
    return sample["jpg"] if sample.key else stoker.SKIP
stoker.Dataset("n", batch_size=4, select={"image": "jpg;png"}, transform=transform, on_error=lambda e, key, i: key)
stoker.Dataset("n", batch_size=4, select=["jpg"], batch_transform=lambda batch: batch.present("jpg"), on_error="skip")
ds.set_epoch("one")
stoker.Dataset("n", batch_size=4, shufle=True)
"""


def run(program: str, *arguments: str) -> str:
    environment = {"PYTHONPATH": str(PACKAGE.parent), "PATH": "/usr/bin"}
    done = subprocess.run([sys.executable, *arguments, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_does_not_import_torch() -> None:
    assert run("import stoker, sys; print('torch' in sys.modules)", "-W", "error") == "False\n"


def test_the_types_are_shipped_and_are_what_users_see(tmp_path: Path) -> None:
    assert (PACKAGE / "py.typed").exists()
    (tmp_path / "user.py").write_text(USER_CODE)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(tmp_path), "user.py"],
        env={"MYPYPATH": str(REPOSITORY / "python"), "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("user.py")]
    types = [line.split('"')[1] for line in found if "Revealed type" in line]
    assert [name.replace("builtins.", "") for name in types] == [
        "stoker.batch.Batch",
        "int",
        "dict[str, float]",
        "float",
        "str",
        "int",
        "tuple[str, ...]",
        "list[str]",
        "int",
        "int",
        "str",
    ], done.stdout
    errors = [line for line in found if "error:" in line]
    assert len(errors) == 2, errors
    assert 'incompatible type "str"; expected "int"' in errors[0]
    assert 'Unexpected keyword argument "shufle"' in errors[1]


def test_everything_that_is_exported_exists_and_is_documented() -> None:
    for name in stoker.__all__:
        exported = getattr(stoker, name)
        assert name.startswith("__") or exported.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'Datasets'"):
        stoker.Datasets  # noqa: B018


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_documented_and_short_enough_to_read(module: str) -> None:
    imported = importlib.import_module(f"stoker.{module}")
    assert imported.__doc__
    text = (PACKAGE / f"{module}.py").read_text()
    assert len(text.splitlines()) < 420
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and not isinstance(node.body[0], ast.Expr):
            assert (node.end_lineno or 0) - node.body[0].lineno < 60, f"{module}.{node.name} is long"


def test_the_environment_is_read_in_one_module_only() -> None:
    readers = [path.stem for path in PACKAGE.glob("*.py") if "os.environ" in path.read_text()]
    assert readers == ["_places"]


def test_numpy_is_the_only_requirement() -> None:
    found = set()
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module.split(".")[0])
    assert found - set(sys.stdlib_module_names) == {"numpy", "torch"}
