"""The rest of the house: what is packaged is what is there, files stay readable, and nothing is forgotten in them."""

from __future__ import annotations

import ast
import tomllib

from voxline.tests.laws.source import FOLDERS, ROOT, modules

LONG = 600
"""Lines from which a file says in its docstring why it is one thing, in a sentence with "one file"."""
FUNCTION_LINES = 60


def test_the_packages_that_are_shipped_are_those_on_disk() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    on_disk = ["voxline"]
    for folder in FOLDERS:
        faces = sorted((ROOT / folder).rglob("__init__.py"))
        on_disk += [".".join(["voxline", *file.parent.relative_to(ROOT).parts]) for file in faces]
    assert sorted(config["packages"]) == sorted(on_disk)
    assert config["package-dir"] == {"voxline": "."}
    for folder in FOLDERS:
        assert "py.typed" in config["package-data"][f"voxline.{folder}"]
        assert (ROOT / folder / "py.typed").exists()
        # A folder with modules and without a face would not be shipped.
        for file in (ROOT / folder).rglob("*.py"):
            assert (file.parent / "__init__.py").exists(), file


def test_only_two_modules_stand_at_the_root() -> None:
    assert sorted(file.name for file in ROOT.glob("*.py")) == ["__init__.py", "cli.py"]
    body = modules()["voxline"].tree.body
    assert len(body) == 1, "the root's __init__ is imported a second time by pytest: one docstring line, nothing else"
    assert isinstance(body[0], ast.Expr)


def test_a_long_file_says_why_it_is_one_thing() -> None:
    silent = [
        module.path
        for module in modules().values()
        if len(module.text.splitlines()) > LONG and "one file" not in (ast.get_docstring(module.tree) or "")
    ]
    assert silent == []


def test_no_function_is_longer_than_a_screen() -> None:
    too_long = [
        f"{module.line(node)} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for module in modules().values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES
    ]
    assert too_long == []


def test_every_module_says_what_it_is_for() -> None:
    written = [module for module in modules().values() if module.text.strip()]
    assert [module.path for module in written if not ast.get_docstring(module.tree)] == []
