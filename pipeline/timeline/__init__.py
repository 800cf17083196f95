"""Timelines: who spoke when, and where the time of each turn went; collected by a tap, as text or as a picture."""

from .collect import Talk, TalkTap
from .plot import draw
from .text import Narrator

__all__ = ["Narrator", "Talk", "TalkTap", "draw"]
