"""RTVI: what a client is told of a conversation, in order and in time."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from voxline.pipeline import (
    ClientMessageFrame,
    FrameProcessor,
    InputTextFrame,
    LLMRequestFrame,
    Message,
    OutputAudioFrame,
    ResponseCommittedFrame,
    ResponseEndFrame,
    ServerMessageFrame,
    SpokenWord,
    TextFrame,
    TranscriptionFrame,
    handles,
)
from voxline.processors import (
    EnergyVAD,
    ScriptedLLM,
    ScriptedSTT,
    ScriptedTool,
    ScriptedTTS,
    SessionController,
    Transcript,
)
from voxline.tests.transports.rtvi.rtvi_client import Call, Client, silence, tone
from voxline.transports.rtvi.replies import TurnLatency

SPEAKING = ("bot-started-speaking", "bot-stopped-speaking", "user-started-speaking", "user-stopped-speaking")


def parts(*, answers: list[Any] | None = None, heard: list[Any] | None = None) -> list[FrameProcessor]:
    """A bot from a script."""
    return [
        EnergyVAD(),
        ScriptedSTT(heard or ["count", "stop"], delay_ms=30),
        SessionController(),
        ScriptedLLM(
            answers or [["One, two, three.", "Four, five, six."], "Stopped."],
            delay_ms=100,
            between_ms=10,
        ),
        ScriptedTTS(word_ms=300, delay_ms=50),
    ]


async def talk(*, barges_in: bool = False, version: str = "2.1.0", **options: Any) -> Client:
    """The caller asks from 0 to 1 s; barging in, speaks again from 2.8 s on, in the answer's second sentence."""
    call = Call(parts(), ready=False, **options)
    call.client.be_ready(version)
    call.client.say(tone(1000))
    call.client.say(silence(1800 if barges_in else 3500))
    if barges_in:
        call.client.say(tone(1000))
        call.client.say(silence(2500))
    return await call.run(8)


# --- the user ---------------------------------------------------------------------------------------------------------


async def test_what_the_user_said_is_told_with_when_and_that_it_is_final() -> None:
    client = await talk()
    assert client.all("user-transcription") == [
        {"text": "count", "final": True, "timestamp": "2026-05-28T20:26:40.000+00:00", "user_id": "user"}
    ]
    assert client.order(*SPEAKING)[:2] == ["user-started-speaking", "user-stopped-speaking"]


async def test_words_that_may_change_are_told_as_such() -> None:
    heard = [[Transcript("cow", final=False), "count"]]
    call = Call(parts(heard=heard))
    call.client.say(tone(1000))
    call.client.say(silence(3000))
    client = await call.run(4)
    assert [(told["text"], told["final"]) for told in client.all("user-transcription")] == [
        ("cow", False),
        ("count", True),
    ]


async def test_what_another_processor_makes_of_the_words_is_not_what_was_said() -> None:
    class Louder(FrameProcessor):
        @handles(TranscriptionFrame)
        async def shout(self, frame: TranscriptionFrame) -> None:
            await self.push(TranscriptionFrame(frame.text.upper()))

    bot = parts()
    call = Call([*bot[:2], Louder(), *bot[2:]])
    call.client.say(tone(1000))
    call.client.say(silence(3000))
    client = await call.run(4)
    assert [told["text"] for told in client.all("user-transcription")] == ["count"]
    assert client.all("user-llm-text") == [{"text": "COUNT"}]


# --- the bot ----------------------------------------------------------------------------------------------------------


async def test_an_answer_is_told_from_the_request_to_its_last_word() -> None:
    client = await talk()
    kinds = ("bot-llm-started", "bot-llm-stopped", "bot-tts-started", "bot-tts-stopped", *SPEAKING[:2])
    assert client.order(*kinds) == [
        "bot-llm-started", "bot-llm-stopped", "bot-tts-started", "bot-started-speaking", "bot-tts-stopped",
        "bot-stopped-speaking",
    ]  # fmt: skip
    assert [told["text"] for told in client.all("bot-llm-text")] == ["One, two, three.", "Four, five, six."]
    assert client.all("bot-transcription") == client.all("bot-llm-text")
    assert " ".join(told["text"] for told in client.all("bot-tts-text")) == "One, two, three. Four, five, six."


async def test_words_are_told_when_they_are_heard_and_not_when_they_are_made() -> None:
    client = await talk()
    [begun_ms] = client.when("bot-started-speaking")
    words_ms = [at_ms - begun_ms for at_ms in client.when("bot-tts-text")]
    # A word each 300 ms, told with the next 20 ms that are played.
    assert words_ms == pytest.approx([20, 320, 620, 920, 1220, 1520], abs=21)


