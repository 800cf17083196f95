"""Testing processors in isolation: a bench, matchers, frame fixtures and audio material.

The pytest fixtures ``harness`` and ``virtual_clock`` come with the package. See `docs/guide/testing.md`.
"""

from .failures import BenchFailure, ContractFailure
from .fixtures import Expect, Fixture, Interrupt, Output, Send, cut
from .harness import Bench, Harness
from .matchers import any_, approx, contains, eventually, frame, in_order, matches, nothing_else, one_of

__all__ = [
    "Bench",
    "BenchFailure",
    "ContractFailure",
    "Expect",
    "Fixture",
    "Harness",
    "Interrupt",
    "Output",
    "Send",
    "any_",
    "approx",
    "contains",
    "cut",
    "eventually",
    "frame",
    "in_order",
    "matches",
    "nothing_else",
    "one_of",
]
