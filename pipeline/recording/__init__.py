"""Recordings of conversations: write one with a tap, load it, replay it without its services."""

from .recording import Recorder, Recording, RecordingWarning
from .replay import Trace, replay

__all__ = ["Recorder", "Recording", "RecordingWarning", "Trace", "replay"]
