"""What the tests in a browser share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from voxline.tests.browser.chromium import Page, chromium, chromium_path

Browser = Callable[..., Awaitable[Page]]


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Starts headless Chromium: ``page = await browser(microphone=wav)``; see `chromium`. Each call is one more."""
    if chromium_path() is None:
        pytest.skip("needs Chromium: apt-get install chromium, or set VOXLINE_CHROMIUM to its path")
    async with AsyncExitStack() as stack:

        async def start(**options: object) -> Page:
            return await stack.enter_async_context(chromium(**options))  # type: ignore[arg-type]

        yield start
