"""The laws parse all of the package, once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from voxline.tests.laws.source import modules


@pytest.fixture(scope="package", autouse=True)
def forgotten_after() -> Iterator[None]:
    """A third of a million nodes: the garbage collections of all the tests to come would go through them."""
    yield
    modules.cache_clear()
