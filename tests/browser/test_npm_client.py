"""The published RTVI client for JavaScript, as npm has it, talks with our bots in a real browser."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from voxline.pipeline import ClientMessageFrame, FrameProcessor, Pipeline, ServerMessageFrame, handles
from voxline.pipeline.clock import SystemClock
from voxline.processors import EnergyVAD, ScriptedLLM, ScriptedSTT, ScriptedTool, ScriptedTTS, SessionController
from voxline.tests.browser.chromium import Page
from voxline.tests.browser.conftest import Browser
from voxline.tests.browser.npm_page import POLICY, npm_page
from voxline.tests.places import CALLER
from voxline.tests.test_examples import load
from voxline.transports.base import Transport
from voxline.transports.server import Server, ServerSettings

pytestmark = pytest.mark.realtime

ICE = "client._transport.pc?.iceConnectionState"
OFFER = "{webrtcRequestParams: {endpoint: location.origin + '/api/offer'}}"


class Weather(FrameProcessor):
    """Answers the app's own messages."""

    @handles(ClientMessageFrame)
    async def answer(self, frame: ClientMessageFrame) -> None:
        if frame.kind == "weather":
            place = json.loads(frame.data)["place"]
            await self.push(ServerMessageFrame(json.dumps({"place": place, "sky": "blue"}), reply_to=frame.id))
        else:
            await self.push(ServerMessageFrame("null", reply_to=frame.id, error="What is that?"))


def chatterbox(transport: Transport) -> Pipeline:
    """Says a hundred words, then a few; what it hears does not matter."""
    return Pipeline(
        [
            transport.input(),
            EnergyVAD(),
            ScriptedSTT(["hello there"] * 9),
            SessionController(),
            Weather(),
            ScriptedLLM([" ".join(["blah"] * 100) + ".", [ScriptedTool("look_up"), "Done."]]),
            ScriptedTTS(word_ms=100),
            transport.output(),
        ]
    )


def quiet(folder: Path, seconds: float = 2) -> Path:
    wav = folder / "quiet.wav"
    soundfile.write(wav, np.zeros(round(seconds * 16_000)), 16_000)
    return wav


def served(make_pipeline: Any) -> Server:
    return Server(make_pipeline, ServerSettings(port=0, page=npm_page(), page_policy=POLICY))


@pytest.fixture
async def chat(browser: Browser, tmp_path: Path) -> AsyncIterator[tuple[Page, Server]]:
    """The chatterbox, and a page that has not connected yet."""
    async with served(chatterbox) as server:
        page = await browser(microphone=quiet(tmp_path))
        await page.open(server.url)
        await page.until("window.start")
        yield page, server


async def gone(server: Server, timeout_s: float = 15) -> None:
    """Wait until no conversation is left."""
    clock = SystemClock()
    for _ in range(round(timeout_s * 20)):
        if not server.conversations:
            return
        await clock.sleep(0.05)
    raise AssertionError(f"{len(server.conversations)} conversations are left after {timeout_s:g} s")


async def connect(page: Page) -> Any:
    return await page.run(f"start({OFFER}).connect().then(x => x, e => 'failed: ' + (e.message ?? e))")


async def test_a_caller_talks_with_the_rover_by_the_published_client(browser: Browser, tmp_path: Path) -> None:
    samples, rate = soundfile.read(CALLER)
    words = samples[round(6.7 * rate) : round(7.8 * rate)]
    pause = np.zeros(4 * rate)
    wav = tmp_path / "caller.wav"
    # More than once: a machine that is busy with other tests tears holes into the microphone of its browser.
    soundfile.write(wav, np.concatenate([pause, *[words, pause] * 5]), rate)
    async with served(load("rover").make_pipeline) as server:
        page = await browser(microphone=wav)
        await page.open(server.url)
        await page.until("window.start")
        assert (await connect(page))["version"] == "2.1.0"
        # Whether each word is understood is for tests/test_rover.py; the rover answers to all that it hears.
        await page.until("came('userTranscript', data => data.final && data.text).length", 60)
        loud = await page.until("loudness() > 0.01 && loudness()")
        assert loud < 0.7
        await page.until("came('botOutput', data => data.spoken_status === 'completed').length")
        await page.until("came('botStoppedSpeaking').length")
        for event in ("userStartedSpeaking", "userStoppedSpeaking", "botLlmText", "botTtsText", "metrics"):
            assert await page.run(f"came('{event}').length"), event
        await page.run("client.disconnect()")
        await gone(server)
        assert not [error for error in page.errors if "voxline" in error]


