"""Push to talk: what a button makes of the user's speech."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voxline.pipeline import (
    UPSTREAM,
    Direction,
    Frame,
    InputAudioFrame,
    InputEndedFrame,
    ListenFrame,
    SettingsError,
    TalkButtonFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from voxline.pipeline.frames import DOWNSTREAM
from voxline.pipeline.testing import Bench, Harness
from voxline.processors import PushToTalk
from voxline.tests.scale import examples

AUDIO = InputAudioFrame(np.full(320, 7, np.int16), 16_000)
STARTED, STOPPED = UserStartedSpeakingFrame(0), UserStoppedSpeakingFrame(0)
PRESS, RELEASE = TalkButtonFrame(pressed=True), TalkButtonFrame(pressed=False)
ON, OFF = ListenFrame(on=True), ListenFrame(on=False)


@pytest.mark.parametrize("press_from", Direction)
@pytest.mark.parametrize("release_from", Direction)
async def test_the_button_makes_the_events_from_whichever_side_it_comes(
    harness: Harness, press_from: Direction, release_from: Direction
):
    bench = await harness(PushToTalk())
    await bench.send(AUDIO)
    await bench.send(PRESS, direction=press_from)
    await bench.send(AUDIO)
    await bench.send(RELEASE, direction=release_from)
    await bench.send(AUDIO)
    assert bench.down == [AUDIO, STARTED, AUDIO, STOPPED, AUDIO]
    assert bench.down[0] is AUDIO
    assert bench.up == []


async def test_a_release_without_a_press_and_a_second_press_do_nothing(harness: Harness):
    bench = await harness(PushToTalk())
    await bench.send(RELEASE, PRESS, PRESS)
    await bench.send(PRESS, direction=UPSTREAM)
    assert bench.down == [STARTED]
    await bench.send(RELEASE, RELEASE)
    assert bench.down == [STARTED, STOPPED]


async def test_a_stuck_button_is_let_go_and_can_be_pressed_again(harness: Harness):
    bench = await harness(PushToTalk(max_press_ms=2_000))
    await bench.send(PRESS)
    await bench.advance(ms=1_000)
    # Pressing what is pressed does not begin the time anew.
    await bench.send(PRESS)
    await bench.advance(ms=999)
    assert bench.down == [STARTED]
    await bench.advance(ms=1)
    assert bench.down == [STARTED, STOPPED]
    await bench.send(RELEASE)
    assert bench.down == [STARTED, STOPPED]
    await bench.send(PRESS)
    assert bench.down == [STARTED, STOPPED, STARTED]


async def test_a_press_that_ended_in_time_is_not_ended_again(harness: Harness):
    bench = await harness(PushToTalk(max_press_ms=2_000))
    await bench.send(PRESS)
    await bench.advance(ms=1_500)
    await bench.send(RELEASE, PRESS)
    await bench.advance(ms=1_999)
    assert bench.down == [STARTED, STOPPED, STARTED]
    await bench.advance(ms=1)
    assert bench.down == [STARTED, STOPPED, STARTED, STOPPED]


async def test_a_minute_is_as_long_as_anybody_speaks(harness: Harness):
    bench = await harness(PushToTalk())
    await bench.send(PRESS)
    await bench.advance(ms=59_999)
    assert bench.down == [STARTED]
    await bench.advance(ms=1)
    assert bench.down == [STARTED, STOPPED]


async def test_the_end_of_the_input_releases_the_button_first(harness: Harness):
    bench = await harness(PushToTalk())
    await bench.send(PRESS, InputEndedFrame())
    assert bench.down == [STARTED, STOPPED, InputEndedFrame()]
    await bench.advance(ms=100_000)
    assert bench.down == [STARTED, STOPPED, InputEndedFrame()]


async def test_without_listening_the_button_is_released_and_presses_are_ignored(harness: Harness):
    bench = await harness(PushToTalk())
    await bench.send(PRESS)
    await bench.send(OFF, direction=UPSTREAM)
    assert bench.down == [STARTED, STOPPED]
    assert bench.up == [OFF]
    bench.clear()
    await bench.send(PRESS, AUDIO)
    await bench.send(ON, direction=UPSTREAM)
    assert bench.down == []
    assert bench.up == [ON]
    await bench.send(AUDIO, RELEASE, PRESS)
    assert bench.down == [AUDIO, STARTED]


@pytest.mark.parametrize("length", [0, -1, float("nan")])
def test_an_invalid_duration_raises(length: float):
    with pytest.raises(SettingsError, match="max_press_ms is a duration above 0, not"):
        PushToTalk(max_press_ms=length)


STEPS = st.one_of(
    st.tuples(st.sampled_from([PRESS, RELEASE]), st.sampled_from(Direction)),
    st.tuples(st.sampled_from([ON, OFF]), st.just(UPSTREAM)),
    st.tuples(st.sampled_from([AUDIO, InputEndedFrame()]), st.just(DOWNSTREAM)),
    st.tuples(st.sampled_from([700.0, 1_300.0]), st.none()),
)


@settings(max_examples=examples(100))
@given(steps=st.lists(STEPS, max_size=30))
async def test_speech_begins_and_ends_in_turns_whatever_happens(
    steps: list[tuple[Frame | float, Direction | None]],
):
    bench = await Bench(PushToTalk(max_press_ms=1_000)).open()
    for step, direction in steps:
        if isinstance(step, Frame):
            await bench.send(step, direction=direction or DOWNSTREAM)
        else:
            await bench.advance(ms=step)
    await bench.advance(ms=1_000)
    events = [frame for frame in bench.down if isinstance(frame, UserStartedSpeakingFrame | UserStoppedSpeakingFrame)]
    assert events == [STARTED, STOPPED] * (len(events) // 2)
    await bench.close()
