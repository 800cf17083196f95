"""RTVI: what a client asks for, and what it may not."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from voxline.pipeline import (
    ClientMessageFrame,
    Frame,
    FrameProcessor,
    InputTextFrame,
    InterruptRequestFrame,
    ServerMessageFrame,
    handles,
)
from voxline.processors import ScriptedTTS
from voxline.tests.transports.rtvi.rtvi_client import Call, Client

READY: dict[str, Any] = {
    "label": "rtvi-ai",
    "type": "client-ready",
    "id": "r",
    "data": {"version": "2.1.0", "about": {"library": "x"}},
}
TEXT: dict[str, Any] = {"label": "rtvi-ai", "type": "send-text", "id": "t", "data": {"content": "Hello", "options": {}}}
ASK: dict[str, Any] = {
    "label": "rtvi-ai",
    "type": "client-message",
    "id": "m",
    "data": {"t": "weather", "d": {"place": ["Rome"]}},
}


class Bot(FrameProcessor):
    """Takes what a client sends, and answers messages of the kinds ``weather`` and ``tides``."""

    def __init__(self) -> None:
        self.got: list[Frame] = []

    @handles(InputTextFrame, InterruptRequestFrame)
    async def note(self, frame: Frame) -> None:
        self.got.append(frame)

    @handles(ClientMessageFrame)
    async def answer(self, frame: ClientMessageFrame) -> None:
        self.got.append(frame)
        if frame.kind == "weather":
            await self.push(ServerMessageFrame('{"sky": "blue"}', reply_to=frame.id))
        elif frame.kind == "tides":
            await self.push(ServerMessageFrame("null", reply_to=frame.id, error="Nobody knows."))
        elif frame.kind == "broken":
            await self.push(ServerMessageFrame("{no JSON", reply_to=frame.id))


async def sent(*messages: object, ready: bool = True) -> tuple[Client, list[Frame]]:
    """What a client and a bot got when the client had sent these, one after another."""
    bot = Bot()
    call = Call([bot, ScriptedTTS()], ready=ready)
    for message in messages:
        text = message if isinstance(message, str) else json.dumps(message)
        call.at(1, lambda text=text: call.client.send_text(text))
    client = await call.run(2)
    return client, bot.got


def message(kind: str, data: object, id: str = "m") -> dict[str, Any]:
    return {"label": "rtvi-ai", "type": kind, "id": id, "data": data}


# --- what it may ask for ----------------------------------------------------------------------------------------------


async def test_a_client_that_is_ready_is_told_that_the_bot_is_and_in_which_version() -> None:
    client, _ = await sent(READY, ready=False)
    assert client.all("bot-ready") == [{"version": "2.1.0", "about": {"library": "voxline"}}]
    for asked, answered in (("1.0.0", "1.4.0"), ("2.3.0", "2.1.0"), ("9.9.9", "2.1.0"), ("new", "1.4.0"), (7, "1.4.0")):
        client, _ = await sent(message("client-ready", {"version": asked}), ready=False)
        assert client.all("bot-ready")[0]["version"] == answered


async def test_a_client_from_before_version_1_is_told_to_be_replaced() -> None:
    client, _ = await sent(message("client-ready", {"version": "0.3.0"}), ready=False)
    assert client.all("bot-ready") == []
    [error] = client.all("error")
    assert error["fatal"] is True


@pytest.mark.parametrize(
    ("options", "interrupt"), [({}, True), (None, True), ({"run_immediately": False}, False), ({"new": 1}, True)]
)
async def test_a_text_is_the_users_turn_at_once_or_when_the_bot_has_finished(options: Any, interrupt: bool) -> None:
    client, got = await sent(message("send-text", {"content": "Hello", "options": options}))
    assert got == [InputTextFrame("Hello", interrupt=interrupt)]
    assert client.all("error", "error-response") == []


async def test_that_the_bot_speaks_all_its_answers_is_said_once() -> None:
    silent = message("send-text", {"content": "Hello", "options": {"audio_response": False}})
    client, got = await sent(silent, silent)
    assert len(got) == 2
    assert len(client.all("error")) == 1


async def test_the_first_clients_way_to_send_a_text_works_too() -> None:
    old = message("append-to-context", {"role": "user", "content": "Hello", "run_immediately": True})
    _, got = await sent(old)
    assert got == [InputTextFrame("Hello")]
    client, got = await sent(message("append-to-context", {"role": "assistant", "content": "I said so."}))
    assert got == []
    assert len(client.all("error-response")) == 1


async def test_the_apps_message_is_answered_by_the_bot() -> None:
    client, got = await sent(ASK)
    assert got == [ClientMessageFrame("weather", '{"place": ["Rome"]}', "m")]
    [(_, answer)] = [one for one in client.got if one[1]["type"] == "server-response"]
    assert answer == {
        "label": "rtvi-ai", "type": "server-response", "id": "m", "data": {"t": "weather", "d": {"sky": "blue"}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "why"), [("tides", "Nobody knows."), ("broken", "The bot's answer could not be sent.")]
)
async def test_what_the_bot_cannot_answer_is_an_error_of_that_message(kind: str, why: str) -> None:
    client, _ = await sent(message("client-message", {"t": kind}))
    assert [(one["id"], one["data"]) for _, one in client.got if one["type"] == "error-response"] == [
        ("m", {"error": why})
    ]


async def test_a_message_that_no_processor_takes_is_answered_with_an_error() -> None:
    call = Call([ScriptedTTS()])
    call.at(1, lambda: call.client.tell_bot("client-message", {"t": "weather"}, id="m"))
    client = await call.run(2)
    assert client.all("error-response") == [{"error": "The bot does not know messages of this type."}]


async def test_the_button_to_interrupt_is_answered_here() -> None:
    client, got = await sent(message("client-message", {"t": "interrupt"}))
    assert got == [InterruptRequestFrame()]
    assert client.all("server-response") == [{"t": "interrupt", "d": None}]


async def test_keys_are_the_apps_message_dtmf() -> None:
    _, got = await sent(message("dtmf", {"buttons": ["1", "#"]}), message("dtmf", {"button": "*"}))
    assert got == [ClientMessageFrame("dtmf", '{"buttons": "1#"}'), ClientMessageFrame("dtmf", '{"buttons": "*"}')]


async def test_a_client_that_leaves_ends_the_conversation() -> None:
    call = Call([ScriptedTTS()])
    call.at(1, lambda: call.client.tell_bot("disconnect-bot", {}))
    await call.worker.run()
    assert call.clock.now_ns() == pytest.approx(1e9, abs=1e8)


async def test_what_belongs_to_the_connection_is_passed_over() -> None:
    client, got = await sent("ping: 1700000000000", {"type": "signalling", "message": {"type": "trackStatus"}})
    assert got == []
    assert len(client.got) == 2


# --- what it may not --------------------------------------------------------------------------------------------------

BAD = [
    "", "{", "[]", "null", "7", '"text"', "NaN", "[" * 60_000, '{"a":' * 10_000, "{}", "\x00", "é" * 70_000,
    {"label": "other", "type": "send-text"}, {"label": "rtvi-ai"}, {"label": "rtvi-ai", "type": 7},
    {"label": "rtvi-ai", "type": "send-text", "id": 7}, {"label": "rtvi-ai", "type": "send-text", "id": "x" * 500},
    message("send-text", None), message("send-text", []), message("send-text", "text"), message("send-text", {}),
    message("send-text", {"content": 7}), message("send-text", {"content": "  "}),
    message("send-text", {"content": "x", "options": 7}), message("send-text", {"content": "x" * 70_000}),
    message("send-text", {"content": "x", "options": {"run_immediately": "yes"}}),
    message("send-text", {"content": "half \ud800 of a pair"}),
    message("client-message", {}), message("client-message", {"t": ""}), message("client-message", {"t": "x" * 200}),
    message("client-message", {"t": 7}), message("dtmf", {}), message("dtmf", {"buttons": []}),
    message("dtmf", {"buttons": ["A"]}), message("dtmf", {"buttons": [7]}), message("dtmf", {"buttons": "1" * 10}),
    message("dtmf", {"buttons": ["1"] * 100}), message("no-such-type", {}), message("bot-ready", {}),
    '{"label": "rtvi-ai", "type": "client-message", "data": {"t": "x", "d": ' + "[" * 40 + "]" * 40 + "}}",
    '{"label": "rtvi-ai", "type": "client-message", "data": {"t": "x", "d": ' + "9" * 5_000 + "}}",
    '{"label": "rtvi-ai", "type": "client-message", "data": {"t": "x", "d": Infinity}}',
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: (bad if isinstance(bad, str) else json.dumps(bad))[:40])
async def test_a_message_that_makes_no_sense_is_told_so_and_hurts_nobody(bad: object) -> None:
    client, got = await sent(bad, TEXT)
    assert got == [InputTextFrame("Hello")]
    [why] = client.all("error", "error-response")
    assert why["error"].endswith(".")
    assert "Traceback" not in why["error"]


async def test_a_flood_is_cut_off_told_once_and_then_over() -> None:
    bot = Bot()
    call = Call([bot, ScriptedTTS()])
    for _ in range(5_000):
        call.at(1, lambda: call.client.tell_bot("send-text", {"content": "Hello"}))
    call.at(1.5, lambda: call.client.tell_bot("send-text", {"content": "Still there?"}))
    client = await call.run(2)
    assert len(bot.got) <= 101
    assert bot.got[-1] == InputTextFrame("Still there?")
    assert len(client.all("error")) == 1
    assert call.rtvi.refused >= 4_899


async def test_who_was_quiet_for_long_may_not_send_more_at_once_for_it() -> None:
    bot = Bot()
    call = Call([bot, ScriptedTTS()])
    for seconds in [1, *[60] * 300]:
        call.at(seconds, lambda: call.client.tell_bot("send-text", {"content": "Hello"}))
    await call.run(61)
    assert len(bot.got) == 1 + 100


async def test_a_bot_that_cannot_take_more_says_so() -> None:
    call = Call([Bot(), ScriptedTTS()])
    for _ in range(1_000):
        call.client.deliver(InputTextFrame("Hello"))
    call.client.tell_bot("send-text", {"content": "Hello"}, id="t")
    assert call.client.all("error-response") == [{"error": "The bot cannot take more messages at the moment."}]


async def test_a_message_that_was_seen_and_passed_on_may_be_answered_later() -> None:
    class Later(FrameProcessor):
        @handles(ClientMessageFrame)
        async def answer(self, frame: ClientMessageFrame) -> AsyncIterator[Frame]:
            yield frame
            await self.clock.sleep(0.5)
            yield ServerMessageFrame('"late"', reply_to=frame.id)

    call = Call([Later(), ScriptedTTS()])
    call.at(1, lambda: call.client.tell_bot("client-message", {"t": "weather"}, id="m"))
    client = await call.run(3)
    assert client.all("server-response") == [{"t": "weather", "d": "late"}]
    assert client.all("error-response") == []


async def test_messages_that_nobody_answers_are_bounded() -> None:
    bot = Bot()
    call = Call([bot, ScriptedTTS()])
    ask = {"t": "never"}
    for number in range(400):
        call.at(1 + number / 20, lambda id=f"n{number}": call.client.tell_bot("client-message", ask, id=id))
    client = await call.run(25)
    assert [one["id"] for _, one in client.got if one["type"] == "error-response"] == [f"n{n}" for n in range(144)]


async def test_two_messages_that_wait_for_answers_have_two_ids() -> None:
    never = message("client-message", {"t": "never"}, id="same")
    client, got = await sent(never, never)
    assert len(got) == 1
    assert client.all("error-response") == [{"error": "A message with this id already waits for its answer."}]
    client, got = await sent(message("client-message", {"t": "x"}, id=""), message("client-message", {"t": "x"}, id=""))
    assert len(got) == 2
    assert client.all("error-response") == []


async def test_what_is_sent_before_the_bot_runs_is_kept_or_refused() -> None:
    bot = Bot()
    call = Call([bot, ScriptedTTS()])
    for _ in range(3_000):
        call.client.tell_bot("send-text", {"content": "Hello"})
    await call.run(1)
    assert len(bot.got) == 99


async def test_a_thousand_broken_messages_raise_nothing_and_leave_the_conversation_as_it_was() -> None:
    dice = random.Random(1)
    bot = Bot()
    call = Call([bot, ScriptedTTS()])
    kinds = [json.dumps(one) for one in (READY, TEXT, ASK, message("dtmf", {"buttons": ["1"]}))]
    for number in range(4_000):
        text = list(kinds[number % 4])
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(text))
            match dice.randrange(4):
                case 0:
                    text[at] = chr(dice.choice([0, 34, 92, 123, 125, 0xD800, 0x10FFFF, dice.randrange(0x250)]))
                case 1:
                    del text[at : at + dice.randint(1, 8)]
                case 2:
                    text[at:at] = dice.choice(['"', "[", "{", "null", "1e999", "\\u", "\ud83d", "}" * 9, '"a":'])
                case _:
                    text[at:at] = text[: dice.randint(1, 20)]
            text = text or [" "]
        broken = "".join(text)
        call.at(1 + number / 40, lambda broken=broken: call.client.send_text(broken))
    call.at(105, lambda: call.client.tell_bot("client-message", {"t": "weather"}, id="last"))
    client = await call.run(106)
    assert client.got[-1][1]["id"] == "last"
    assert len(client.all("error", "error-response")) > 1_000


async def test_nothing_that_a_user_says_or_types_reaches_a_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await sent(message("send-text", {"content": "secret"}), message("send-text", {"content": 7, "secret": "secret"}))
    await sent('{"secret": ', message("secret", "secret"), message("client-message", {"t": "broken", "d": "secret"}))
    assert "secret" not in caplog.text


async def test_a_message_that_no_client_can_take_is_dropped_and_counted() -> None:
    class Talker(FrameProcessor):
        @handles(InputTextFrame)
        async def talk(self, frame: InputTextFrame) -> None:
            for data in (json.dumps("x" * 70_000), "no JSON", '"fine"'):
                await self.push(ServerMessageFrame(data))

    call = Call([Talker(), ScriptedTTS()])
    call.at(1, lambda: call.client.tell_bot("send-text", {"content": "go"}))
    client = await call.run(2)
    assert client.all("server-message")[1:] == ["fine"]
    assert call.rtvi.dropped == 2
