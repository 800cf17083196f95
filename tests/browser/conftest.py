"""What the tests in a browser share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from voxline.tests.browser.chromium import Page, chromium
from voxline.tests.needs import need

Browser = Callable[..., Awaitable[Page]]


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Starts headless Chromium: ``page = await browser(microphone=wav)``; see `chromium`. Each call is one more."""
    need("chromium")
    async with AsyncExitStack() as stack:

        async def start(**options: object) -> Page:
            return await stack.enter_async_context(chromium(**options))  # type: ignore[arg-type]

        yield start
