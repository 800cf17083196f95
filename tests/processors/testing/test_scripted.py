"""Stand-ins for services, and with them the whole of a `Fallback`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from voxline.pipeline import (
    InputAudioFrame,
    InterimTranscriptionFrame,
    LLMRequestFrame,
    OutputAudioFrame,
    ResponseEndFrame,
    TextFrame,
    ToolCallFrame,
    ToolResultFrame,
    TranscriptionFrame,
    UsageFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from voxline.pipeline.errors import (
    AuthenticationError,
    BadAnswerError,
    RateLimitError,
    ServiceDownError,
    ServiceTimeout,
    SettingsError,
)
from voxline.pipeline.frames import Message, ServiceMetricsFrame, ToolCall
from voxline.pipeline.testing import Bench, BenchFailure, Harness, frame
from voxline.processors.fallback.fallback import Fallback
from voxline.processors.service.base import Service
from voxline.processors.stt.utterance import Transcript
from voxline.processors.testing.scripted import (
    HANG,
    Heard,
    ScriptedLLM,
    ScriptedSTT,
    ScriptedTool,
    ScriptedTTS,
)

ASK = LLMRequestFrame((Message("user", "hello"),))


def texts(bench: Bench) -> list[str]:
    return [one.text for one in bench.down if isinstance(one, TextFrame)]


def words(bench: Bench) -> list[str]:
    return [word.text for one in bench.down if isinstance(one, OutputAudioFrame) for word in one.words]


def finals(bench: Bench) -> list[TranscriptionFrame]:
    return [one for one in bench.down if isinstance(one, TranscriptionFrame)]


def metrics(bench: Bench) -> list[ServiceMetricsFrame]:
    return [one for one in bench.up if isinstance(one, ServiceMetricsFrame)]


async def say(bench: Bench, frames: int = 10) -> None:
    """The user says something: 20 ms a frame."""
    await bench.send(UserStartedSpeakingFrame(0))
    for _ in range(frames):
        await bench.advance(20)
        await bench.send(InputAudioFrame(np.zeros(320, np.int16), 16_000))
    await bench.send(UserStoppedSpeakingFrame(0))


# --- ears -------------------------------------------------------------------------------------------------------------


async def test_ears_understand_the_next_text_each_time(harness: Harness):
    bench = await harness(ScriptedSTT(["one", "two"], delay_ms=30))
    for text in ("one", "two", ""):
        await say(bench)
        await bench.advance(29)
        assert finals(bench) == []
        await bench.advance(1)
        assert [one.text for one in finals(bench)] == [text]
        bench.clear()


async def test_ears_say_how_long_it_took(harness: Harness):
    bench = await harness(ScriptedSTT(["one"], delay_ms=30))
    await say(bench)
    await bench.advance(30)
    assert finals(bench) == [TranscriptionFrame("one", audio_ms=200, decode_ms=30)]


async def test_ears_can_tell_something_while_the_user_speaks(harness: Harness):
    script = [Heard(40), Transcript("tu", final=False), Heard(100), 15, Transcript("turn", end_ms=100), "left"]
    bench = await harness(ScriptedSTT([script], delay_ms=5))
    await bench.send(UserStartedSpeakingFrame(0))
    told: list[tuple[float, str, bool]] = []
    for _ in range(10):
        await bench.advance(20)
        await bench.send(InputAudioFrame(np.zeros(320, np.int16), 16_000))
    await bench.send(UserStoppedSpeakingFrame(0))
    await bench.advance(5)
    for one in bench.down:
        if isinstance(one, InterimTranscriptionFrame):
            told.append((0, one.text, True))
        elif isinstance(one, TranscriptionFrame):
            told.append((one.audio_ms, one.text, one.more))
    assert told == [(0, "tu", True), (100, "turn", True), (100, "left", False)]


async def test_an_error_of_ears_is_told_as_it_is_and_the_next_text_is_understood(harness: Harness):
    bench = await harness(ScriptedSTT([KeyError("no ears"), "two"]))
    await say(bench)
    bench.expect_error("no ears", error="KeyError", processor="ScriptedSTT")
    await say(bench)
    assert [(one.text, one.failed) for one in finals(bench)] == [("", True), ("two", False)]


async def test_ears_that_hang_do_so_unless_there_is_a_deadline(harness: Harness):
    bench = await harness(ScriptedSTT([HANG]))
    await say(bench)
    await bench.advance(3_600_000)
    assert finals(bench) == []
    bench = await harness(ScriptedSTT([HANG, "two"], first_timeout_s=2, attempts=2))
    await say(bench)
    await bench.advance(2_250)
    assert [one.text for one in finals(bench)] == ["two"]


# --- models -----------------------------------------------------------------------------------------------------------


async def test_a_model_gives_its_answers_piece_by_piece(harness: Harness):
    bench = await harness(ScriptedLLM([["One", " two."], "Three."], delay_ms=100, between_ms=10))
    await bench.send(ASK)
    await bench.advance(99)
    assert bench.down == []
    await bench.advance(1)
    assert bench.down == [TextFrame("One")]
    await bench.advance(10)
    assert bench.down == [TextFrame("One"), TextFrame(" two."), ResponseEndFrame()]
    await bench.send(ASK, ASK)
    await bench.advance(200)
    assert bench.down[3:] == [TextFrame("Three."), ResponseEndFrame(), ResponseEndFrame()]


async def test_with_sentences_pieces_are_put_together(harness: Harness):
    bench = await harness(ScriptedLLM([["O", "ne two. Th", "ree"]], sentences=True))
    await bench.send(ASK)
    assert "".join(texts(bench)) == "One two. Three"
    assert len(texts(bench)) == 2


async def test_a_number_is_a_wait_and_nothing_else(harness: Harness):
    bench = await harness(ScriptedLLM([["a", 300, "b"]], between_ms=10))
    await bench.send(ASK)
    await bench.advance(309)
    assert texts(bench) == ["a"]
    await bench.advance(1)
    assert texts(bench) == ["a", "b"]


async def test_an_entry_is_used_up_when_its_delay_is_over(harness: Harness):
    bench = await harness(ScriptedLLM(["One."], delay_ms=100))
    await bench.send(ASK, response=1)
    await bench.advance(50)
    await bench.interrupt()
    await bench.send(ASK, response=2)
    await bench.advance(100)
    assert texts(bench) == ["One."]


async def test_a_model_counts_what_it_is_told_to(harness: Harness):
    bench = await harness(ScriptedLLM(["One."], usage=(10, 20)))
    await bench.send(ASK)
    assert [one for one in bench.up if isinstance(one, UsageFrame)] == [UsageFrame(10, 20)]


async def test_an_error_of_a_model_ends_the_response_and_has_its_own_name(harness: Harness):
    llm = ScriptedLLM([["One.", ConnectionError("it is away")], "Two."])
    bench = await harness(llm)
    await bench.send(ASK)
    bench.expect_error("^it is away$", error="ConnectionError", processor="ScriptedLLM")
    assert bench.down == [TextFrame("One."), ResponseEndFrame()]
    await bench.send(ASK)
    assert texts(bench) == ["One.", "Two."]
    assert [len(request.messages) for request in llm.requests] == [1, 1]


async def test_with_attempts_the_next_entry_is_the_next_attempts(harness: Harness):
    llm = ScriptedLLM([["One. ", BadAnswerError("What?")], "Two."], attempts=2, backoff_s=0)
    bench = await harness(llm)
    await bench.send(ASK)
    assert texts(bench) == ["One. ", "Two."]
    assert metrics(bench)[0].errors == ("BadAnswerError",)
    # The second was told what the first had said.
    assert llm.asked[1][:2] == (Message("user", "hello"), Message("assistant", "One. ", cut=True))


async def test_a_tool_only_seems_to_run(harness: Harness):
    bench = await harness(ScriptedLLM([[ScriptedTool("weather", "rain", takes_ms=500), "It rains."]]))
    await bench.send(ASK)
    await bench.advance(499)
    assert bench.up == [ToolCallFrame("call-1", "weather", "{}")]
    await bench.advance(1)
    assert ToolResultFrame("call-1", "rain") in bench.up
    assert texts(bench) == ["It rains."]


async def test_a_tool_that_is_cut_has_a_result_too(harness: Harness):
    bench = await harness(ScriptedLLM([[ScriptedTool("weather", "rain", takes_ms=500), "It rains."]]))
    await bench.send(ASK, response=1)
    await bench.interrupt()
    assert ToolResultFrame("call-1", "cancelled") in bench.up


async def test_a_call_runs_a_tool_that_it_was_given(harness: Harness):
    async def weather(town: str) -> str:
        """How the weather is."""
        asked.append(town)
        return "rain"

    asked: list[str] = []
    llm = ScriptedLLM([["Let me see.", ToolCall("1", "weather", '{"town": "Ulm"}')], "It rains."], tools=[weather])
    bench = await harness(llm)
    await bench.send(ASK)
    await bench.advance(10)
    assert asked == ["Ulm"]
    assert texts(bench) == ["Let me see.", "It rains."]
    assert [one.role for one in llm.asked[1]] == ["user", "assistant", "tool"]
    assert [one for one in bench.up if isinstance(one, ToolCallFrame | ToolResultFrame)] == [
        frame(ToolCallFrame, name="weather"), frame(ToolResultFrame, text="rain")
    ]  # fmt: skip


# --- voices -----------------------------------------------------------------------------------------------------------


async def test_a_voice_says_a_tone_for_each_word(harness: Harness):
    bench = await harness(ScriptedTTS(word_ms=100, delay_ms=20))
    await bench.send(TextFrame("Ten meters on."))
    await bench.advance(19)
    assert bench.down == []
    await bench.advance(1)
    frames = [one for one in bench.down if isinstance(one, OutputAudioFrame)]
    assert [one.duration_ms for one in frames] == [20] * 15
    assert [number for number, one in enumerate(frames) if one.words] == [0, 5, 10]
    assert words(bench) == ["Ten", "meters", "on."]


async def test_its_chunks_can_come_in_their_time(harness: Harness):
    bench = await harness(ScriptedTTS(word_ms=40, between_ms=15))
    await bench.send(TextFrame("Ten meters."))
    await bench.advance(30)
    assert len(bench.down) == 3


async def test_one_that_does_not_tell_its_words_gives_them_at_once(harness: Harness):
    bench = await harness(ScriptedTTS(timed=False))
    await bench.send(TextFrame("Ten meters."))
    assert words(bench) == ["Ten meters."]


@pytest.mark.parametrize("error", [RuntimeError("broken"), ServiceDownError("broken")])
async def test_a_fault_comes_after_the_first_word_and_is_told_as_it_is(harness: Harness, error: Exception):
    bench = await harness(ScriptedTTS(faults={1: error}))
    await bench.send(TextFrame("One two."), TextFrame("Three four."), TextFrame("Lost."), response=1)
    bench.expect_error("^broken$", error=type(error).__name__, processor="ScriptedTTS")
    await bench.send(TextFrame("Five six."), response=2)
    assert words(bench) == ["One", "two.", "Three", "Five", "six."]


async def test_a_fault_may_be_a_wait_or_a_hang(harness: Harness):
    bench = await harness(ScriptedTTS(faults={0: 300, 1: HANG}))
    await bench.send(TextFrame("One two."))
    assert words(bench) == ["One"]
    await bench.advance(300)
    assert words(bench) == ["One", "two."]
    await bench.send(TextFrame("One two."))
    await bench.advance(3_600_000)
    assert words(bench) == ["One", "two.", "One"]


# --- connections ------------------------------------------------------------------------------------------------------


def fakes(**options: Any) -> list[Service[Any]]:
    return [ScriptedSTT([], **options), ScriptedLLM([], **options), ScriptedTTS(**options)]


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_connecting_can_take_its_time_and_fail(harness: Harness, number: int):
    bench = await harness(fakes(connects=[1_500])[number])
    assert bench.now_ms == 1_500
    bench = Bench(fakes(connects=[AuthenticationError("No key.")])[number])
    with pytest.raises(BenchFailure, match="No key"):
        await bench.start()
    bench = Bench(fakes(connects=[HANG], connect_timeout_s=3)[number])
    with pytest.raises(BenchFailure, match="not ready within 3 s"):
        await bench.start()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_limits_are_those_of_services(number: int):
    assert fakes(attempts=4)[number].settings.attempts == 4
    assert fakes()[number].settings.attempts == 1
    with pytest.raises(SettingsError):
        fakes(attempts=0)


# --- several in the place of one --------------------------------------------------------------------------------------

DOWN = ServiceDownError("It is away.")
FAULTS: Sequence[Any] = [DOWN, BadAnswerError("What?"), AuthenticationError("No key."), RateLimitError("Slower.", 5)]


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_next_voice_goes_on_with_the_word_that_was_begun(harness: Harness, fault: Exception):
    first, second = ScriptedTTS(faults={0: fault}), ScriptedTTS()
    bench = await harness(Fallback([first, second]))
    await bench.send(TextFrame("Ten meters on."))
    assert (first.asked, second.asked) == (["Ten meters on."], ["Ten meters on."])
    assert words(bench) == ["Ten", "meters", "on."]
    assert metrics(bench)[0].service == "ScriptedTTS"
    assert metrics(bench)[0].errors == (type(fault).__name__,)


async def test_the_next_voice_takes_over_from_one_that_hangs(harness: Harness):
    first, second = ScriptedTTS(faults={0: HANG}, between_timeout_s=2), ScriptedTTS()
    bench = await harness(Fallback([first, second]))
    await bench.send(TextFrame("Ten meters on."))
    await bench.advance(2_000)
    assert words(bench) == ["Ten", "meters", "on."]


async def test_the_next_model_goes_on_where_the_first_stopped(harness: Harness):
    first, second = ScriptedLLM([["One. ", "Two. ", DOWN]]), ScriptedLLM([["Three."]])
    bench = await harness(Fallback([first, second]))
    await bench.send(ASK)
    assert "".join(texts(bench)).split() == ["One.", "Two.", "Three."]
    assert bench.down[-1] == ResponseEndFrame()
    assert second.asked[0][1].text.split() == ["One.", "Two."]


async def test_the_next_ears_hear_all_that_was_not_told(harness: Harness):
    first = ScriptedSTT([[Heard(60), Transcript("turn", end_ms=60), Heard(100), DOWN]])
    second = ScriptedSTT(["left"])
    bench = await harness(Fallback([first, second]))
    await say(bench)
    assert [(one.text, one.audio_ms, one.more) for one in finals(bench)] == [("turn", 60, True), ("left", 140, False)]


async def test_the_one_that_failed_is_asked_again_when_its_rest_is_over(harness: Harness):
    first, second = ScriptedTTS(faults={0: DOWN, 1: DOWN}), ScriptedTTS()
    bench = await harness(Fallback([first, second]))
    await bench.send(TextFrame("One."))
    assert (len(first.asked), len(second.asked)) == (1, 1)
    await bench.advance(999)
    await bench.send(TextFrame("Two."))
    assert (len(first.asked), len(second.asked)) == (1, 2)
    await bench.advance(1)
    await bench.send(TextFrame("Three."))
    assert (len(first.asked), len(second.asked)) == (2, 3)
    # The second rest in a row is twice as long.
    await bench.advance(1_999)
    await bench.send(TextFrame("Four."))
    assert len(first.asked) == 2
    await bench.advance(1)
    await bench.send(TextFrame("Five."))
    assert (len(first.asked), len(second.asked)) == (3, 4)


async def test_one_that_asks_for_a_pause_rests_so_long(harness: Harness):
    first, second = ScriptedTTS(faults={0: RateLimitError("Slower.", 30)}), ScriptedTTS()
    bench = await harness(Fallback([first, second]))
    await bench.send(TextFrame("One."))
    await bench.advance(29_999)
    await bench.send(TextFrame("Two."))
    assert len(first.asked) == 1
    await bench.advance(1)
    await bench.send(TextFrame("Three."))
    assert len(first.asked) == 2


async def test_where_all_have_failed_the_last_error_is_told_and_the_next_text_is_spoken(harness: Harness):
    first, second = ScriptedTTS(faults={0: DOWN}), ScriptedTTS(faults={0: BadAnswerError("What?")})
    bench = await harness(Fallback([first, second]))
    await bench.send(TextFrame("One two three."), response=1)
    bench.expect_error("What", error="BadAnswerError")
    assert words(bench) == ["One"]
    await bench.send(TextFrame("Four."), response=2)
    assert words(bench)[-1] == "Four."


async def test_where_all_rest_they_are_asked_all_the_same(harness: Harness):
    first, second = ScriptedTTS(faults={0: DOWN}), ScriptedTTS(faults={0: DOWN})
    bench = await harness(Fallback([first, second]))
    await bench.send(TextFrame("One."), response=1)
    bench.expect_error()
    await bench.send(TextFrame("Two."), response=2)
    assert words(bench)[-1] == "Two."


async def test_where_one_is_there_the_others_may_be_missing_at_the_start(harness: Harness):
    first, second = ScriptedTTS(connects=[DOWN]), ScriptedTTS()
    bench = await harness(Fallback([first, second]))
    await bench.send(TextFrame("One."))
    assert (first.asked, second.asked) == ([], ["One."])
    await bench.advance(1_000)
    await bench.send(TextFrame("Two."))
    assert (first.asked, second.asked) == (["Two."], ["One."])


async def test_where_none_is_there_the_start_fails():
    bench = Bench(Fallback([ScriptedTTS(connects=[DOWN]), ScriptedTTS(connects=[AuthenticationError("No key.")])]))
    with pytest.raises(BenchFailure, match="It is away"):
        await bench.start()


async def test_an_interruption_ends_whoever_speaks(harness: Harness):
    first, second = ScriptedTTS(faults={0: DOWN}), ScriptedTTS(faults={0: HANG})
    bench = await harness(Fallback([first, second]))
    await bench.send(TextFrame("Ten meters on."), response=1)
    await bench.interrupt()
    bench.clear()
    await bench.send(TextFrame("Stop."), response=2)
    assert words(bench) == ["Stop."]


async def test_a_members_settings_can_be_changed_while_it_runs(harness: Harness):
    first, second = ScriptedTTS(), ScriptedTTS()
    bench = await harness(Fallback([first, second]))
    second.update(attempts=3)
    await bench.settle()
    assert (first.settings.attempts, second.settings.attempts) == (1, 3)


async def test_members_can_be_used_again_when_the_run_is_over(harness: Harness):
    voice = ScriptedTTS()
    bench = await harness(Fallback([voice, ScriptedTTS()]))
    await bench.send(TextFrame("One."))
    await bench.close()
    bench = await harness(voice)
    await bench.send(TextFrame("Two."))
    assert voice.asked == ["One.", "Two."]


async def test_a_fallback_of_different_kinds_or_of_none_cannot_be():
    for members in ([], [ScriptedTTS(), ScriptedLLM([])]):
        with pytest.raises(SettingsError):
            Fallback(members)  # type: ignore[arg-type]


async def test_deadlines_of_the_members_are_their_own(harness: Harness):
    slow = ScriptedLLM(["Slow."], delay_ms=3_000, first_timeout_s=1)
    quick = ScriptedLLM(["Quick."], delay_ms=3_000, first_timeout_s=5)
    bench = await harness(Fallback([slow, quick]))
    await bench.send(ASK)
    await bench.advance(4_000)
    assert texts(bench) == ["Quick."]
    assert metrics(bench)[0].errors == (ServiceTimeout.__name__,)
