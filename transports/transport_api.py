"""The methods that a transport author writes: four required, five optional. `Transport` (base.py) does the rest."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ..pipeline.client_frames import ServerMessageFrame
from ..pipeline.clock import NS_PER_MS
from ..pipeline.errors import TransportError
from ..pipeline.frames import Frame, Samples

CHUNK_MS = 20
CHUNK_NS = CHUNK_MS * NS_PER_MS


def samples_in_chunk(sample_rate: int) -> int:
    """Return the number of samples in `CHUNK_MS`. Raises `TransportError` if it is not a whole number."""
    if sample_rate <= 0 or sample_rate * CHUNK_MS % 1000:
        raise TransportError(
            f"A transport works in chunks of {CHUNK_MS} ms, and {sample_rate} Hz has no whole number of them. "
            "Use 8000, 16000, 22050, 24000, 44100 or 48000 Hz."
        )
    return sample_rate * CHUNK_MS // 1000


class TransportApi:
    """The part of a transport that differs from one transport to the next."""

    # --- required ---------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the device, or prepare for the peer. Called once, when the worker starts and before frames flow.

        Raise `TransportError` to keep the worker from starting.
        """

    def receive(self) -> AsyncIterator[Frame]:
        """Yield the user's frames as they arrive: an async generator. Its end is the end of the conversation.

        Audio may have any rate, one or two channels and any length. A transport with callbacks does not override
        this and calls `Transport.deliver` from them.
        """
        raise NotImplementedError

    def send(self, samples: Samples, due_ns: int) -> None:
        """Play 20 ms: int16 mono at `Transport.output_rate`, due at ``due_ns`` on the worker's clock. Must not block.

        Called once for each 20 ms of the bot's audio, `Transport.lead_ms` before the due time, and not for the
        silence between; a partial chunk is padded with silence. After a stall of the event loop it is called for
        every chunk that became due meanwhile.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Release everything that `open` acquired. Called once, also if `open` failed."""

    # --- optional: for transports that buffer sent audio ---------------------------------------------------------

    def clear(self) -> None:
        """Drop audio that was sent and not heard yet: the response was cut."""

    def pause(self) -> None:
        """Fall silent now and keep audio that was sent and not heard yet: playout is paused.

        Without an override, buffered audio is still heard.
        """

    def resume(self) -> None:
        """Play the audio that `pause` kept. Later audio is sent after it."""

    # --- optional: for transports whose client is a program -----------------------------------------------------

    def tell(self, message: ServerMessageFrame) -> None:
        """Send a message to the client's program. Must not block."""
