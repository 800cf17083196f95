"""Timelines of a conversation, collected by a tap: printed as text or drawn as a picture."""

from .collect import Timeline, TimelineTap
from .plot import draw
from .text import TimelinePrinter

__all__ = ["Timeline", "TimelinePrinter", "TimelineTap", "draw"]