async def test_text_is_answered_in_speech_and_a_button_cuts_it(chat: tuple[Page, Server]) -> None:
    page, _ = chat
    await connect(page)
    await page.run("client.sendText('Tell me something')")
    await page.until("came('botStartedSpeaking').length")
    await page.until("loudness() > 0.01")
    await page.until("came('botOutput', data => data.spoken_status === 'in-progress').length > 5")
    # A client's request is answered by the server itself, and the bot is silent.
    await page.run("client.sendClientRequest('interrupt')")
    await page.until("came('botStoppedSpeaking').length")
    await page.until("loudness() < 0.001")
    [cut] = await page.run("came('serverMessage', data => data.type === 'voxline.cut').map(([, data]) => data)")
    assert 5 <= len(cut["heard"].split()) < 90
    spoken = await page.run(
        "came('botOutput', data => data.spoken_progress).slice(-1)[0][1].spoken_progress.accumulated_text"
    )
    assert spoken == cut["heard"]
    await page.run("client.sendText('And now?')")
    await page.until("came('botOutput', data => data.text === 'Done.' && data.spoken_status === 'completed').length")
    assert await page.run("came('llmFunctionCallStarted').map(([, data]) => data)") == [{"function_name": "look_up"}]
    [stopped] = await page.run("came('llmFunctionCallStopped').map(([, data]) => data)")
    assert stopped["function_name"] == "look_up"


async def test_the_apps_messages_are_answered_or_refused(chat: tuple[Page, Server]) -> None:
    page, _ = chat
    await connect(page)
    ask = "client.sendClientRequest({}, {}).then(x => x, e => 'refused: ' + e.data.error)"
    assert await page.run(ask.format("'weather'", "{place: 'Rome'}")) == {"place": "Rome", "sky": "blue"}
    assert await page.run(ask.format("'tides'", "null")) == "refused: What is that?"
    await page.run("client.sendDTMF('12#')")
    await page.run("client.sendText('   ')")
    await page.until("came('messageError').length >= 2")
    errors = await page.run("came('messageError').map(([, message]) => message.data.error)")
    assert '"content" must be a text and not empty.' in errors


async def test_the_client_may_start_the_bot_first_and_leaves_by_itself(chat: tuple[Page, Server]) -> None:
    page, server = chat
    await page.run(
        "start({}).startBotAndConnect({endpoint: location.origin + '/start', requestData: {}}).then(() => 0)"
    )
    assert await page.run("client.state") == "ready"
    assert len(server.conversations) == 1
    await page.run("client.disconnectBot()")
    await page.until("came('botDisconnected').length && came('disconnected').length && client.state === 'disconnected'")
    await gone(server)


async def test_a_client_that_disconnects_is_gone_for_the_server(chat: tuple[Page, Server]) -> None:
    page, server = chat
    await connect(page)
    assert len(server.conversations) == 1
    await page.run("client.disconnect()")
    await page.until("came('disconnected').length")
    await gone(server, timeout_s=30)


async def test_after_seconds_without_a_network_the_same_conversation_goes_on(chat: tuple[Page, Server]) -> None:
    page, server = chat
    await connect(page)
    [conversation] = server.conversations
    await page.network(up=False)
    await page.until(f"{ICE} === 'disconnected'")
    await page.network(up=True)
    await page.until(f"{ICE} === 'connected'")
    await page.run("client.sendText('Are you there?')")
    await page.until("came('botStartedSpeaking').length && loudness() > 0.01")
    assert server.conversations == [conversation]
