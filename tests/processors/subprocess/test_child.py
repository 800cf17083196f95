"""Child processes, tested with a small child that misbehaves on demand."""

import asyncio
import gc
import logging
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
from voxline.pipeline.clock import SystemClock
from voxline.pipeline.errors import MissingExtraError, ServiceError, install_command
from voxline.processors.subprocess.parent import ChildProcess, ServiceCrashed, require_package
from voxline.processors.subprocess.wire import MessageReader, WireError, encode

ODD_CHILD = """
import os, signal, sys
from voxline.processors.subprocess.child import ChildHost, Refused

def echo(request):
    request.reply({"part": 1}, request.message.payload)
    return {"text": request.message.text("text")}

def count(request):
    number = 0
    while not request.cancelled and number < request.message.number("to"):
        request.reply({"number": number}, bytes(10_000))
        number += 1
    return {"counted": number}

def hang(request):
    request.reply({"hanging": True})
    while not request.cancelled:
        pass

def shout(request):
    print("to stdout", flush=True)
    os.system("echo from a program")
    os.write(1, b"to the descriptor")

def chatter(request):
    for number in range(20_000):
        print(f"line {number} of some length, to fill the pipe", file=sys.stderr)

def refuse(request):
    raise Refused("not today")

def fail(request):
    raise RuntimeError("a defect in the service")

def stay(request):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os._exit = lambda code: None

def main():
    host = ChildHost()
    operations = (echo, count, hang, shout, chatter, refuse, fail, stay)
    host.serve({operation.__name__: operation for operation in operations})

main()
"""

MakeChild = Callable[..., ChildProcess]


