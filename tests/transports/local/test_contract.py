"""The local transport keeps the contract of a transport: in virtual time, on a sound card that is none."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest
from voxline.pipeline import Samples
from voxline.tests.transports.local.card import FakeCard, plug_in
from voxline.tests.transports.peers import CONTRACT
from voxline.transports.base import Transport
from voxline.transports.contracts import ContractPeer, HeardAudio, Report, check_transport
from voxline.transports.local import LocalTransport


class Desk(ContractPeer):
    """Who sits there. Drives the card, as PortAudio's thread does: 20 ms each 20 ms."""

    exact: ClassVar[bool] = True
    late_ms = 20
    catches_up = False
    end_s = 3.0

    def __init__(self, transport: LocalTransport, card: FakeCard) -> None:
        self.transport = transport
        self.card = card
        self.played: list[HeardAudio] = []
        self._said = np.zeros(0, np.int16)
        self._driving: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        await self._stop()
        self._driving = asyncio.create_task(self._drive())

    async def _drive(self) -> None:
        clock, card = self.transport.clock, self.card
        due_ns = clock.now_ns()
        while True:
            due_ns += 20_000_000
            await clock.sleep((due_ns - clock.now_ns()) / 1e9)
            self.played.append(HeardAudio(clock.now_ns(), card.loudspeaker.call()))
            size: int = card.microphone.settings["blocksize"]
            said, self._said = self._said[:size], self._said[size:]
            card.microphone.call(np.pad(said, (0, size - len(said))))

    async def say(self, samples: Samples, sample_rate: int) -> None:
        self._said = np.concatenate([self._said, samples])

    def heard(self) -> Sequence[HeardAudio]:
        return self.played

    async def close(self) -> None:
        await self.vanish()
        for stream in self.card.streams:
            if stream.running:
                stream.unplug()

    async def vanish(self) -> None:
        """The card calls no more, and says nothing."""
        await self._stop()

    async def _stop(self) -> None:
        if self._driving is not None:
            self._driving.cancel()
            await asyncio.wait([self._driving])
            self._driving = None


class Listener(Desk):
    """Hears as people do: the ring may stretch a sound by a sample, and the card takes 20 ms at a time."""

    exact: ClassVar[bool] = False
    late_ms = 40


STRETCHED = ("after a stall", "the record of a cut", "a pause is silence")
"""What an ear has to judge, in real time."""
RULES_OF_SAMPLES = [rule for rule in CONTRACT if not rule.startswith(STRETCHED)]


async def check(monkeypatch: pytest.MonkeyPatch, rule: str, peer: type[Desk]) -> Report:
    def pair() -> tuple[Transport, ContractPeer]:
        card = plug_in(monkeypatch)  # first: the transport looks for PortAudio when it is made
        transport = LocalTransport(echo="off")
        return transport, peer(transport, card)

    return await check_transport(pair, only=rule)


@pytest.mark.parametrize("rule", RULES_OF_SAMPLES)
async def test_it_keeps_the_contract_of_a_transport_to_the_sample(monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    report = await check(monkeypatch, rule, Desk)
    # A sound card always reads.
    assert report.checked or [why for _, why in report.skipped] == ["Desk has no stall()"]


@pytest.mark.realtime
@pytest.mark.parametrize("rule", STRETCHED)
async def test_it_keeps_the_contract_of_a_transport_to_the_ear(monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    await check(monkeypatch, rule, Listener)
