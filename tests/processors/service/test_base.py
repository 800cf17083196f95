"""Base of all services: connections, attempts, deadlines, settings, metrics."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, ClassVar, Unpack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxline.pipeline import Frame, Pipeline, TextFrame, errors, handles
from voxline.pipeline.clock import Wait
from voxline.pipeline.errors import (
    AuthenticationError,
    BadAnswerError,
    BadRequestError,
    RateLimitError,
    ServiceDownError,
    ServiceError,
    ServiceTimeout,
    SettingsError,
)
from voxline.pipeline.frames import ServiceMetricsFrame
from voxline.pipeline.recording import Recording, replay
from voxline.pipeline.testing import Bench, BenchFailure, Harness
from voxline.processors.service.base import Limits, Service, ServiceCall, ServiceSettings, settings_of

SECRET = "sk-secret-0123"
HANG = "(hangs)"
Step = str | float | Exception
"""A piece of an answer, a wait in s, an error."""


class OracleSettings(ServiceSettings):
    """Settings of the service of these tests."""

    voice: str = "low"
    speed: float = 1.0


class Oracle(Service[OracleSettings]):
    """A scripted service: one entry for each attempt. ``connects``: the same for `connect`."""

    kind: ClassVar[str] = "oracle"
    reconnect_for: ClassVar[frozenset[str]] = frozenset({"voice"})

    def __init__(
        self,
        *script: Sequence[Step],
        connects: Sequence[Step] = (),
        name: str = "",
        refuses_to_close_s: float = 0,
        **limits: Unpack[Limits],
    ) -> None:
        self.settings = settings_of("Oracle", OracleSettings, **limits)
        self.name = name
        self.script = [*script]
        self.connects = [*connects]
        self.refuses_to_close_s = refuses_to_close_s
        self.log: list[str] = []
        self.calls: list[ServiceCall[str]] = []
        self.lives = True

    async def connect(self) -> None:
        self.log.append("connect")
        await self.play(self.connects.pop(0) if self.connects else 0.0)

    async def disconnect(self) -> None:
        self.log.append("disconnect")

    def alive(self) -> bool:
        return self.lives

    async def play(self, step: Step) -> None:
        if isinstance(step, Exception):
            raise step
        if step == HANG:
            await Wait()
        if isinstance(step, float):
            await self.clock.sleep(step)

    async def reply(self, question: str) -> AsyncGenerator[str]:
        self.log.append(f"ask at {self.now_ns / 1e6:g}")
        try:
            for step in self.script.pop(0) if self.script else [f"{question}!"]:
                await self.play(step)
                if isinstance(step, str):
                    yield step
        finally:
            self.log.append("closed")
            if self.refuses_to_close_s:
                seconds, self.refuses_to_close_s = self.refuses_to_close_s, 0
                await self.clock.sleep(seconds)
                self.log.append("closed at last")

    @handles(TextFrame)
    async def ask(self, frame: TextFrame) -> AsyncIterator[Frame]:
        call = ServiceCall[str](self, lambda member: member.reply(frame.text))
        self.calls.append(call)
        response = self.response
        async with aclosing(call.answer()) as answer:
            async for piece in answer:
                yield TextFrame(piece)
        await self.push_metrics(call, 1.0, response)


def texts(bench: Bench) -> list[str]:
    return [frame.text for frame in bench.down if isinstance(frame, TextFrame)]


def metrics(bench: Bench) -> list[ServiceMetricsFrame]:
    return [frame for frame in bench.up if isinstance(frame, ServiceMetricsFrame)]


def times(oracle: Oracle) -> list[float]:
    """Times of the questions, in ms."""
    return [float(line.split()[-1]) for line in oracle.log if line.startswith("ask")]


# --- connections ------------------------------------------------------------------------------------------------------


async def test_it_is_connected_before_the_first_frame_and_disconnected_at_the_end(harness: Harness):
    oracle = Oracle(connects=[3.0])
    bench = await harness(oracle)
    assert (oracle.log, bench.now_ms) == (["connect"], 3_000)
    await bench.send(TextFrame("hi"), TextFrame("ho"))
    assert texts(bench) == ["hi!", "ho!"]
    await bench.close()
    assert [line for line in oracle.log if "connect" in line] == ["connect", "disconnect"]
    assert not oracle.connected


async def failed_start(oracle: Oracle) -> str:
    bench = Bench(oracle)
    with pytest.raises(BenchFailure) as failure:
        await bench.start()
    return str(failure.value)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (AuthenticationError("Oracle does not take this key. Set ORACLE_KEY."), "Set ORACLE_KEY."),
        (ConnectionRefusedError(f"refused {SECRET}"), "Oracle cannot be reached (ConnectionRefusedError)."),
        (KeyError(SECRET), "Oracle failed: its library raised KeyError."),
    ],
)
async def test_a_failed_connection_fails_the_start_with_one_sentence(error: Exception, said: str):
    oracle = Oracle(connects=[error])
    message = await failed_start(oracle)
    assert said in message
    assert SECRET not in message
    assert message.count("\n") == 0
    assert oracle.log == ["connect", "disconnect"]


async def test_a_connection_has_a_deadline_and_the_message_names_the_setting():
    oracle = Oracle(connects=[HANG], connect_timeout_s=2)
    message = await failed_start(oracle)
    assert "Oracle was not ready within 2 s." in message
    assert "connect_timeout_s" in message
    assert oracle.log == ["connect", "disconnect"]


@pytest.mark.parametrize("timeout_s", [10.0, 60.0])
async def test_the_deadline_of_the_connection_is_the_one_that_was_set(harness: Harness, timeout_s: float):
    """The general deadline of start() does not replace it."""
    bench = await harness(Oracle(connects=[timeout_s - 1], connect_timeout_s=timeout_s))
    assert bench.now_ms == (timeout_s - 1) * 1000
    message = await failed_start(Oracle(connects=[HANG], connect_timeout_s=timeout_s))
    assert f"not ready within {timeout_s:g} s" in message


@pytest.mark.parametrize("error", [ServiceDownError("Gone."), ServiceTimeout("Slow."), ConnectionResetError()])
async def test_a_failure_that_breaks_the_connection_makes_a_new_one(harness: Harness, error: Exception):
    oracle = Oracle([error])
    bench = await harness(oracle)
    await bench.send(TextFrame("hi"))
    await bench.advance(1_000)
    assert texts(bench) == ["hi!"]
    assert [line for line in oracle.log if "connect" in line] == ["connect", "disconnect", "connect"]


async def test_after_other_failures_the_connection_stays(harness: Harness):
    oracle = Oracle([BadAnswerError("What?")], [KeyError()], [RateLimitError("Not so often.")], attempts=4)
    bench = await harness(oracle)
    await bench.send(TextFrame("hi"))
    await bench.advance(5_000)
    assert texts(bench) == ["hi!"]
    assert oracle.log.count("connect") == 1


async def test_a_lost_connection_is_made_again_before_the_question(harness: Harness):
    oracle = Oracle()
    bench = await harness(oracle)
    oracle.lives = False
    await bench.send(TextFrame("hi"))
    oracle.lives = True
    await bench.send(TextFrame("ho"))
    assert texts(bench) == ["hi!", "ho!"]
    assert [line for line in oracle.log if "connect" in line] == ["connect", "disconnect", "connect"]


async def test_a_connection_that_fails_counts_as_an_attempt(harness: Harness):
    oracle = Oracle([ServiceDownError("Gone.")], connects=[0.0, ServiceDownError("Still gone."), 0.0])
    bench = await harness(oracle)
    await bench.send(TextFrame("hi"))
    await bench.advance(2_000)
    assert texts(bench) == ["hi!"]
    assert [str(error) for error in oracle.calls[0].errors] == ["Gone.", "Still gone."]
    assert metrics(bench)[0].errors == ("ServiceDownError", "ServiceDownError")
    assert oracle.log.count("connect") == oracle.log.count("disconnect") + 1


class BadAtLeaving(Oracle):
    """A service whose `disconnect` raises, as with a broken connection."""

    async def disconnect(self) -> None:
        await super().disconnect()
        raise OSError(SECRET)


async def test_a_connection_that_fails_to_close_is_replaced_anyway(harness: Harness, caplog: pytest.LogCaptureFixture):
    oracle = BadAtLeaving([ServiceDownError("Gone.")])
    bench = await harness(oracle)
    await bench.send(TextFrame("hi"))
    await bench.advance(1_000)
    assert texts(bench) == ["hi!"]
    await bench.close()
    assert oracle.log.count("disconnect") == 2
    assert SECRET not in "".join(record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG)


# --- attempts ---------------------------------------------------------------------------------------------------------


async def test_retries_wait_longer_each_time(harness: Harness):
    oracle = Oracle(*[[BadAnswerError("What?")]] * 6, attempts=7, backoff_s=0.4, backoff_max_s=2)
    bench = await harness(oracle)
    await bench.send(TextFrame("hi"))
    await bench.advance(20_000)
    assert texts(bench) == ["hi!"]
    waits = [after - before for before, after in zip(times(oracle), times(oracle)[1:], strict=False)]
    # "Equal jitter": from half of it to all.
    for wait, pause_ms in zip(waits, [400, 800, 1_600, 2_000, 2_000, 2_000], strict=True):
        assert pause_ms / 2 <= wait <= pause_ms
    assert len({wait % 50 for wait in waits}) > 1


async def test_the_jitter_comes_from_the_workers_random_numbers(harness: Harness):
    async def asked(seed: int) -> list[float]:
        oracle = Oracle(*[[BadAnswerError("What?")]] * 4, attempts=5)
        bench = await harness(oracle, seed=seed)
        await bench.send(TextFrame("hi"))
        await bench.advance(20_000)
        return times(oracle)

    assert await asked(1) == await asked(1)
    assert await asked(1) != await asked(2)


async def test_when_all_attempts_fail_the_last_error_is_reported(harness: Harness):
    oracle = Oracle([BadAnswerError("One.")], [BadAnswerError("Two.")], [BadAnswerError("Three.")])
    bench = await harness(oracle)
    await bench.send(TextFrame("hi"))
    await bench.advance(5_000)
    assert bench.expect_error(error="BadAnswerError", processor="Oracle").message == "Three."
    assert texts(bench) == []
    assert oracle.calls[0].answered_by == ""
    await bench.send(TextFrame("ho"))
    assert texts(bench) == ["ho!"]


@pytest.mark.parametrize("error", [AuthenticationError("No key."), BadRequestError("No such model.")])
async def test_errors_that_cannot_be_retried_are_not_retried(harness: Harness, error: ServiceError):
    oracle = Oracle([error])
    bench = await harness(oracle)
    await bench.send(TextFrame("hi"))
    bench.expect_error(error=type(error).__name__)
    assert times(oracle) == [0]


async def test_a_pause_that_the_service_asks_for_is_kept(harness: Harness):
    oracle = Oracle([RateLimitError("Not so often.", wait_s=1.7)])
    bench = await harness(oracle)
    await bench.send(TextFrame("hi"))
    await bench.advance(5_000)
    assert times(oracle) == [0, 1_700]


async def test_a_service_that_asks_for_too_long_a_pause_has_failed(harness: Harness):
    oracle = Oracle([RateLimitError("Not so often.", wait_s=2.5)])
    bench = await harness(oracle)
    await bench.send(TextFrame("hi"))
    bench.expect_error("Not so often", error="RateLimitError")
    assert times(oracle) == [0]


async def test_a_service_without_a_pause_is_retried_after_the_usual_one(harness: Harness):
    oracle = Oracle([RateLimitError("Not so often.")])
    bench = await harness(oracle)
    await bench.send(TextFrame("hi"))
    await bench.advance(250)
    assert texts(bench) == ["hi!"]


async def test_a_thousand_attempts_are_possible(harness: Harness):
    oracle = Oracle(*[[BadAnswerError("What?")]] * 1_100, attempts=1_200, backoff_s=0.001, backoff_max_s=0.002)
    bench = await harness(oracle)
    await bench.send(TextFrame("hi"))
    await bench.advance(20_000)
    assert texts(bench) == ["hi!"]


# --- deadlines --------------------------------------------------------------------------------------------------------


async def test_the_first_piece_has_a_deadline_in_each_attempt(harness: Harness):
    oracle = Oracle([HANG], [1.4, "late"], [1.3, "in time"], first_timeout_s=1.35, between_timeout_s=9, backoff_s=0)
    bench = await harness(oracle)
    await bench.send(TextFrame("hi"))
    await bench.advance(10_000)
    assert texts(bench) == ["in time"]
    assert times(oracle) == [0, 1_350, 2_700]
    assert [type(error) for error in oracle.calls[0].errors] == [ServiceTimeout] * 2
    assert "first_timeout_s" in str(oracle.calls[0].errors[0])


async def test_further_pieces_have_another_deadline(harness: Harness):
    oracle = Oracle(["a", 0.5, "b", 0.5, "c", 2.0, "d"], ["e"], between_timeout_s=0.6, backoff_s=0)
    bench = await harness(oracle)
    await bench.send(TextFrame("hi"))
    await bench.advance(10_000)
    assert texts(bench) == ["a", "b", "c", "e"]
    assert times(oracle) == [0, 1_600]
    assert "between_timeout_s" in str(oracle.calls[0].errors[0])


async def test_a_missing_end_is_late_too(harness: Harness):
    oracle = Oracle(["a", HANG], attempts=1, between_timeout_s=0.6)
    bench = await harness(oracle)
    await bench.send(TextFrame("hi"))
    await bench.advance(600)
    bench.expect_error("sent nothing for 0.6 s", error="ServiceTimeout")


async def test_an_answer_that_does_not_close_is_abandoned_with_its_connection(
    harness: Harness,
):
    oracle = Oracle([HANG], ["second"], refuses_to_close_s=30, first_timeout_s=1, backoff_s=0)
    bench = await harness(oracle)
    await bench.send(TextFrame("hi"))
    await bench.advance(5_000)
    assert texts(bench) == ["second"]
    assert times(oracle) == [0, 1_500]
    assert oracle.log.count("connect") == 2
    assert "closed at last" not in oracle.log
    await bench.advance(60_000)
    assert bench.errors == []


async def test_an_interruption_closes_the_answer(harness: Harness):
    oracle = Oracle(["a", HANG])
    bench = await harness(oracle)
    await bench.send(TextFrame("hi"), response=1)
    assert texts(bench) == ["a"]
    await bench.interrupt()
    assert oracle.log[-1] == "closed"
    await bench.send(TextFrame("ho"), response=2)
    assert texts(bench) == ["a", "ho!"]
    assert bench.errors == []
    assert oracle.log.count("connect") == 1


async def test_an_interruption_during_the_backoff_ends_the_call(harness: Harness):
    oracle = Oracle([BadAnswerError("What?")])
    bench = await harness(oracle)
    await bench.send(TextFrame("hi"), response=1)
    await bench.interrupt()
    await bench.advance(5_000)
    assert times(oracle) == [0]
    assert texts(bench) == []


async def test_an_interruption_while_it_connects_leaves_nothing_half_done(harness: Harness):
    oracle = Oracle([ServiceDownError("Gone.")], connects=[0.0, 5.0], backoff_s=0)
    bench = await harness(oracle)
    await bench.send(TextFrame("hi"), response=1)
    await bench.advance(100)
    await bench.interrupt()
    await bench.send(TextFrame("ho"), response=2)
    assert texts(bench) == ["ho!"]
    # `disconnect` of the second connection ran before the third `connect`.
    assert [line for line in oracle.log if "connect" in line] == [*["connect", "disconnect"] * 2, "connect"]


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (BrokenPipeError(SECRET), ServiceDownError, "Oracle cannot be reached (BrokenPipeError). Is it running?"),
        (TimeoutError(SECRET), ServiceDownError, "Oracle cannot be reached (TimeoutError). Is it running?"),
        (ValueError(SECRET), ServiceError, "Oracle failed: its library raised ValueError."),
        (BadAnswerError("Mine."), BadAnswerError, "Mine."),
    ],
)
async def test_library_errors_become_service_errors_without_their_text(
    harness: Harness, error: Exception, kind: type[Exception], message: str, caplog: pytest.LogCaptureFixture
):
    oracle = Oracle([error], attempts=1)
    bench = await harness(oracle)
    await bench.send(TextFrame("hi"))
    assert bench.expect_error(error=kind.__name__).message == message
    (raised,) = bench.raised
    assert type(raised) is kind
    assert raised.__cause__ is (None if raised is error else error)
    assert SECRET not in "".join(record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG)


async def test_an_adapter_can_translate_its_librarys_errors(harness: Harness):
    class Polyglot(Oracle):
        def translate(self, error: Exception) -> ServiceError | None:
            return RateLimitError("Not so often.", 1.0) if isinstance(error, KeyError) else None

    oracle = Polyglot([KeyError(SECRET)])
    bench = await harness(oracle)
    await bench.send(TextFrame("hi"))
    await bench.advance(1_000)
    assert texts(bench) == ["hi!"]
    assert [str(error) for error in oracle.calls[0].errors] == ["Not so often."]


async def test_messages_use_the_services_name(harness: Harness):
    bench = await harness(Oracle([OSError()], attempts=1, name="delphi"))
    await bench.send(TextFrame("hi"))
    bench.expect_error("^delphi cannot be reached", processor="delphi")


# --- metrics ----------------------------------------------------------------------------------------------------------


async def test_metrics_say_who_answered_when_and_after_which_errors(harness: Harness):
    oracle = Oracle([0.1, BadAnswerError("What?")], [0.2, "a", 0.3, "b"], backoff_s=0, name="delphi")
    bench = await harness(oracle)
    await bench.send(TextFrame("hi"), response=1)
    await bench.advance(5_000)
    assert metrics(bench) == [ServiceMetricsFrame("delphi", "oracle", 1, 300.0, 600.0, 1.0, ("BadAnswerError",))]


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"attempts": 0}, ["attempts", "0", "greater than or equal to 1"]),
        ({"voice": 3}, ["voice", "3", "string"]),
        ({"first_timeout_s": float("inf")}, ["first_timeout_s", "inf", "finite"]),
        ({"pitch": 3}, ["pitch", "attempts"]),
    ],
)
def test_an_invalid_setting_is_one_sentence(fields: dict[str, Any], said: list[str]):
    with pytest.raises(SettingsError) as error:
        settings_of("Oracle", OracleSettings, **fields)
    message = str(error.value)
    assert message.startswith("Oracle: ")
    assert [words for words in said if words not in message] == []
    assert "\n" not in message


async def test_an_update_holds_from_the_next_question_on(harness: Harness):
    oracle = Oracle([BadAnswerError("What?")], [BadAnswerError("What?")])
    bench = await harness(oracle)
    oracle.update(attempts=2, backoff_s=1.0)
    await bench.send(TextFrame("hi"))
    await bench.advance(5_000)
    assert oracle.settings.attempts == 2
    assert bench.expect_error("What?")
    assert len(times(oracle)) == 2
    assert oracle.log.count("connect") == 1


async def test_an_invalid_update_raises_at_the_caller_and_changes_nothing(harness: Harness):
    oracle = Oracle()
    bench = await harness(oracle)
    before = oracle.settings
    for changes in ({"attempts": 0}, {"pitch": 1}, {"attempts": 2, "speed": "fast"}):
        with pytest.raises(SettingsError):
            oracle.update(**changes)
    await bench.settle()
    assert oracle.settings == before


async def test_two_updates_at_once_both_hold(harness: Harness):
    oracle = Oracle()
    bench = await harness(oracle)
    oracle.update(attempts=2)
    oracle.update(speed=3.0)
    await bench.settle()
    assert (oracle.settings.attempts, oracle.settings.speed) == (2, 3.0)


async def test_a_connection_setting_makes_a_new_connection(harness: Harness):
    oracle = Oracle()
    bench = await harness(oracle)
    oracle.update(voice="high")
    await bench.settle()
    assert oracle.log == ["connect"]
    await bench.send(TextFrame("hi"), TextFrame("ho"))
    assert [line for line in oracle.log if "connect" in line] == ["connect", "disconnect", "connect"]
    oracle.update(speed=2.0)
    await bench.send(TextFrame("hi"))
    assert oracle.log.count("connect") == 2


async def test_a_running_answer_keeps_its_connection(harness: Harness):
    oracle = Oracle(["a", 1.0, "b"])
    bench = await harness(oracle)
    await bench.send(TextFrame("hi"))
    oracle.update(voice="high")
    await bench.advance(1_000)
    assert texts(bench) == ["a", "b"]
    assert oracle.log.count("connect") == 1
    await bench.send(TextFrame("ho"))
    assert oracle.log.count("connect") == 2


async def test_an_update_is_in_the_recording_and_so_in_the_replay(harness: Harness, tmp_path: Path):
    oracle = Oracle()
    bench = await harness(oracle, record=tmp_path / "talk.jsonl")
    await bench.send(TextFrame("hi"))
    oracle.update(voice="high", attempts=7)
    await bench.send(TextFrame("ho"))
    await bench.close()
    again = Oracle()
    replayed = await replay(Recording.load(tmp_path / "talk.jsonl"), Pipeline([again]))
    assert [frame.text for frame in replayed.down if isinstance(frame, TextFrame)] == ["hi!", "ho!"]
    assert (again.settings.voice, again.settings.attempts) == ("high", 7)
    assert again.log == []


def test_an_update_before_the_run_still_checks_its_values():
    oracle = Oracle()
    with pytest.raises(SettingsError):
        oracle.update(attempts=0)


# --- whatever happens -------------------------------------------------------------------------------------------------

STEPS = st.one_of(
    st.just("piece"),
    st.sampled_from([0.1, 0.5, 1.0, 1.5]),
    st.sampled_from([HANG]),
    st.sampled_from(
        [ServiceDownError, ServiceTimeout, BadAnswerError, BadRequestError, OSError, KeyError, AuthenticationError]
    ).map(lambda kind: kind(SECRET if kind in (OSError, KeyError) else "What?")),
)


def assert_typed(bench: Bench) -> None:
    for error in bench.errors:
        assert SECRET not in error.message
        assert issubclass(getattr(errors, error.error), ServiceError)


@given(
    script=st.lists(st.lists(STEPS, max_size=4), max_size=8),
    connects=st.lists(st.sampled_from([0.0, 0.5, HANG, ServiceDownError("Gone."), OSError(SECRET)]), max_size=4),
    interrupts=st.lists(st.integers(0, 4), max_size=3),
    step_ms=st.sampled_from([50, 500, 1_000, 20_000]),
)
def test_every_question_ends_and_every_connection_closes(
    script: list[list[Step]],
    connects: list[Step],
    interrupts: list[int],
    step_ms: float,
):
    """Attempts are within their number; connections are closed before the next; the next question is answered."""

    async def run() -> None:
        oracle = Oracle(*script, connects=[0.0, *connects], first_timeout_s=1, between_timeout_s=1, connect_timeout_s=2)
        bench = Bench(oracle)
        await bench.start()
        try:
            for number in range(5):
                await bench.send(TextFrame("hi"), response=2 * number + 1)
                assert_typed(bench)
                await bench.advance(step_ms)
                assert_typed(bench)
                if number in interrupts:
                    await bench.interrupt()
                await bench.advance(60_000)
                assert not bench.busy()
                assert_typed(bench)
            oracle.script.clear()
            oracle.connects.clear()
            bench.clear()
            await bench.send(TextFrame("ho"), response=99)
            assert texts(bench) == ["ho!"]
        finally:
            failures = await bench.stop()
        assert failures == []
        opened = [line for line in oracle.log if "connect" in line]
        assert opened == ["connect", "disconnect"] * (len(opened) // 2)
        for call in oracle.calls:
            assert len(call.errors) <= oracle.settings.attempts

    asyncio.run(run())


# --- found by looking for it ------------------------------------------------------------------------------------------


async def test_an_update_while_it_connects_is_not_lost(harness: Harness):
    oracle = Oracle(connects=[0.0, 1.0])
    bench = await harness(oracle)
    oracle.update(voice="high")
    await bench.send(TextFrame("one"))
    oracle.update(voice="low")
    await bench.advance(ms=1_500)
    assert oracle.log.count("connect") == 2
    await bench.send(TextFrame("two"))
    assert oracle.log.count("connect") == 3


class Pair(Oracle):
    """A service with two members."""

    def __init__(self, *members: Oracle) -> None:
        super().__init__()
        self._members = members

    def members(self) -> Sequence[Service[Any]]:
        return self._members


class Stuck(Oracle):
    """A service whose `disconnect` hangs."""

    async def disconnect(self) -> None:
        await Wait()


async def test_a_member_that_fails_to_disconnect_does_not_stop_the_others(harness: Harness):
    last = Oracle()
    bench = await harness(Pair(Stuck(), Stuck(), last))
    await bench.close()
    assert last.log == ["connect", "disconnect"]


async def test_settings_that_cannot_connect_fail_one_member_and_not_the_question(
    harness: Harness,
):
    first = Oracle(connects=[0.0, SettingsError("There is no voice 'none'.")])
    bench = await harness(Pair(first, Oracle()))
    first.update(voice="none")
    await bench.send(TextFrame("hi"))
    assert texts(bench) == ["hi!"]


async def test_a_member_has_one_place(harness: Harness):
    shared = Oracle()
    bench = await harness(Pair(shared, Oracle()))
    with pytest.raises(BenchFailure, match=r"Oracle in Pair already runs in another place.*make a second"):
        await harness(Pair(Oracle(), shared))
    await bench.send(TextFrame("hi"))
    assert texts(bench) == ["hi!"]
    assert shared.log.count("disconnect") == 0


async def test_a_setting_that_only_members_have_is_refused(harness: Harness):
    pair = Pair(Oracle(), Oracle())
    await harness(pair)
    with pytest.raises(SettingsError, match="each member has its own attempts, first_timeout_s"):
        pair.update(first_timeout_s=1.0, attempts=1)
    pair.update(voice="high")
