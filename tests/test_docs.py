"""Every ```python block of the README and of docs/ runs, on its own, and prints what the page says it prints.

A block is a script: it is run as one, in a folder of its own with `examples/` in it. Functions named ``test_...`` are
run too, with the fixtures of the pytest plugin. A block marked ```python no-run is only compiled. A ```text block that
comes right after a block is what it prints, line by line.
"""

import asyncio
import inspect
import linecache
import re
import sys
import types
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from voxline.pipeline import VirtualClock
from voxline.pipeline.testing import Harness
from voxline.tests.places import ROOT

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)|!\[[^\]]*\]\((?P<image>[^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A block of Python on a page. ``line`` is that of its first line."""

    page: Path
    line: int
    code: str
    runs: bool
    prints: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        fences = list(FENCE.finditer(text))
        for number, fence in enumerate(fences):
            info = fence["info"].split()
            if info[:1] == ["python"]:
                after = fences[number + 1] if number + 1 < len(fences) else None
                follows = (
                    after is not None and after["info"] == "text" and not text[fence.end() : after.start()].strip()
                )
                line = text.count("\n", 0, fence.start("text")) + 1
                prints = after["text"] if after is not None and follows else None
                yield Block(page, line, fence["text"], "no-run" not in info, prints)


BLOCKS = list(blocks())


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_runs_and_prints_what_the_page_says(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # As many empty lines before it as the page has, so that a traceback shows the line of the page.
    code = compile("\n" * (block.line - 1) + block.code, str(block.page), "exec")
    linecache.checkcache(str(block.page))
    if not block.runs:
        return
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType(f"block_{BLOCKS.index(block)}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(code, vars(module))
    for name, test in list(vars(module).items()):
        if name.startswith("test_"):
            asyncio.run(_run(test, tmp_path))
    if block.prints is not None:
        assert capsys.readouterr().out.splitlines() == block.prints.splitlines()


async def _run(test: Callable[..., Coroutine[Any, Any, None]], tmp_path: Path) -> None:
    """Run a test of a page, with the plugin's fixtures."""
    async with Harness() as harness:
        fixtures = {"harness": harness, "virtual_clock": VirtualClock(), "tmp_path": tmp_path}
        await test(**{name: fixtures[name] for name in inspect.signature(test).parameters})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_links_to_is_there(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    missing: list[str] = []
    for link in LINK.finditer(text):
        target = link["target"] or link["image"]
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in _anchors(file)):
            missing.append(target)
    assert not missing


def _anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub makes them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
