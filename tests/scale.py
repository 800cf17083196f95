"""Numbers of random examples: fewer in `make test`, which runs after each change, more in `make test-long`."""

from __future__ import annotations

import os

LONG = os.environ.get("VOXLINE_LONG", "") not in ("", "0")
"""Set by `make test-long`."""


def examples(long: int, short: int | None = None) -> int:
    """Return ``long`` in `make test-long`; otherwise ``short``, by default a quarter of it."""
    return long if LONG else short if short is not None else max(1, long // 4)
