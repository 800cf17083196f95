"""A talk: what the tap makes of the facts, how it is told, and that it can be drawn."""

import io
from pathlib import Path

import pytest
from voxline.pipeline import (
    MissingExtraError,
    Pipeline,
    PipelineWorker,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    VirtualClock,
)
from voxline.pipeline.errors import VoxlineError
from voxline.pipeline.timeline import Timeline, TimelinePrinter, TimelineTap, draw
from voxline.processors import ScriptedLLM, ScriptedSTT, ScriptedTTS, SessionController
from voxline.transports.memory import MemoryTransport


async def converse(printer: TimelinePrinter | None = None, *, texts: tuple[str, ...] = ("count", "stop")) -> Timeline:
    """The caller speaks from 0 to 1 s, and from 3 s to 4 s, over the answer."""
    transport = MemoryTransport()
    tap = TimelineTap(None if printer is None else printer.add)
    parts = [
        ScriptedSTT(texts, delay_ms=30),
        SessionController(),
        ScriptedLLM([["One, two, three.", "Four, five, six."], "Stopped."], delay_ms=100, between_ms=10),
        ScriptedTTS(word_ms=400, delay_ms=20),
    ]
    clock = VirtualClock()
    worker = PipelineWorker(Pipeline([transport.input(), *parts, transport.output()]), clock=clock)
    worker.add_tap(tap)
    for start, end in ((0, 1), (3, 4)):
        clock.call_at(start * 10**9 + 2 * 10**8, lambda: worker.post(UserStartedSpeakingFrame(200)))
        clock.call_at(end * 10**9 + 5 * 10**8, lambda: worker.post(UserStoppedSpeakingFrame(500)))
    clock.call_at(8 * 10**9, transport.hang_up)
    await worker.run()
    return tap.timeline


async def test_who_spoke_when():
    timeline = await converse()
    assert [(speech.start_ms, speech.end_ms, speech.text) for speech in timeline.speech] == [
        (0, 1_000, "count"),
        (3_000, 4_000, "stop"),
    ]
    first, second = timeline.responses
    assert (first.start_ms, first.end_ms) == (1_650, 3_200)
    assert (first.text, first.cut, first.reason) == ("One, two, three. Four,", True, "the user asked for it")
    assert first.words[:4] == [(0, "One,"), (400, "two,"), (800, "three."), (1_200, "Four,")]
    assert first.made_ms > 1_550
    assert (second.start_ms, second.end_ms, second.text, second.cut) == (4_650, 5_050, "Stopped.", False)


async def test_where_each_turn_s_time_went():
    timeline = await converse()
    assert [turn.text for turn in timeline.turns] == ["count", "stop"]
    for turn in timeline.turns:
        assert turn.steps == {"silence": 500, "transcript": 30, "reply": 100, "voice": 20, "heard": 0}
        assert turn.voice_to_voice_ms == 650


async def test_a_sound_that_was_not_understood_belongs_to_the_turn_that_follows():
    timeline = await converse(texts=("", "stop"))
    assert [speech.text for speech in timeline.speech] == ["", "stop"]
    assert [(turn.text, turn.voice_to_voice_ms) for turn in timeline.turns] == [("stop", 650)]


async def test_a_turn_without_an_answer_has_no_times():
    timeline = await converse(texts=("", ""))
    assert [(turn.text, turn.steps) for turn in timeline.turns] == [("", None)]


async def test_a_cough_is_no_turn_and_the_answer_has_a_pause():
    timeline = await converse(texts=("count", ""))
    assert [turn.text for turn in timeline.turns] == ["count"]
    (answer,) = timeline.responses
    # Silent from when the detector is sure, 200 ms into the cough, until its words are there and are none.
    assert answer.pauses == [(3_200, 4_530)]
    assert (answer.text, answer.cut) == ("One, two, three. Four, five, six.", False)
    assert answer.at_ms(1_000) == 2_650
    assert answer.at_ms(2_000) == 1_650 + 2_000 + 1_330


async def test_it_is_told_in_lines():
    out = io.StringIO()
    printer = TimelinePrinter(out, bot="robot")
    printer.summary(await converse(printer))
    assert out.getvalue().splitlines() == [
        "  0.00 s  caller  count",
        "                  [silence 500 + transcript 30 + reply 100 + voice 20 + heard 0 = 650 ms]",
        "  3.00 s  caller  stop",
        "  1.65 s  robot   One, two, three. Four, -- (the user asked for it)",
        "                  [silence 500 + transcript 30 + reply 100 + voice 20 + heard 0 = 650 ms]",
        "  4.65 s  robot   Stopped.",
        "2 answers, 1 interruption, 8.0 s, voice to voice 650 ms, 150 ms without the silence (medians)",
    ]


async def test_on_a_terminal_a_last_line_says_who_speaks_and_is_taken_back():
    out = io.StringIO()
    printer = TimelinePrinter(out, live=True, in_time=False)
    printer.summary(await converse(printer))
    assert "\r\x1b[Kcaller speaks ...\r\x1b[K  0.00 s  caller  count\n" in out.getvalue()
    assert "silence" not in out.getvalue()


async def test_it_is_drawn(tmp_path: Path):
    pytest.importorskip("matplotlib")
    draw(await converse(), tmp_path / "talk.png", title="A talk", bot="robot")
    assert (tmp_path / "talk.png").read_bytes().startswith(b"\x89PNG")


def test_a_talk_in_which_nothing_happened_is_drawn_too(tmp_path: Path):
    pytest.importorskip("matplotlib")
    draw(Timeline(), tmp_path / "talk.png")
    assert (tmp_path / "talk.png").is_file()


def test_a_picture_that_cannot_be_written_is_told(tmp_path: Path):
    pytest.importorskip("matplotlib")
    with pytest.raises(VoxlineError, match=r"nowhere.*cannot be written: No such file"):
        draw(Timeline(), tmp_path / "nowhere" / "talk.png")


def nothing_is_installed(name: str) -> None:
    """In the place of `importlib.util.find_spec`."""


def test_without_matplotlib_the_error_has_the_command_that_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", nothing_is_installed)
    with pytest.raises(MissingExtraError, match=r"matplotlib.*pip install .*\[demo\]"):
        draw(Timeline(), tmp_path / "talk.png")
