"""The far end of a transport, as the check needs it: a caller who says something and notes what is heard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ...pipeline.frames import Samples
from ..memory import HeardAudio


class ContractPeer:
    """The user's end. Derive; write `say` and `heard`, and of the rest what your transport has.

    What is not written is not checked, and the report says so.
    """

    exact: ClassVar[bool] = True
    """True: each sample comes as it was sent, and time is virtual. False: audio is lossy (compared by tones) and time
    is real; then `late_ms` is how much may be off."""
    late_ms: float = 0.0
    """How much later than it is due something may be heard, or arrive, at most."""
    rates: Sequence[int] = (16_000,)
    """The sample rates, in Hz, at which it can speak."""
    hears_rate: int | None = None
    """The rate, in Hz, of what `heard` gives; None: the transport's ``output_rate``."""
    says_first: bool = False
    """True where the speech must be known before the worker runs: `say` is then called once, before."""
    announced: bool = False
    """True where the pipeline gets a `ClientConnectedFrame` on connection."""
    catches_up: bool = True
    """False: it plays all that it gets, one after another. After a stall of the event loop that is longer than what it
    has in hand it is behind, until the bot is silent."""
    restarts: bool = True
    """True where another worker may use the transport after one has ended."""
    end_s: float = 5.0
    """Within so many seconds of `close` the worker has ended, or has a `ClientDisconnectedFrame`."""
    gone_s: float = 30.0
    """The same for `vanish`."""

    async def connect(self) -> None:
        """Be there: called when the worker runs, and again when another one does."""

    async def say(self, samples: Samples, sample_rate: int) -> None:
        """Say this, after what was said before: int16 mono, in real time of the worker's clock. Must not wait for its
        end. It comes in pieces of any length.
        """
        raise NotImplementedError("say")

    def heard(self) -> Sequence[HeardAudio]:
        """All that was heard so far, in order: each piece with the time of the worker's clock at which its first sample
        is heard (not: at which it came, where something buffers it). Silence may be among it, or left out.
        """
        raise NotImplementedError("heard")

    async def close(self) -> None:
        """Hang up, as a good caller does. Called at the end in any case, so harmless the second time."""
        raise NotImplementedError("close")

    async def vanish(self) -> None:
        """Be gone without a word: the cable is cut."""
        raise NotImplementedError("vanish")

    def stall(self, *, on: bool) -> None:
        """Read nothing from now on; or go on reading."""
        raise NotImplementedError("stall")
