"""What the state of a Dataset must agree on with the Dataset that loads it."""

from __future__ import annotations

from typing import Any, Final

from .errors import InvalidError

STATE_VERSION: Final = 1


def check_state(state: dict[str, Any], mine: dict[str, Any]) -> None:
    """Raise InvalidError if the positions of ``state`` mean other samples than those of ``mine``."""
    missing = [key for key in mine if key not in state and key != "seeding"]  # which is only there if it is not None
    if missing:
        raise InvalidError(f"the state lacks {', '.join(missing)}", "state", "pass what state_dict() returned")
    if state["v"] != STATE_VERSION:
        raise InvalidError(
            f"the state is of version {state['v']}, this release reads {STATE_VERSION}",
            "state",
            "use the release that wrote it",
        )
    padded = mine["order"] == "torch"  # the ranks' samples are those of one world size only
    free = "another batch_size" if padded else "another batch_size, rank or world_size"
    same = ("dataset", "order", "seed", "seeding", "window", "block_size", *(("world_size",) if padded else ()))
    known = tuple(key for key in ("index_id", "order_version") if mine[key] and state[key])
    for key in same + known:
        if state.get(key) != mine.get(key):
            raise InvalidError(
                f"the state was taken with {key}={state.get(key)!r}, this Dataset has {mine.get(key)!r}: "
                "its positions mean other samples",
                "state",
                f"make the Dataset with the same {key}; {free} is fine",
            )
