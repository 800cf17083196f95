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
    ├── SettingsError          a setting that cannot be (also a ValueError)
    ├── SessionError           a session is over, or does not run, and cannot do what is asked
    ├── TransportError         a file, a device or a connection that cannot be used
    └── RecordingError         a recording or fixture that cannot be read or replayed

A message says what happened, where, what is allowed, and what to do.
"""

from __future__ import annotations


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
    """A process, a model or a network service failed."""


class SettingsError(VoxlineError, ValueError):
    """A setting has a value that it cannot have."""


class SessionError(VoxlineError):
    """A session is over, or does not run yet, and cannot do what is asked of it."""


class TransportError(VoxlineError):
    """A file, a device or a connection cannot be used."""


class RecordingError(VoxlineError):
    """A recording or a fixture cannot be read, or does not fit the pipeline that it is replayed through."""


class MissingExtraError(VoxlineError, ImportError):
    """A part needs a package that is not installed."""

    def __init__(self, part: str, package: str, extra: str) -> None:
        super().__init__(
            f"{part} needs the package {package}, which is not installed. "
            f"Install it with: pip install 'voxline[{extra}]'"
        )
