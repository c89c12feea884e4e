"""Looking for what would break training on a dataset, or slow it down."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .catalog import Progress, long_request, progress_notes, read_record, whole_text
from .errors import InvalidError


@dataclass(frozen=True)
class Finding:
    """One thing that a lint found.

    Attributes
    ----------
    severity : "error", "warning" or "note"
        It makes adding the dataset or training on it fail; it slows training or
        surprises; it is good to know.
    code : str
        What it is, in a word that does not change between releases.
    file : str
        Where, as a path in the dataset. Bytes that are no UTF-8 are lone surrogates,
        as in Python's own names of files; in ``key`` as well.
    offset : int
        At which byte of the file; -1: the whole file.
    key : str
        Of which sample; empty if it is about none.
    what, remedy : str
        What was found, and what to do about it.
    """

    severity: str
    code: str
    file: str
    offset: int = -1
    key: str = ""
    what: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class LintSummary:
    """What a lint found in all.

    Attributes
    ----------
    format : str
        What the files were read as.
    files, samples, bytes : int
        What was looked at.
    findings : dict of str to int
        How often each code was found.
    errors, warnings, notes : int
        How often each severity was.
    listed : tuple of Finding
        The findings themselves, in the order they were found; empty if ``visit`` took them.
    """

    format: str = ""
    files: int = 0
    samples: int = 0
    bytes: int = 0
    findings: dict[str, int] = field(default_factory=dict)
    errors: int = 0
    warnings: int = 0
    notes: int = 0
    listed: tuple[Finding, ...] = ()


def lint_dataset(
    name: str | None = None,
    directory: str | os.PathLike[str] | None = None,
    *,
    format: str = "auto",
    include: Sequence[str] = (),
    dtype: str = "uint16",
    visit: Callable[[Finding], None] | None = None,
    progress: Callable[[Progress], None] | None = None,
    runtime_dir: str | os.PathLike[str] | None = None,
) -> LintSummary:
    """Look for what would break training, or slow it down.

    Parameters
    ----------
    name : str, optional
        A dataset that was added, or
    directory : path, optional
        a directory that need not have been: one of the two.
    format, include, dtype
        Of a directory, as for :func:`stoker.add_dataset`.
    visit : callable, optional
        Called with each :class:`Finding` as it is found; without it they are all in
        ``listed`` of the result.
    progress : callable, optional
        Called with a :class:`stoker.Progress` now and then.

    Raises
    ------
    StokerError
        Among others InvalidError (name and directory, or neither), NotFoundError.
    """
    if (name is None) == (directory is None):
        raise InvalidError(
            "lint_dataset looks at a dataset by its name, or at a directory",
            "lint_dataset",
            "pass one of name= and directory=",
        )
    request: dict[str, Any] = {"type": "dataset_lint"}
    if directory is None:
        request["name"] = name
    else:
        patterns = [include] if isinstance(include, str) else list(include)
        request.update(format=format, include=patterns, dtype=dtype)
    listed: list[Finding] = []
    found = visit or listed.append

    def findings(note: dict[str, Any]) -> None:
        for described in note.get("findings") or ():
            finding = read_record(Finding, described)
            found(replace(finding, file=whole_text(described, "file"), key=whole_text(described, "key")))

    notes = {**progress_notes(progress), "findings": findings}
    answer = long_request(request, "lint", directory, notes, runtime_dir)
    return replace(read_record(LintSummary, answer.get("summary")), listed=tuple(listed))
