"""Where tests find the files of the repository, however deep in the tree they stand."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
AUDIO = EXAMPLES / "audio"
CALLER = AUDIO / "caller.wav"
"""The recorded caller of the demo: 16 kHz, mono."""