async def test_words_are_told_when_they_leave_the_transport_where_that_holds_them_back() -> None:
    client = await talk(client=Client(lead_ms=100))
    [begun_ms] = client.when("bot-started-speaking")
    assert [at_ms - begun_ms for at_ms in client.when("bot-tts-text")][:3] == pytest.approx([120, 420, 720], abs=21)


async def test_words_after_a_hole_in_the_audio_are_told_as_much_later() -> None:
    bot = parts()
    bot[-1] = ScriptedTTS(word_ms=300, faults={0: 500.0})
    call = Call(bot)
    call.client.say(tone(1000))
    call.client.say(silence(4000))
    client = await call.run(6)
    [begun_ms] = client.when("bot-started-speaking")
    assert [at_ms - begun_ms for at_ms in client.when("bot-tts-text")][:3] == pytest.approx([20, 520, 820], abs=41)


async def test_words_are_told_once_whatever_the_audio_passes_on_its_way() -> None:
    class Quieter(FrameProcessor):
        @handles(OutputAudioFrame)
        async def halve(self, frame: OutputAudioFrame) -> None:
            await self.push(frame.with_samples(frame.samples // 2))

    call = Call([*parts(), Quieter()])
    call.client.say(tone(1000))
    call.client.say(silence(4000))
    client, other = await call.run(6), await talk()
    assert client.all("bot-tts-text") == other.all("bot-tts-text")
    assert client.when("bot-tts-text") == other.when("bot-tts-text")


async def test_each_sentence_goes_from_new_over_its_words_to_completed() -> None:
    client = await talk()
    told = [output for output in client.all("bot-output") if output["segment_id"] == 1]
    assert [output["spoken_status"] for output in told] == ["new", *["in-progress"] * 3, "completed"]
    assert all(output["text"] == "One, two, three." and output["will_be_spoken"] for output in told)
    for output in told[1:]:
        progress = output["spoken_progress"]
        assert progress["accumulated_text"] + progress["remaining_text"] == output["text"]
    assert [output["spoken_progress"]["accumulated_text"] for output in told[1:]] == [
        "One,", "One, two,", "One, two, three.", "One, two, three.",
    ]  # fmt: skip
    last = client.got.index(next(one for one in reversed(client.got) if one[1]["type"] == "bot-output"))
    stopped = client.got.index(next(one for one in client.got if one[1]["type"] == "bot-stopped-speaking"))
    assert last < stopped


@pytest.mark.parametrize("lead_ms", [40, 700])
async def test_the_last_word_that_is_told_of_a_cut_answer_is_the_last_that_was_heard(lead_ms: float) -> None:
    client = await talk(barges_in=True, client=Client(lead_ms=lead_ms))
    [cut] = client.app("voxline.cut")
    end = next(n for n, (_, one) in enumerate(client.got) if one["type"] == "bot-interrupted")
    words = [one["data"]["text"] for _, one in client.got[:end] if one["type"] == "bot-tts-text"]
    assert " ".join(words) == cut["heard"]


async def test_a_cut_answer_stops_at_what_was_heard() -> None:
    client = await talk(barges_in=True)
    [cut] = client.app("voxline.cut")
    assert cut["heard"] == "One, two, three. Four,"
    assert cut["heard_ms"] == pytest.approx(1080, abs=40)
    before = client.got[: next(n for n, (_, one) in enumerate(client.got) if one["type"] == "bot-interrupted")]
    outputs = [one["data"] for _, one in before if one["type"] == "bot-output"]
    assert outputs[-1]["spoken_progress"]["accumulated_text"] == "Four,"
    assert not any(one["segment_id"] == 2 and one["spoken_status"] == "completed" for one in client.all("bot-output"))
    assert client.all("bot-output")[-1]["text"] == "Stopped."


async def test_an_answer_that_is_cut_before_it_is_heard_is_not_left_open() -> None:
    call = Call(parts(answers=[[2_000, "Late."], "Yes."]))
    call.at(1, lambda: call.client.tell_bot("send-text", {"content": "Well?"}))
    call.at(2, lambda: call.client.tell_bot("client-message", {"t": "interrupt"}, id="i"))
    client = await call.run(5)
    assert client.order("bot-llm-started", "bot-llm-stopped", "bot-interrupted") == [
        "bot-llm-started", "bot-llm-stopped", "bot-interrupted",
    ]  # fmt: skip
    assert client.all("bot-output") == client.app("voxline.cut") == []
    assert client.app("voxline.state")[-1]["state"] == "listening"


async def test_a_recorded_sentence_is_told_too() -> None:
    class Recorded(FrameProcessor):
        @handles(InputTextFrame)
        async def say(self, frame: InputTextFrame) -> None:
            samples = np.ones(24_000, np.int16)
            words = (SpokenWord("Good", 0), SpokenWord("day.", 500))
            response = self.new_response()
            await self.push(OutputAudioFrame(samples, 24_000, words), response=response)
            await self.push(ResponseEndFrame(), response=response)

    call = Call([Recorded(), ScriptedTTS()])
    call.at(1, lambda: call.client.tell_bot("send-text", {"content": "Hello"}))
    client = await call.run(4)
    assert [(told["text"], told["spoken_status"]) for told in client.all("bot-output")] == [
        ("Good day.", "new"), ("Good day.", "in-progress"), ("Good day.", "in-progress"), ("Good day.", "completed"),
    ]  # fmt: skip
    assert client.order("bot-llm-started", "bot-llm-text") == []


async def test_a_bot_that_answers_by_a_plain_handler_is_told_of_too() -> None:
    class Parrot(FrameProcessor):
        @handles(InputTextFrame)
        async def repeat(self, frame: InputTextFrame) -> None:
            await self.push(TextFrame(frame.text))
            await self.push(TextFrame("Hello!"))
            await self.push(ResponseEndFrame())

    call = Call([Parrot(), ScriptedTTS()])
    call.at(1, lambda: call.client.tell_bot("send-text", {"content": "Good day."}))
    client = await call.run(4)
    assert [told["text"] for told in client.all("bot-output") if told["spoken_status"] == "completed"] == [
        "Good day.", "Hello!",
    ]  # fmt: skip
    assert " ".join(told["text"] for told in client.all("bot-tts-text")) == "Good day. Hello!"


async def test_the_words_of_a_voice_that_tells_no_times_are_spread_over_its_sentence() -> None:
    bot = parts()
    bot[-1] = ScriptedTTS(word_ms=300, timed=False)
    call = Call(bot)
    call.client.say(tone(1000))
    call.client.say(silence(3000))
    client = await call.run(6)
    [begun_ms] = client.when("bot-started-speaking")
    words = [told["text"] for told in client.all("bot-tts-text")]
    assert " ".join(words) == "One, two, three. Four, five, six."
    assert all(a < b for a, b in pairwise(client.when("bot-tts-text")))
    assert client.when("bot-tts-text")[3] - begun_ms == pytest.approx(900, abs=50)


class Guesses(FrameProcessor):
    """Asks the model before the user is done, and then wants the answer, or not."""

    guessed = 0

    @handles(ClientMessageFrame)
    async def obey(self, frame: ClientMessageFrame) -> None:
        if frame.kind == "guess":
            self.guessed = self.new_response()
            request = LLMRequestFrame((Message("user", "count"),), speculative=True)
            await self.push(request, response=self.guessed)
        elif frame.kind == "want":
            await self.push(ResponseCommittedFrame(self.guessed))
        else:
            self.interrupt("not wanted")


async def guess(then: str) -> tuple[Client, Client]:
    """What the client was told before the guess was decided, and all."""
    call = Call([Guesses(), ScriptedLLM(["One."]), ScriptedTTS(delay_ms=5_000)])
    before = Client()
    call.at(1, lambda: call.client.tell_bot("client-message", {"t": "guess"}))
    call.at(2, lambda: before.got.extend(call.client.got))
    call.at(2, lambda: call.client.tell_bot("client-message", {"t": then}))
    return before, await call.run(3)


async def test_what_is_made_on_a_guess_is_told_when_it_is_wanted() -> None:
    before, client = await guess("want")
    kinds = ("user-llm-text", "bot-llm-started", "bot-llm-text", "bot-output", "bot-llm-stopped")
    assert before.order(*kinds) == []
    assert client.order(*kinds)[:5] == list(kinds)


async def test_a_guess_that_was_wrong_is_never_told() -> None:
    _, client = await guess("drop")
    assert {one["type"] for _, one in client.got} == {"bot-ready", "server-message", "metrics"}
    assert [told["state"] for told in client.app("voxline.state")] == ["listening"]


# --- beside the conversation ------------------------------------------------------------------------------------------


async def test_whose_turn_it_is_follows_from_the_facts() -> None:
    client = await talk(barges_in=True)
    assert [told["state"] for told in client.app("voxline.state")] == [
        "listening", "hearing", "listening", "thinking", "speaking", "hearing", "listening", "thinking", "speaking",
        "listening",
    ]  # fmt: skip


async def test_each_turn_tells_where_its_time_went() -> None:
    client = await talk(barges_in=True)
    first, second = client.app("voxline.turn")
    assert (first["turn"], second["turn"]) == (1, 2)
    for turn in (first, second):
        assert list(turn["steps"]) == ["silence", "transcript", "reply", "voice", "heard"]
        assert turn["voice_to_voice_ms"] == pytest.approx(sum(turn["steps"].values()), abs=0.5)
        assert turn["steps"]["silence"] == pytest.approx(520, abs=20)
        assert [turn["steps"][step] for step in ("transcript", "reply", "voice")] == [30, 100, 50]


async def test_what_was_said_in_passing_begins_no_turn() -> None:
    bot = parts(heard=["count", "mm-hm"])
    call = Call(bot)
    controller = bot[2]
    assert isinstance(controller, SessionController)
    call.client.say(tone(1000))
    call.client.say(silence(1300))
    call.client.say(tone(700))
    call.client.say(silence(6000))
    call.at(7, lambda: controller.session.say("Are you there?"))
    client = await call.run(10)
    assert client.order("bot-started-speaking", "bot-interrupted") == ["bot-started-speaking"] * 3
    assert [turn["turn"] for turn in client.app("voxline.turn")] == [1]


def test_an_answer_that_was_begun_before_the_words_were_final_took_no_time_there() -> None:
    waiting, ms = TurnLatency(), 1_000_000
    waiting.spoke(0, 500 * ms)
    waiting.mark("reply", 600 * ms)
    waiting.mark("voice", 650 * ms)
    waiting.understood(700 * ms, "count")
    turn = waiting.heard(800 * ms)
    assert turn is not None
    assert turn["steps"] == {"silence": 500, "transcript": 200, "reply": 0, "voice": 0, "heard": 100}
    assert turn["voice_to_voice_ms"] == 800
    assert waiting.heard(900 * ms) is None


async def test_the_time_of_what_was_typed_begins_with_it() -> None:
    call = Call(parts())
    call.at(1, lambda: call.client.tell_bot("send-text", {"content": "count"}))
    client = await call.run(6)
    [turn] = client.app("voxline.turn")
    assert [turn["steps"][step] for step in ("silence", "transcript", "reply", "voice")] == [0, 0, 100, 50]


async def test_services_tell_how_long_they_took_in_seconds() -> None:
    client = await talk()
    stt, llm, tts, _ = client.all("metrics")
    assert stt["ttfb"] == [{"processor": "ScriptedSTT", "value": 0.03}]
    assert llm["processing"] == [{"processor": "ScriptedLLM", "value": 0.11}]
    assert "characters" not in llm
    assert tts["characters"] == [{"processor": "ScriptedTTS", "value": 16}]


@pytest.mark.parametrize(
    ("tools", "name", "arguments", "result"),
    [("none", None, None, None), ("name", "look_up", None, None), ("full", "look_up", {"where": "here"}, "blue")],
)
async def test_of_a_tool_the_client_is_told_what_it_may_know(
    tools: Any, name: str | None, arguments: object, result: str | None
) -> None:
    tool = ScriptedTool("look_up", "blue", takes_ms=200, arguments='{"where": "here"}')
    call = Call(parts(answers=[[tool, "It is blue."]]), tools=tools)
    call.at(1, lambda: call.client.tell_bot("send-text", {"content": "What colour is it?"}))
    client = await call.run(6)
    [started], [running], [stopped] = (
        client.all(f"llm-function-call-{what}") for what in ("started", "in-progress", "stopped")
    )
    assert [told.get("function_name") for told in (started, running, stopped)] == [name] * 3
    assert running["tool_call_id"] == stopped["tool_call_id"]
    assert running.get("arguments") == arguments
    assert stopped.get("result") == result


async def test_what_goes_wrong_is_told_without_what_it_says() -> None:
    call = Call(parts(answers=[ValueError("the key is 1234, at /etc/keys")]))
    call.at(1, lambda: call.client.tell_bot("send-text", {"content": "Hello?"}))
    client = await call.run(4)
    errors = client.all("error")
    assert errors[0]["error"] == "Something went wrong in the bot (ValueError)."
    assert not any("1234" in json.dumps(message) for _, message in client.got)


async def test_how_loud_both_are_is_told_ten_times_a_second_where_it_is_asked_for() -> None:
    call = Call([ScriptedTTS()], levels=True)
    call.client.say(tone(1000))
    call.client.say(silence(1000))
    client = await call.run(2)
    levels = [told["value"] for told in client.all("user-audio-level")]
    assert len(levels) == len(client.all("bot-audio-level")) == 20
    assert levels[5] == pytest.approx(8_000 / 32_768 / 2**0.5, abs=0.01)
    assert levels[-1] < 0.001
    assert (await talk()).all("user-audio-level") == []


# --- whom it tells ----------------------------------------------------------------------------------------------------


async def test_a_client_of_version_1_gets_what_it_knows() -> None:
    client = await talk(version="1.2.0")
    assert client.all("bot-ready")[0]["version"] == "1.4.0"
    outputs = client.all("bot-output")
    assert [one["text"] for one in outputs if not one["spoken"]] == ["One, two, three.", "Four, five, six."]
    assert [one["text"] for one in outputs if one["spoken"]] == ["One,", "two,", "three.", "Four,", "five,", "six."]
    assert all({*one} == {"text", "spoken", "aggregated_by"} for one in outputs)


async def test_nothing_is_sent_before_the_client_is_ready_and_then_what_it_missed() -> None:
    call = Call(parts(), ready=False)
    call.client.say(tone(1000))
    call.client.say(silence(3000))
    seen: list[int] = []
    call.at(1.9, lambda: seen.append(len(call.client.got)))
    call.at(1.9, call.client.be_ready)
    client = await call.run(6)
    assert seen == [0]
    kinds = [one["type"] for _, one in client.got]
    assert kinds[0] == "bot-ready"
    assert kinds.index("user-transcription") < kinds.index("bot-started-speaking")


async def test_what_waits_for_a_client_that_never_gets_ready_is_bounded() -> None:
    class Chatty(FrameProcessor):
        @handles(InputTextFrame)
        async def chat(self, frame: InputTextFrame) -> None:
            for number in range(600):
                await self.push(ServerMessageFrame(json.dumps({"type": "n", "number": number})))

    call = Call([Chatty(), ScriptedTTS()], ready=False)
    call.at(1, lambda: call.client.type("go"))
    call.at(2, call.client.be_ready)
    client = await call.run(3)
    assert [told["number"] for told in client.app("n")] == list(range(100, 600))
    assert call.rtvi.dropped == 100


async def test_what_a_client_missed_while_it_was_away_is_told_when_it_is_heard_again() -> None:
    class Away(Client):
        there = True

        def send_message(self, text: str) -> bool:
            if self.there:
                super().send_message(text)
            return self.there

    client, other = Away(), await talk()
    call = Call(parts(), client=client)
    client.say(tone(1000))
    client.say(silence(6000))
    call.at(1.5, lambda: setattr(client, "there", False))
    call.at(4, lambda: setattr(client, "there", True))
    call.at(5, lambda: client.send_text("ping: 5000"))
    await call.run(7)
    assert [one["type"] for _, one in client.got] == [one["type"] for _, one in other.got]
    assert [at_ms for at_ms, _ in client.got if 1500 < at_ms < 5000] == []
    assert call.rtvi.dropped == 0


async def test_a_client_that_says_again_that_it_is_ready_is_greeted_again() -> None:
    call = Call(parts())
    call.at(1, call.client.be_ready)
    client = await call.run(2)
    assert len(client.all("bot-ready")) == 2
    assert [told["state"] for told in client.app("voxline.state")] == ["listening", "listening"]


async def test_a_client_that_is_gone_costs_nothing_but_its_messages() -> None:
    class Gone(Client):
        def send_message(self, text: str) -> None:
            raise ConnectionResetError

    call = Call(parts(), client=Gone())
    call.client.say(tone(1000))
    call.client.say(silence(3000))
    client = await call.run(6)
    assert call.rtvi.dropped > 20
    assert len(client.heard_samples()) > 0


async def test_a_transport_with_messages_of_its_own_keeps_them_until_a_client_speaks_rtvi() -> None:
    class Tells(FrameProcessor):
        @handles(InputTextFrame)
        async def tell(self, frame: InputTextFrame) -> None:
            await self.push(ServerMessageFrame(json.dumps({"type": frame.text})))

    call = Call([Tells(), ScriptedTTS()], ready=False, only_if_asked=True)
    call.at(1, lambda: call.client.type("first"))
    call.at(2, call.client.be_ready)
    call.at(3, lambda: call.client.type("second"))
    client = await call.run(4)
    assert [message.data for message in client.messages] == ['{"type": "first"}']
    assert (len(client.app("first")), len(client.app("second"))) == (0, 1)


async def test_without_a_client_the_conversation_is_the_same() -> None:
    with_one, without = Call(parts()), Call(parts(), ready=False)
    for call in (with_one, without):
        call.client.say(tone(1000))
        call.client.say(silence(3000))
        await call.run(6)
    assert np.array_equal(with_one.client.heard_samples(), without.client.heard_samples())
