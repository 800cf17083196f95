"""Every error that voxline raises, as one tree::

    VoxlineError
    ├── FrameError             a frame with an invalid value: wrong dtype, wrong shape
    ├── PipelineError          a pipeline that cannot be built: a processor used twice, no sink, two inputs
    │   └── FormatError        two neighbours disagree on their audio format
    ├── ProcessorError         a processor with a programming error, or used outside a running pipeline
    │   └── HandlerTimeout     a plain handler waited longer than its deadline
    ├── QueueOverflowError     a bounded queue or buffer is full and its producer cannot wait
    ├── LifecycleError         a start or stop failed, or passed its deadline
    ├── MissingExtraError      an optional package is not installed (also an ImportError)
    ├── ServiceError           a process, a model or a network service failed
    │   ├── AuthenticationError    the service refuses the caller: no key, a wrong key, no permission
    │   ├── RateLimitError         too many requests; `wait_s` is the delay that the service asks for
    │   ├── ServiceTimeout         no answer by the deadline
    │   ├── BadRequestError        the service refuses the request: no such model, a text too long
    │   ├── ServiceDownError       it cannot be reached, or had an internal failure
    │   └── BadAnswerError         its response cannot be understood
    ├── SettingsError          a setting with an invalid value (also a ValueError)
    ├── SessionError           a session has ended or is not running
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
    """A frame has an invalid value."""


class PipelineError(VoxlineError):
    """A pipeline cannot be built from these processors."""


class FormatError(PipelineError):
    """Two neighbours disagree on the audio format between them."""


class ProcessorError(VoxlineError):
    """A processor has a programming error, or is used outside a running pipeline."""


class HandlerTimeout(ProcessorError):
    """A plain handler waited longer than its deadline, and was cancelled."""


class QueueOverflowError(VoxlineError):
    """A bounded queue or buffer is full, and its producer cannot wait."""


class LifecycleError(VoxlineError):
    """A start or a stop failed, or passed its deadline."""


class ServiceError(VoxlineError):
    """A process, a model or a network service failed.

    The message says what to do. It contains no secret and no words of a user.
    """

    retryable: ClassVar[bool] = True
    """True if the same request may succeed when it is repeated."""
    wait_s: float | None = None
    """Delay before a repetition that the service asks for, in s; None if it named none."""


class AuthenticationError(ServiceError):
    """The service refuses the caller: no key, a wrong key, or no permission."""

    retryable = False


class RateLimitError(ServiceError):
    """The service refuses further requests for now."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class ServiceTimeout(ServiceError):
    """No answer came by the deadline."""


class BadRequestError(ServiceError):
    """The service refuses the request: there is no such model, the text is too long."""

    retryable = False


class ServiceDownError(ServiceError):
    """The service cannot be reached, or had an internal failure."""


class BadAnswerError(ServiceError):
    """The response of the service cannot be understood."""


class SettingsError(VoxlineError, ValueError):
    """A setting has an invalid value."""


class SessionError(VoxlineError):
    """A session has ended or is not running yet."""


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
