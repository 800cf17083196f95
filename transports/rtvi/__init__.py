"""RTVI: the messages that the published clients speak, over any transport that carries text."""

from .rtvi import RTVI as RTVI
from .rtvi import attach_rtvi as attach_rtvi

__all__ = ["RTVI", "attach_rtvi"]
