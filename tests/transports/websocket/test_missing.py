"""Without aiohttp, the import says what to install."""

from __future__ import annotations

import subprocess
import sys

from voxline.pipeline.errors import install_command


def test_a_missing_extra_says_how_to_install_it():
    script = (
        "import sys; sys.modules['aiohttp'] = None\n"
        "from voxline.pipeline import MissingExtraError\n"
        "try:\n    import voxline.transports.websocket\nexcept MissingExtraError as error:\n    print(error)"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert install_command("websocket") in said
