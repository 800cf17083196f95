"""The contract of a transport, as a test to run: of voxline's own, and of yours.

::

    class CablePeer(ContractPeer):                       # the far end of your transport, in a test's hands
        async def say(self, samples, sample_rate): ...
        def heard(self): ...

    async def test_it_keeps_the_contract_of_a_transport():
        print(await check_transport(lambda: (transport := CableTransport(), CablePeer(transport))))

Each rule that is broken is named, with what was expected and what came. See docs/guide/transport-of-your-own.md.
"""

from ...pipeline.testing.failures import ContractFailure
from ..memory import HeardAudio
from .check import Report, check_transport
from .peer import ContractPeer

__all__ = ["ContractFailure", "ContractPeer", "HeardAudio", "Report", "check_transport"]
