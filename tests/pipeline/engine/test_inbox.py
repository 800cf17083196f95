"""The inbox by itself: lanes, bounds, and the frames that an interruption takes out."""

from __future__ import annotations

from collections import deque

import pytest
from voxline.pipeline import DOWNSTREAM, Frame, QueueOverflowError
from voxline.pipeline.engine.inbox import MICROPHONE_MS, Entry, Inbox, kept_entries
from voxline.pipeline.frames import Lane
from voxline.pipeline.graph import GraphNode
from voxline.pipeline.jobs import Job, JobEndedFrame, Origin, Timer
from voxline.pipeline.processor import Hop
from voxline.tests.pipeline.engine.rig import Alarm, Hear, Keep, Say, mic


async def deliver(frame: Frame) -> None:
    raise AssertionError("an inbox delivers nothing")


def hop_of(frame: Frame) -> Hop:
    return Hop("there", GraphNode("here"), DOWNSTREAM, deliver).of(type(frame))


def entry(frame: Frame, response: int = 0, origin: Origin | None = None) -> Entry:
    return hop_of(frame), frame, response, origin


def job(number: int = 1) -> Job:
    return Job(number, "voice", "speak", "Say", Lane.OUTPUT, 1, 0)


@pytest.mark.parametrize(("frame", "lane"), [(Alarm("a"), "urgent"), (Hear("h"), "input"), (Say("s"), "output")])
def test_each_lane_has_a_queue(frame: Frame, lane: str) -> None:
    inbox = Inbox(10)
    inbox.queue(frame.lane).append(entry(frame))
    assert len(getattr(inbox, lane)) == len(inbox) == 1


def test_a_full_queue_refuses_an_ordinary_frame_and_names_both() -> None:
    inbox = Inbox(2)
    inbox.output += [entry(Say("1")), entry(Say("2"))]
    with pytest.raises(QueueOverflowError, match=r"holds 2 output frames, its bound; Say from there does not fit"):
        inbox.make_room(inbox.output, hop_of(Say("3")), Say("3"), None)


@pytest.mark.parametrize(("frame", "origin"), [(JobEndedFrame(1), None), (Say("tick"), Timer())])
def test_a_full_queue_accepts_the_end_of_a_job_and_a_timer(frame: Frame, origin: Origin | None) -> None:
    inbox = Inbox(1)
    inbox.output.append(entry(Say("1")))
    inbox.make_room(inbox.output, hop_of(frame), frame, origin)
    assert len(inbox.output) == 1, "nothing was dropped for it"


def test_of_a_microphone_the_oldest_frames_beyond_the_bound_are_dropped_and_counted() -> None:
    inbox = Inbox(1_000)
    for number in range(MICROPHONE_MS // 20 + 5):
        inbox.make_room_for_audio(mic(number))
        inbox.input.append(entry(mic(number)))
    assert inbox.dropped == 5
    assert inbox.microphone_ms == MICROPHONE_MS
    assert getattr(inbox.input[0][1], "pts_ns", None) == 5


def test_a_job_whose_frame_is_dropped_may_make_the_next() -> None:
    inbox, source = Inbox(1_000), job()
    source.undelivered = inbox.from_jobs = 1
    inbox.input.append(entry(mic(), 0, source))
    assert inbox.drop_oldest(inbox.input)
    assert source.free
    assert inbox.from_jobs == 0


def test_nothing_is_dropped_where_no_class_allows_it() -> None:
    inbox = Inbox(10)
    inbox.input.append(entry(Hear("h")))
    assert not inbox.drop_oldest(inbox.input)
    assert len(inbox) == 1


def test_an_interruption_keeps_newer_responses_and_frames_that_survive() -> None:
    queue = deque([entry(Say("old"), 1), entry(Keep("kept"), 1), entry(Say("new"), 2), entry(Say("none"), 0)])
    kept = kept_entries(queue, 1)
    assert [(frame.what, response) for _, frame, response, _ in kept if isinstance(frame, Say | Keep)] == [
        ("kept", 0),
        ("new", 2),
    ]
    assert len(queue) == 4, "the old queue is left for the caller to free"


def test_a_drop_returns_the_jobs_of_dropped_frames_only() -> None:
    inbox, cut, survives, newer = Inbox(10), job(1), job(2), job(3)
    inbox.output += [
        entry(Say("a"), 1, cut),
        entry(Keep("b"), 1, survives),
        entry(Say("c"), 2, newer),
        entry(Say("d"), 1),
    ]
    inbox.from_jobs = 3
    assert inbox.drop(1) == [cut]
    assert inbox.from_jobs == 2
    assert len(inbox.output) == 2
