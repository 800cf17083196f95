"""Files as both ends: a sound file is the caller, and a stereo WAV records the conversation.

`FileTransport` is what a pipeline uses; `AudioReader` and `StereoWriter` read and write the files.
"""

from .audio_reader import AudioReader
from .stereo_writer import BOT, CALLER, StereoWriter
from .transport import FileTransport

__all__ = ["BOT", "CALLER", "AudioReader", "FileTransport", "StereoWriter"]
