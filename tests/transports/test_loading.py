"""What takes long to load is loaded when a transport is made, and not while frames flow."""

import subprocess
import sys


def test_the_resampler_is_there_before_the_first_frame() -> None:
    code = (
        "import sys; from voxline.transports.memory import MemoryTransport; "
        "assert 'av' not in sys.modules; MemoryTransport(); assert 'av' in sys.modules; print('loaded')"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "loaded\n"