@pytest.fixture
async def make_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MakeChild]:
    """Make `ChildProcess` objects for the module above, and close them after the test."""
    (tmp_path / "odd_child.py").write_text(ODD_CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    children: list[ChildProcess] = []

    def make(module: str = "odd_child") -> ChildProcess:
        children.append(ChildProcess("Oddity", module, sleep=SystemClock().sleep))
        return children[-1]

    yield make
    for child in children:
        await child.close()


@pytest.fixture
async def child(make_child: MakeChild) -> ChildProcess:
    odd = make_child()
    await odd.start()
    return odd


async def test_a_request_carries_fields_and_bytes_both_ways(child: ChildProcess):
    payload = bytes(range(256)) * 8_000  # more than any pipe holds
    with child.stream("echo", payload, text="söme\ntext") as replies:
        parts = [reply.payload async for reply in replies]
    assert parts == [payload]
    assert replies.end is not None
    assert replies.end.text("text") == "söme\ntext"


async def test_what_a_library_prints_does_not_get_into_the_protocol(child: ChildProcess):
    await child.request("shout")
    assert (await child.request("echo", text="still here")).text("text") == "still here"


async def test_a_refusal_raises_and_the_service_continues(child: ChildProcess):
    with pytest.raises(ServiceError, match=r"^Oddity: not today$"):
        await child.request("refuse")
    assert (await child.request("echo", text="on")).text("text") == "on"


async def test_a_refusal_of_a_send_raises_at_the_next_question(child: ChildProcess):
    await child.send("refuse")
    with pytest.raises(ServiceError, match="not today"):
        await child.request("echo", text="?")
    assert (await child.request("echo", text="on")).text("text") == "on"


@pytest.mark.parametrize("read", [0, 1, 7])
async def test_an_abandoned_question_leaves_no_answers_for_the_next(child: ChildProcess, read: int):
    with child.stream("count", to=1e9) as replies:
        for _ in range(read):
            await anext(replies)
    assert (await child.request("echo", text="mine")).text("text") == "mine"
    with pytest.raises(ServiceError, match="withdrawn"):
        await anext(replies)


async def test_cancelling_a_reader_at_any_reply_leaves_the_next_question_its_own_answers(child: ChildProcess):
    for rounds in range(30):
        numbers: list[float] = []

        async def read(numbers: list[float] = numbers) -> None:
            replies = child.stream("count", to=1e9)
            while True:
                numbers.append((await anext(replies)).number("number"))

        reader = asyncio.create_task(read())
        while len(numbers) < rounds:
            await child_turn()
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert numbers == sorted(numbers)
        last = await child.request("count", to=3)
        assert last.number("counted") == 3


async def child_turn() -> None:
    """Wait until the event loop has read the pipes once."""
    turned = asyncio.Event()
    asyncio.get_running_loop().call_soon(turned.set)
    await turned.wait()


async def test_a_new_question_replaces_a_forgotten_one(child: ChildProcess):
    forgotten = child.stream("hang")
    await anext(forgotten)
    assert (await child.request("echo", text="mine")).text("text") == "mine"


async def test_two_tasks_at_once_are_an_error_for_the_second(child: ChildProcess):
    hanging = child.stream("hang")
    await anext(hanging)
    first = asyncio.create_task(hanging.last())
    await child_turn()
    with pytest.raises(ServiceError, match="by another task: it answers one question at a time"):
        child.stream("echo")
    with pytest.raises(ServiceError, match="by another task: it answers one question at a time"):
        await hanging.last()
    assert not first.done()
    hanging.close()
    with pytest.raises(ServiceError, match="withdrawn"):
        await first


async def test_a_child_that_nobody_reads_waits_and_can_still_be_stopped(child: ChildProcess):
    counting = child.stream("count", to=1e9)
    for _ in range(200):
        await child_turn()
    pipes = child._pipes
    assert pipes is not None
    assert sum(len(reply.payload) for reply in pipes.replies) < 1_000_000
    counting.close()
    assert (await child.request("echo", text="free")).text("text") == "free"


async def test_a_killed_child_is_named_and_can_be_started_again(child: ChildProcess):
    hanging = child.stream("hang")
    await anext(hanging)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(ServiceCrashed, match=r"^Oddity ended unexpectedly \(exit code -9, SIGKILL\)"):
        await anext(hanging)
    with pytest.raises(ServiceCrashed, match="SIGKILL"):
        await child.send("echo")
    assert child.pid is None
    await child.start()
    assert (await child.request("echo", text="again")).text("text") == "again"


async def test_a_crash_tells_the_last_lines_of_stderr(child: ChildProcess):
    with pytest.raises(ServiceCrashed) as caught:
        await child.request("fail")
    text = str(caught.value)
    assert text.startswith("Oddity ended unexpectedly (exit code 1). Its last words:\n")
    assert text.endswith("RuntimeError: a defect in the service")
    assert len(text) < 1000


async def test_after_the_first_answer_its_stderr_is_logged_at_debug_only(
    child: ChildProcess, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG, logger="voxline")
    await child.request("chatter")
    with pytest.raises(ServiceCrashed, match=r"\(exit code 1\)\. It raised RuntimeError\.$"):
        await child.request("fail")
    assert [record.levelname for record in caplog.records if "a defect in the service" in record.getMessage()] == [
        "DEBUG"
    ]


async def test_a_missing_module_is_an_error(make_child: MakeChild):
    child = make_child("voxline.no_such_module")
    await child.start()
    with pytest.raises(ServiceCrashed, match=r"No module named voxline\.no_such_module"):
        await child.request("echo")


async def test_a_process_with_another_protocol_is_killed(make_child: MakeChild):
    child = make_child("this")
    await child.start()
    with pytest.raises(ServiceCrashed, match="Oddity was killed because of its output: not a message: b'The Zen"):
        await child.request("echo")


async def test_a_child_that_is_not_started_or_started_twice_is_an_error(make_child: MakeChild):
    child = make_child()
    with pytest.raises(ServiceError, match=r"Oddity is not running: call start\(\) first"):
        await child.request("echo")
    await child.start()
    with pytest.raises(ServiceError, match="running already"):
        await child.start()
    await child.close()
    with pytest.raises(ServiceError, match=r"call start\(\) first"):
        child.stream("echo")
    await child.close()


async def test_close_while_a_question_is_open_ends_both(child: ChildProcess):
    hanging = child.stream("hang")
    await anext(hanging)
    waiting = asyncio.create_task(hanging.last())
    await child_turn()
    await child.close()
    with pytest.raises(ServiceError, match=r"withdrawn, by a newer one or by close\(\)"):
        await waiting


async def test_close_kills_a_child_that_ignores_sigterm(make_child: MakeChild):
    naps: list[float] = []

    async def nap(seconds: float) -> None:
        naps.append(seconds)

    stubborn = ChildProcess("Oddity", "odd_child", sleep=nap)
    make_child()
    await stubborn.start()
    await stubborn.request("stay")
    pipes = stubborn._pipes
    assert pipes is not None
    await stubborn.close()
    assert pipes.exit_code == -signal.SIGKILL
    assert sum(naps) == pytest.approx(1.0)


async def test_twenty_starts_and_closes_leave_no_process_and_no_descriptor(make_child: MakeChild):
    child = make_child()
    await child.start()
    await child.close()
    process = psutil.Process()
    descriptors, children = process.num_fds(), len(process.children(recursive=True))
    for round_number in range(20):
        await child.start()
        if round_number % 2:
            await child.request("echo")
        await child.close()
    assert process.num_fds() == descriptors
    assert len(process.children(recursive=True)) == children


async def test_ctrl_c_does_not_end_a_child(child: ChildProcess):
    await child.request("echo")
    assert child.pid is not None
    os.kill(child.pid, signal.SIGINT)
    assert (await child.request("echo", text="alive")).text("text") == "alive"
    assert os.getpgid(child.pid) != os.getpgid(0)


async def test_a_forgotten_child_is_killed(make_child: MakeChild):
    make_child()
    child = ChildProcess("Oddity", "odd_child", sleep=SystemClock().sleep)
    await child.start()
    pipes = child._pipes
    assert pipes is not None
    del child
    gc.collect()
    await pipes.gone()
    assert pipes.exit_code == -signal.SIGKILL


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs a way to wait for somebody else's process")
def test_a_child_ends_when_its_parent_is_killed(make_child: MakeChild):
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import asyncio\n"
            "from voxline.processors.subprocess.parent import ChildProcess\n"
            "async def main():\n"
            "    child = ChildProcess('Oddity', 'odd_child', sleep=asyncio.sleep)\n"
            "    await child.start()\n"
            "    await child.request('echo')\n"
            "    print(child.pid, flush=True)\n"
            "    await child.request('hang')\n"
            "asyncio.run(main())\n",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        orphan = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    ended, _, _ = select.select([orphan], [], [], 10)  # readable once it has ended, reaped or not
    os.close(orphan)
    assert ended


def test_the_error_for_a_missing_package_has_the_command_that_installs_it():
    with pytest.raises(MissingExtraError) as caught:
        require_package("PocketSphinx", "no_such_sphinx", "pocketsphinx", "speech")
    assert str(caught.value) == (
        "PocketSphinx needs the package pocketsphinx, which is not installed. "
        f"Install it with: {install_command('speech')}"
    )


def test_messages_are_cut_from_any_pieces():
    messages: list[tuple[dict[str, object], bytes]] = [
        ({"id": 1}, b""),
        ({"id": 2, "text": "ä"}, b"\x00\xff" * 50),
        ({}, b"x"),
    ]
    stream = b"".join(encode(header, payload) for header, payload in messages)
    for size in (1, 3, 17, len(stream)):
        reader = MessageReader()
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        assert [tuple(message) for piece in pieces for message in reader.feed(piece)] == messages


@pytest.mark.parametrize("data", [b"Hello, world. This is text.", b"\x02\x00\x00\x00\x00\x00\x00\x00[]", b"\xff" * 8])
def test_other_bytes_are_an_error(data: bytes):
    with pytest.raises(WireError, match="not a message"):
        MessageReader().feed(data)


def test_a_message_that_is_too_long_is_not_sent():
    with pytest.raises(WireError, match="too long"):
        encode({}, bytes((1 << 24) + 1))
