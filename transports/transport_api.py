"""The four verbs of a transport, which is all that one has to write. `Transport` (base.py) does the rest."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ..pipeline.client_frames import ServerMessageFrame
from ..pipeline.clock import NS_PER_MS
from ..pipeline.errors import TransportError
from ..pipeline.frames import Frame, Samples

CHUNK_MS = 20
CHUNK_NS = CHUNK_MS * NS_PER_MS


def samples_in_chunk(sample_rate: int) -> int:
    """How many samples `CHUNK_MS` has. Raises `TransportError` where that is no whole number."""
    if sample_rate <= 0 or sample_rate * CHUNK_MS % 1000:
        raise TransportError(
            f"A transport works in chunks of {CHUNK_MS} ms, and {sample_rate} Hz does not divide into them. "
            "Use 8000, 16000, 22050, 24000, 44100 or 48000 Hz."
        )
    return sample_rate * CHUNK_MS // 1000


class TransportApi:
    """The methods that differ between transports."""

    # --- the four ---------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Get the device, or make ready for the peer: once, when the worker starts and before frames flow.

        Raises `TransportError`: the worker then does not start.
        """

    def receive(self) -> AsyncIterator[Frame]:
        """Yield the user's frames as they arrive: an async generator whose end is the end of the conversation.

        Audio may have any rate, one channel or two, and any length. A transport with callbacks leaves this method as it
        is, and calls `Transport.deliver` in them.
        """
        raise NotImplementedError

    def send(self, samples: Samples, due_ns: int) -> None:
        """Play 20 ms: int16 mono at `Transport.output_rate`, due at ``due_ns`` on the worker's clock. Must not wait.

        Called once for each 20 ms in which the bot is heard, `Transport.lead_ms` before they are due, and not
        for silence between; a chunk that is not full is padded with silence. After a stall of the event loop it
        is called for all that are due by then.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Give back what `open` took: once, also where that failed."""

    # --- for those who have more in hand than a chunk ------------------------------------------------------------

    def clear(self) -> None:
        """Drop audio that was sent and is not heard yet: the response was cut."""

    def pause(self) -> None:
        """Be silent now, and keep audio that was sent and is not heard yet: the playout is paused.

        Without this method, the last sent audio is heard.
        """

    def resume(self) -> None:
        """The pause is over: play what `pause` kept. What follows is sent after it."""

    # --- for those whose client is a program --------------------------------------------------------------------

    def tell(self, message: ServerMessageFrame) -> None:
        """A message for the client's program. Must not wait."""
