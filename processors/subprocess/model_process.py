"""A user's model in a process of its own: the common part of all services that have one.

    model = ModelProcess("PiperTTS", "voxline.processors.tts.piper_child", sleep=clock.sleep)
    facts = await model.start("voices/en.onnx", {"threads": 2})
    with model.ask("speak", {"text": "Hello."}) as replies: ...

The child checks the files, loads the model and tries it once, all before `start` returns. So a wrong model fails with
one sentence before the first frame flows, and no process is left running.
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
from .wire import WireError, WireMessage


class ModelProcess:
    """A process with one model. ``name``: its name in errors; ``module``: the child's; ``sleep``: the clock's."""

    def __init__(self, name: str, module: str, *, sleep: Sleep) -> None:
        self._name = name
        self._child = ChildProcess(name, module, sleep=sleep)

    @property
    def pid(self) -> int | None:
        """Process id while the process runs, else None."""
        return self._child.pid

    async def start(self, model: str, wanted: Mapping[str, object]) -> WireMessage:
        """Start the process, load the model and try it. Returns the child's answer, with facts about the model.

        Raises `BadRequestError` for a model that cannot be loaded, `ServiceCrashed` if the process is killed. Being
        cancelled, kills the process first.
        """
        await self._child.start()
        try:
            with self.ask("start", {"model": model, **wanted}) as replies:
                return await replies.last()
        except ServiceCrashed as error:
            await self._child.close()
            if error.exit_code in (-signal.SIGKILL, -signal.SIGTERM):  # killed from outside: not enough memory
                raise
            # Some libraries exit or crash on a file that they cannot read; their last line says why.
            reason = f", saying: {error.last_words[-1].rstrip('.')}" if error.last_words else ""
            raise BadRequestError(
                f"{self._name}: the model {model} cannot be loaded; its library ended the process{reason}."
            ) from error
        except ServiceError as error:
            await self._child.close()
            raise BadRequestError(str(error)) from error
        except BaseException:
            self._child.kill()
            raise

    def ask(self, op: str, fields: Mapping[str, Any] = MappingProxyType({})) -> Replies:
        """Ask now, and read the answers as they come. Withdraws a question that is still open."""
        return self._child.stream(op, **fields)

    async def send(self, op: str, payload: bytes = b"") -> None:
        """Send a request that has no answer. Waits while the pipe is full."""
        await self._child.send(op, payload)

    async def close(self) -> None:
        """End the process and wait for its end. Does nothing if there is none."""
        await self._child.close()


def path_of(path: str | PathLike[str]) -> str:
    """Make an absolute path for settings; a leading ``~`` becomes the user's home."""
    return os.path.abspath(Path(path).expanduser()) if os.fspath(path) else ""


def heard_words(answer: WireMessage, offset_ms: float) -> tuple[HeardWord, ...]:
    """Read a recogniser's words, ``[text, start in ms, end in ms]``, and move them by ``offset_ms``."""
    words: list[HeardWord] = []
    for item in answer.items("words"):
        if not isinstance(item, list) or len(cast(list[object], item)) != 3:
            raise WireError("not a word with two times")
        text, start_ms, end_ms = cast(tuple[str, float, float], item)
        words.append(HeardWord(text, start_ms + offset_ms, end_ms + offset_ms))
    return tuple(words)
