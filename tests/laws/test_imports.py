"""Laws 1 and 2: who may know whom, and no circles."""

from __future__ import annotations

import ast

from voxline.tests.laws.source import ROOT, imports, modules

WINGS = ("processors", "transports")


def wing(name: str) -> str:
    """Which of the three folders a module belongs to."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "voxline" else ""


def test_the_ground_knows_neither_wing_and_the_wings_do_not_know_each_other() -> None:
    broken: list[str] = []
    for module in modules().values():
        for name, node in imports(module):
            ours, theirs = wing(module.name), wing(name)
            if theirs in WINGS and ours != theirs and ours != "cli":
                broken.append(f"{module.line(node)} imports {name}")
            if theirs == "cli" or (theirs == "tests" and ours):
                broken.append(f"{module.line(node)} imports {name}")
    assert not broken, "\n".join(broken)


def test_imports_inside_of_the_package_are_relative_and_from_the_file() -> None:
    """`from ..pipeline import X` runs a folder's face, which may import half of the package, and makes circles."""
    broken: list[str] = []
    known = modules()
    for module in known.values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "voxline" for alias in node.names):
                broken.append(f"{module.line(node)}: write a relative import")
            if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "voxline":
                broken.append(f"{module.line(node)}: write a relative import")
        for name, node in imports(module):
            if name in known and known[name].is_package and name != module.name:
                broken.append(f"{module.line(node)}: import from the file, not from {name}")
    assert not broken, "\n".join(broken)


def test_no_import_circle_at_any_depth() -> None:
    """Imports inside of functions count: they are the usual way to hide one."""
    known = modules()
    graph = {
        name: sorted({other for other, _ in imports(module) if other in known} - {name})
        for name, module in known.items()
    }
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            raise AssertionError("a circle: " + " -> ".join([*path[path.index(name) :], name]))
        if name not in done:
            for other in graph[name]:
                visit(other, [*path, name])
            done.add(name)

    for name in graph:
        visit(name, [])
    assert len(done) > 30


def test_nothing_is_imported_for_the_type_checker_only() -> None:
    """In `testing/`, where pytest may be missing, a fixture's types may be."""
    broken = [module.path for module in modules().values() if "TYPE_CHECKING" in module.text]
    assert broken == []


def test_tests_and_examples_write_voxline_in_front() -> None:
    """`import pipeline` from the root would load a second copy of everything."""
    broken: list[str] = []
    for folder in ("tests", "examples", "benchmarks"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                names: list[str] = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module or ""]
                broken += [f"{file}: {name}" for name in names if name.split(".")[0] in ("pipeline", *WINGS)]
    assert broken == []


FLOORS = (
    ("service", "subprocess", "text", "session"),
    ("audio", "stt", "tools", "tts", "turn_detection", "vad"),
    ("llm",),
    ("fallback", "openai"),
    ("contracts", "conversation_pipeline", "testing"),
)
"""Folders of `processors/`, the lowest first. A folder imports lower folders only, so none of its own floor."""
BESIDE_SESSION = ("conversation_pipeline", "testing")
"""The session talks to services by frames alone. Only these two folders may import it."""


def test_the_folders_of_processors_import_lower_floors_only() -> None:
    floor_of = {folder: floor for floor, folders in enumerate(FLOORS) for folder in folders}
    broken: list[str] = []
    seen: set[str] = set()
    for module in modules().values():
        folder = processors_folder(module.name)
        if not folder:
            continue
        seen.add(folder)
        for name, node in imports(module):
            other = processors_folder(name)
            if not other or other == folder:
                continue
            if floor_of[folder] <= floor_of[other] or (other == "session" and folder not in BESIDE_SESSION):
                broken.append(f"{module.line(node)} imports {name}")
    assert seen == set(floor_of)
    assert not broken, "\n".join(broken)


def processors_folder(name: str) -> str:
    """Folder (or module) right below `processors/`; empty for other modules and for `processors` itself."""
    parts = name.split(".")
    return parts[2] if parts[:2] == ["voxline", "processors"] and len(parts) > 2 else ""


ENGINE = "voxline.pipeline.engine"
USES_THE_ENGINE = ("worker", "runner", "recording", "testing", "engine")
"""In `pipeline/`, the modules and folders that stand over the engine, and the engine itself."""


def test_the_engine_is_private_and_the_arrow_goes_from_the_worker_to_it() -> None:
    """The ground lies under the engine; worker, runner, recording and testing stand over it; nobody else sees it."""
    broken: list[str] = []
    uses = 0
    for module in modules().values():
        parts = module.name.split(".")
        allowed = parts[1:2] == ["pipeline"] and parts[2:3] and parts[2] in USES_THE_ENGINE
        for name, node in imports(module):
            if name == ENGINE or name.startswith(f"{ENGINE}."):
                uses += 1
                if not allowed:
                    broken.append(f"{module.line(node)} imports {name}")
            elif parts[2:3] == ["engine"] and name.startswith("voxline.pipeline.") and name.split(".")[2] in (
                "worker", "runner", "recording", "testing",
            ):  # fmt: skip
                broken.append(f"{module.line(node)}: the engine imports {name}, which stands over it")
    assert not broken, "\n".join(broken)
    assert uses > 5
