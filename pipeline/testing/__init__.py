"""Testing processors in isolation: a bench, matchers, frame fixtures and audio material.

The pytest fixtures ``harness`` and ``virtual_clock`` come with the package. See `docs/guide/testing.md`.
"""

from .harness import Bench, BenchFailure, Harness

__all__ = ["Bench", "BenchFailure", "Harness"]
