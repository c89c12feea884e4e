"""Names and texts that others wrote, for messages: a terminal must not obey them.

Keys, files and parts are named in archives by anybody, and may hold escape
sequences, line ends, or bytes that are no text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_LONGEST: Final = 500  # characters of one name


def shown(name: str) -> str:
    """A name as it is if all of it can be printed, else escaped as ``repr`` does; a very long one is cut."""
    if len(name) > _LONGEST:
        name = f"{name[:_LONGEST]}..."
    return name if name.isprintable() else repr(name)[1:-1]


def shown_names(names: Iterable[str]) -> str:
    """A list of names; a very long one is cut."""
    text = ", ".join(shown(str(name)) for name in names)
    return text if len(text) <= 2 * _LONGEST else f"{text[: 2 * _LONGEST]}..."


def shown_text(text: str) -> str:
    """A text with what cannot be printed escaped, but for ends of lines."""
    if text.isprintable():
        return text
    return "".join(c if c == "\n" or c.isprintable() else repr(c)[1:-1] for c in text)
