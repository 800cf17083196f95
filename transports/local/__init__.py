"""The sound card: talk to a bot at your desk. Needs the extra ``local``.

::

    from voxline.transports.local import LocalTransport

    transport = LocalTransport()                                   # the default microphone and loudspeaker
    transport = LocalTransport(input_device="USB", output_device=3)
"""

from .devices import Device
from .transport import LocalTransport

__all__ = ["Device", "LocalTransport"]
