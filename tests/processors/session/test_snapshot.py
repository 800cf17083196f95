"""A session that goes on in another process, and what it says of itself."""

import pytest
from voxline.pipeline import LLMRequestFrame, Message, SessionError
from voxline.processors import ScriptedLLM
from voxline.processors.session import SessionSnapshot
from voxline.processors.testing.session_bench import SessionBench


async def test_another_session_goes_on_with_the_history():
    async with SessionBench(["Hello Ann."], instructions="Be brief.", idle_timeout_s=77) as bench:
        await bench.user_says("I am Ann")
        await bench.advance(2_000)
        text = bench.session.snapshot().to_json()
    snapshot = SessionSnapshot.from_json(text)
    async with SessionBench(["You are Ann."], resume=snapshot) as bench:
        assert bench.session.settings.idle_timeout_s == 77
        await bench.user_says("who am I")
        assert isinstance(bench.model, ScriptedLLM)
        assert bench.model.requests == [
            LLMRequestFrame(
                (
                    Message("system", "Be brief."),
                    Message("user", "I am Ann"),
                    Message("assistant", "Hello Ann."),
                    Message("user", "who am I"),
                )
            )
        ]
        await bench.advance(2_000)
        # Turns keep their numbers, and what is counted goes on.
        assert [turn.id for turn in bench.session.turns] == [1, 2, 3, 4]
        assert bench.session.statistics.turns["user_audio"] == 2


async def test_settings_given_go_before_those_of_the_snapshot():
    async with SessionBench(idle_timeout_s=77) as bench:
        snapshot = bench.session.snapshot()
    async with SessionBench(resume=snapshot, idle_timeout_s=5) as bench:
        assert bench.session.settings.idle_timeout_s == 5


@pytest.mark.parametrize(
    ("text", "where"),
    [("", "the whole"), ("{}", "version"), ('{"version": 2}', "version"), ("[1]", "the whole")],
)
def test_what_is_no_snapshot_is_told(text: str, where: str):
    with pytest.raises(SessionError, match=f"no snapshot of a session: {where}"):
        SessionSnapshot.from_json(text)


async def test_diagnostics_say_what_is_going_on_and_nothing_of_what_was_said():
    async with SessionBench(["The secret is blue."], model_ms=400) as bench:
        await bench.user_says("what is the secret")
        await bench.advance(1_000)
        found = bench.session.diagnostics()
        assert (found["state"], found["response"], found["playing"], found["in_state_ms"]) == ("speaking", 1, True, 600)
        assert found["due_ms"]["duration"] == 3_600_000 - bench.now_ms
        assert found["last_transitions"][-1] == "-600 ms: PROCESSING -> SPEAKING (BotStartedSpeakingFrame)"
        assert "secret" not in str(found)
