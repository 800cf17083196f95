"""Law 5: every queue has a bound and a declared policy at the bound.

Checked mechanically: where a ``deque`` or a queue of asyncio or of threads is made, it has a ``maxlen`` or a size
there, or a comment ``# bound: ...`` on that line or the one above it that says how many, and what happens then. (Lists
that serve as queues are not found.) `tests/pipeline/engine/test_bounds.py` overflows each of the engine's.
"""

from __future__ import annotations

import ast

from voxline.tests.laws.source import Module, modules, uses

QUEUES = {
    "collections.deque", "queue.Queue", "queue.SimpleQueue", "queue.LifoQueue", "queue.PriorityQueue",
    "asyncio.Queue", "asyncio.LifoQueue", "asyncio.PriorityQueue", "multiprocessing.Queue",
}  # fmt: skip
MEANS_NO_BOUND = {"queue.SimpleQueue"}


def bounded(call: ast.Call, kind: str) -> bool:
    """Whether the bound stands in the call."""
    if kind in MEANS_NO_BOUND:
        return False
    sizes = [keyword.value for keyword in call.keywords if keyword.arg in ("maxlen", "maxsize")]
    positional = call.args[1:2] if kind.endswith("deque") else call.args[:1]
    return any(not (isinstance(size, ast.Constant) and not size.value) for size in [*sizes, *positional])


def commented(module: Module, call: ast.Call) -> bool:
    """Whether a comment says the bound and the policy."""
    lines = module.text.splitlines()
    near = lines[max(0, call.lineno - 2) : (call.end_lineno or call.lineno)]
    return any("# bound:" in line and len(line.split("# bound:")[1].split()) >= 3 for line in near)


def test_every_queue_says_its_bound_and_what_happens_there() -> None:
    broken: list[str] = []
    found = 0
    for module in modules().values():
        calls = {id(node.func): node for node in ast.walk(module.tree) if isinstance(node, ast.Call)}
        for name, node in uses(module):
            call = calls.get(id(node))
            if name in QUEUES and call is not None:
                found += 1
                if not bounded(call, name) and not commented(module, call):
                    broken.append(
                        f"{module.line(node)}: {name}() without a bound. Give it a maxlen, or say in a comment above "
                        "it `# bound: <how many>, <what happens then>`"
                    )
    assert not broken, "\n".join(broken)
    assert found > 5
