"""Transports: audio and messages between a pipeline and the outside world.

`transport_api` says what a transport author writes, `base` holds everything all transports share, and `input`, `output`
and `playout` are its two processors and the record of what was heard. Each further folder or file is one transport,
except `rtvi` (a client protocol), `server` (HTTP) and `contracts` (the test suite for transports).
Import a transport that needs an extra from its own module.
"""

from .base import Transport
from .file.transport import FileTransport
from .input import InputTransport
from .memory import MemoryTransport
from .output import OutputTransport

__all__ = ["FileTransport", "InputTransport", "MemoryTransport", "OutputTransport", "Transport"]
