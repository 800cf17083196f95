"""Every error that voxline raises, as one tree::

    VoxlineError
    ├── FrameError             a frame that cannot be: wrong dtype, wrong shape
    ├── PipelineError          a pipeline that cannot be built: used twice, no sink, two inputs
    │   └── FormatError        what one processor makes, the next does not take
    ├── ProcessorError         a processor that is written wrongly, or used outside a running pipeline
    │   └── HandlerTimeout     a plain handler waited longer than its deadline
    ├── QueueOverflowError     a bounded queue or buffer is full and nobody can be made to wait
    ├── LifecycleError         a start or stop failed, or passed its deadline
    ├── MissingExtraError      an optional package is not installed (also an ImportError)
    ├── ServiceError           a process, a model or a network service failed
    │   ├── AuthenticationError    the service does not accept who asks: no key, a wrong one, no rights
    │   ├── RateLimitError         asked too often; `wait_s` says for how long, where the service does
    │   ├── ServiceTimeout         no answer by the deadline
    │   ├── BadRequestError        the service does not do what it was asked for: no such model, a text too long
    │   ├── ServiceDownError       it cannot be reached, or failed by itself
    │   └── BadAnswerError         it answered what nobody understands
    ├── SettingsError          a setting that cannot be (also a ValueError)
    ├── SessionError           a session is over, or does not run, and cannot do what is asked
    ├── TransportError         a file, a device or a connection that cannot be used
    └── RecordingError         a recording or fixture that cannot be read or replayed

A message says what happened, where, what is allowed, and what to do.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar


class VoxlineError(Exception):
    """The base of all errors of this package."""


class FrameError(VoxlineError, ValueError):
    """A frame that cannot be."""


class PipelineError(VoxlineError):
    """A pipeline that cannot be built as it stands."""


class FormatError(PipelineError):
    """Two neighbours do not agree on the audio between them."""


class ProcessorError(VoxlineError):
    """A processor is written wrongly, or is used outside a running pipeline."""


class HandlerTimeout(ProcessorError):
    """A plain handler waited longer than its deadline, and was cancelled."""


class QueueOverflowError(VoxlineError):
    """A bounded queue or buffer is full, and who fills it cannot be made to wait."""


class LifecycleError(VoxlineError):
    """A start or a stop failed, or passed its deadline."""


class ServiceError(VoxlineError):
    """A process, a model or a network service failed.

    The message says what to do, and has no secret and nothing that a user said.
    """

    retryable: ClassVar[bool] = True
    """Whether the same question may have an answer the next time."""
    wait_s: float | None = None
    """How long the service asks to wait before that, in s; None where it did not say."""


class AuthenticationError(ServiceError):
    """The service does not accept who asks: no key, a wrong one, or no rights."""

    retryable = False


class RateLimitError(ServiceError):
    """It was asked too often, or too much."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class ServiceTimeout(ServiceError):
    """No answer came by the deadline."""


class BadRequestError(ServiceError):
    """The service does not do what it was asked for: there is no such model, the text is too long."""

    retryable = False


class ServiceDownError(ServiceError):
    """The service cannot be reached, or failed by itself."""


class BadAnswerError(ServiceError):
    """The service answered what nobody understands."""


class SettingsError(VoxlineError, ValueError):
    """A setting has a value that it cannot have."""


class SessionError(VoxlineError):
    """A session is over, or does not run yet, and cannot do what is asked of it."""


class TransportError(VoxlineError):
    """A file, a device or a connection cannot be used."""


class RecordingError(VoxlineError):
    """A recording or a fixture cannot be read, or does not fit the pipeline that it is replayed through."""


class MissingExtraError(VoxlineError, ImportError):
    """A part needs an optional package that is not installed. The message ends with the command that installs it."""

    def __init__(self, part: str, package: str, extra: str) -> None:
        super().__init__(
            f"{part} needs the package {package}, which is not installed. Install it with: {install_command(extra)}"
        )


ROOT = Path(__file__).resolve().parent.parent
"""Folder of the import package. In a checkout it is also the folder of `pyproject.toml`."""


def install_command(extra: str) -> str:
    """Return the command that installs an extra into the Python that runs.

    In a checkout pip takes the extra from there. Elsewhere the package is installed already, from a wheel or an index:
    pip keeps it, adds the packages of the extra, and needs no index to have voxline.
    """
    import shlex  # loaded here: only a failure needs it

    editable = (ROOT / "pyproject.toml").is_file()
    target = ["-e", f"{ROOT}[{extra}]"] if editable else [f"voxline[{extra}]"]
    return shlex.join([sys.executable, "-m", "pip", "install", *target])
