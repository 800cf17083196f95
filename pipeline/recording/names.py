"""Names of frame classes in lines of JSON. Every frame class that has been imported is known."""

from __future__ import annotations

import dataclasses
from weakref import WeakKeyDictionary, WeakValueDictionary

from ..errors import RecordingError
from ..frames import Frame


def _classes() -> dict[str, list[type[Frame]]]:
    """Return all imported frame classes, by name. After a second definition of a class the newest counts."""
    found: dict[tuple[str, str], type[Frame]] = {}
    todo: list[type[Frame]] = [Frame]
    while todo:
        for cls in todo.pop().__subclasses__():
            found[cls.__module__, cls.__qualname__] = cls
            todo.append(cls)
    by_name: dict[str, list[type[Frame]]] = {}
    for cls in found.values():
        if dataclasses.is_dataclass(cls):
            by_name.setdefault(cls.__name__, []).append(cls)
    return by_name


_names: WeakKeyDictionary[type[Frame], str] = WeakKeyDictionary()
_found: WeakValueDictionary[str, type[Frame]] = WeakValueDictionary()


def forget_names() -> None:
    """Clear the caches: classes may have been defined since. Called when a file is opened."""
    _names.clear()
    _found.clear()


def name_of(cls: type[Frame]) -> str:
    """Return the name of a class of frames in a line: the class name, or the full name if two classes share it."""
    name = _names.get(cls)
    if name is None:
        alone = len(_classes().get(cls.__name__, ())) <= 1
        name = _names[cls] = cls.__name__ if alone else _full_name(cls)
    return name


def _full_name(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def frame_class(name: str) -> type[Frame]:
    """Return the frame class with a name. Raises `RecordingError` for none, or more than one."""
    known = _found.get(name)
    if known is not None:
        return known
    classes = _classes()
    found = [
        cls
        for cls in classes.get(name.rpartition(":")[2].rpartition(".")[2], ())
        if name in (cls.__name__, _full_name(cls))
    ]
    if len(found) == 1:
        _found[name] = found[0]
        return found[0]
    if found:
        names = " or ".join(sorted(_full_name(cls) for cls in found))
        raise RecordingError(f"{name} is the name of {len(found)} classes of frames; write which: {names}")
    raise RecordingError(
        f"there is no class of frames {name!r}. If it is your own, import the module that defines it before reading. "
        f"Known are: {', '.join(sorted(classes))}"
    )
