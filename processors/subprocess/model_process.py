"""A model that the user brings, in a process of its own: what such services have in common.

    model = ModelProcess("PiperTTS", "voxline.processors.tts.piper_child", sleep=clock.sleep)
    facts = await model.start("voices/en.onnx", {"threads": 2})
    with model.ask("speak", {"text": "Hello."}) as replies: ...

The child looks at the files, loads the model, and tries it once, all before `start` returns: so what is wrong with a
model is said in one sentence, before the first frame flows, and nothing is left running.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from ...pipeline.errors import BadRequestError, ServiceError
from ...pipeline.frames import HeardWord
from .parent import ChildProcess, Replies, ServiceCrashed, Sleep
from .wire import Message, WireError


class ModelProcess:
    """A process with one model. ``name``: what errors call it; ``module``: what runs in it; ``sleep``: the clock's."""

    def __init__(self, name: str, module: str, *, sleep: Sleep) -> None:
        self._name = name
        self._child = ChildProcess(name, module, sleep=sleep)

    @property
    def pid(self) -> int | None:
        """The process's number while it runs, else None."""
        return self._child.pid

    async def start(self, model: str, wanted: Mapping[str, object]) -> Message:
        """Start the process, load the model, and try it; its answer has the facts of the model.

        Raises `BadRequestError` for a model that cannot be, `ServiceCrashed` where the process is killed. If
        cancelled, kills the process before it goes.
        """
        await self._child.start()
        try:
            with self.ask("start", {"model": model, **wanted}) as replies:
                return await replies.last()
        except ServiceCrashed as error:
            await self._child.close()
            if error.exit_code in (-signal.SIGKILL, -signal.SIGTERM):  # by others: not enough memory
                raise
            # Some libraries exit, or crash, where a file displeases them; what they said last is why.
            said = f", saying: {error.last_words[-1].rstrip('.')}" if error.last_words else ""
            raise BadRequestError(
                f"{self._name}: the model {model} cannot be loaded; its library ended the process{said}."
            ) from error
        except ServiceError as error:
            await self._child.close()
            raise BadRequestError(str(error)) from error
        except BaseException:
            self._child.kill()
            raise

    def ask(self, op: str, fields: Mapping[str, Any] = MappingProxyType({})) -> Replies:
        """Ask now, and read the answers as they come. A question that is still open is withdrawn."""
        return self._child.stream(op, **fields)

    async def send(self, op: str, payload: bytes = b"") -> None:
        """Tell it something that has no answer. Waits while its pipe is full."""
        await self._child.send(op, payload)

    async def close(self) -> None:
        """End the process and wait until it is gone. Does nothing if there is none."""
        await self._child.close()


class OwnsModel:
    """A service whose model is in a process of its own: ``connect`` sets `_model`."""

    _model: ModelProcess | None = None

    async def disconnect(self) -> None:
        """End the process."""
        if self._model is not None:
            await self._model.close()

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._model is not None and self._model.pid is not None


def path_of(path: str | PathLike[str]) -> str:
    """A path as it is kept in settings: whole, with a leading ``~`` as the user's home."""
    return os.path.abspath(Path(path).expanduser()) if os.fspath(path) else ""


def heard_words(told: Message, later_ms: float) -> tuple[HeardWord, ...]:
    """The words that a recogniser has told as ``[text, start in ms, end in ms]``, so much later."""
    words: list[HeardWord] = []
    for item in told.items("words"):
        if not isinstance(item, list) or len(cast(list[object], item)) != 3:
            raise WireError("not a word with two times")
        text, start_ms, end_ms = cast(tuple[str, float, float], item)
        words.append(HeardWord(text, start_ms + later_ms, end_ms + later_ms))
    return tuple(words)
