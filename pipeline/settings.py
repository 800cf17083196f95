"""Explain a pydantic `ValidationError` in one sentence. Every settings model of this package uses `explain`.

This module does not import pydantic: the error and the model are read by their attributes, and `import
voxline.pipeline` stays light.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, get_args

PREFIXES = ("Value error, ", "Input ", "String ")
"""Beginnings of pydantic's messages that the sentence replaces."""


def explain(error: Any, model: Any = None, *, whole: str = "settings", values: bool = True) -> str:
    """Return every problem of a `ValidationError`, joined by "; ", without a full stop.

    ``model``: the settings class, whose fields are listed for an unknown name. ``whole``: name of the complete input.
    ``values``: show invalid values; not for input that contains words of a conversation. Example: "idle_timeout_s is
    -5, and should be greater than 0; unknown setting greting (did you mean greeting?); the settings are apology, ...".
    """
    return "; ".join(_sentence(problem, model, whole, values=values) for problem in error.errors(include_url=False))


def _sentence(problem: Any, model: Any, whole: str, *, values: bool) -> str:
    where = problem["loc"]
    field = ".".join(map(str, where)) or whole
    if problem["type"] == "extra_forbidden":
        return f"unknown setting {field}{_allowed(model, where)}"
    if problem["type"] == "missing":
        return f"{field} is missing, and is needed"
    message = str(problem["msg"]).rstrip(".")
    for prefix in PREFIXES:
        message = message.removeprefix(prefix)
    if not message.startswith("should "):
        # A validator's own sentence, or a message about the input's syntax.
        return f"{field}: {message}" if where or problem["type"] != "value_error" else message
    return f"{field} is {problem['input']!r}, and {message}" if values else f"{field} {message}"


def _allowed(model: Any, where: tuple[int | str, ...]) -> str:
    for name in where[:-1]:
        if isinstance(name, str) and model is not None:
            model = next(_models(model.model_fields[name].annotation), None)
    if model is None:
        return ""
    names = sorted(model.model_fields)
    meant = get_close_matches(str(where[-1]), names, n=1)
    hint = f" (did you mean {meant[0]}?)" if meant else ""
    return f"{hint}; the settings are {', '.join(names)}"


def _models(annotation: Any) -> Iterator[Any]:
    """Yield the models in a type, such as `IdleStep` in ``tuple[IdleStep, ...]``."""
    if hasattr(annotation, "model_fields"):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
