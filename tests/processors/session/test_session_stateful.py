"""Whatever happens in whatever order: the promises of a session hold after every step, and it never gets stuck.

`step` alone, which is quick: thousands of conversations of up to 60 events, nonsense among them. What comes of each
event is checked in `conversation_checks.py`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from voxline.pipeline import client_frames, frames
from voxline.processors.session import commands, limits
from voxline.processors.session.states import OVER
from voxline.tests.processors.session.conversation_checks import Checked
from voxline.tests.scale import examples

EXAMPLES = int(os.environ.get("VOXLINE_EXAMPLES", examples(3000, 1000)))
"""How many conversations. The same ones each time, unless another number is asked for."""

Move = tuple[str, int]

TEXTS = ["", "yeah", "stop", "tell me", "tell me a story", "mm hm yeah", "goodbye", "and then what"]
PASSES_MS = [20, 100, 250, 600, 1_000, 2_500, 6_000, 35_000]


class Talk(Checked):
    """A session to which anything may happen."""

    def __init__(self, **given_settings: Any) -> None:
        self.number = 0
        self.gone = False
        """Somebody closed it, or left: what was not answered is not."""
        super().__init__(**given_settings)

    def moves(self, moves: list[Move]) -> None:
        """Let it all happen."""
        for name, n in moves:
            MOVES[name](self, n)

    def handle(self) -> int:
        """A new one."""
        self.number += 1
        return self.number

    def said(self, text: str) -> str:
        """With a word that nobody else says."""
        self.number += 1
        return f"{text} #{self.number}" if text else ""


def _speech(talk: Talk, n: int) -> None:
    talk.happens(frames.UserStartedSpeakingFrame([0, 200][n % 2]))


def _silence(talk: Talk, n: int) -> None:
    talk.happens(frames.UserStoppedSpeakingFrame([0, 100, 500][n % 3]))


def _interim(talk: Talk, n: int) -> None:
    talk.happens(frames.InterimTranscriptionFrame(TEXTS[n % len(TEXTS)]))


def _transcript(talk: Talk, n: int) -> None:
    text = TEXTS[n % len(TEXTS)]
    # Backchannels and "stop" are what they are only with nothing else: those are not told apart by a word.
    plain = n % 3 == 0 or text in ("yeah", "mm hm yeah", "stop", "goodbye")
    talk.happens(frames.TranscriptionFrame(text if plain else talk.said(text), audio_ms=400))


def _utterance(talk: Talk, n: int) -> None:
    """As it usually goes."""
    talk.happens(frames.UserStartedSpeakingFrame(200))
    talk.passes([100, 400, 900, 2_000][n % 4])
    talk.happens(frames.UserStoppedSpeakingFrame(300))
    talk.passes([0, 50, 800][n % 3])
    talk.happens(frames.TranscriptionFrame(talk.said(TEXTS[3 + n % 2]), audio_ms=400))


def _message(talk: Talk, n: int) -> None:
    talk.happens(commands.MessageCommandFrame(TEXTS[n % len(TEXTS)], talk.handle(), n % 2 == 0))


def _say(talk: Talk, n: int) -> None:
    talk.happens(
        commands.SayCommandFrame(["Hello there.", "Your taxi is here.", " "][n % 3], talk.handle(), n % 4 != 0)
    )


def _interrupt(talk: Talk, n: int) -> None:
    handle = 0 if n % 2 else n % (talk.number + 1)
    talk.happens(commands.InterruptCommandFrame("button", handle))


def _elsewhere(talk: Talk, n: int) -> None:
    """Another processor, or the worker, cuts the bot."""
    through = len(talk.sounds)
    if through > talk.cut_through:
        told = talk.data.bot.response is not None and talk.data.bot.response.guess is None
        if told and talk.data.bot.response is not None and talk.data.bot.response.number <= through:
            talk.interrupted.add(through)
        talk.cut_by_others(through)


def _nonsense(talk: Talk, n: int) -> None:
    """Facts of a response that is over, or that nobody knows."""
    number = [0, 9_999, max(0, len(talk.sounds) - 1), max(0, len(talk.sounds) - 3)][n % 4]
    fact: list[frames.Frame] = [
        frames.BotStartedSpeakingFrame(number),
        frames.BotStoppedSpeakingFrame(number),
        frames.ResponsePlayedFrame(number, 500, "nonsense"),
        frames.ResponseCutFrame(number, 500, "nonsense"),
        frames.CancelFrame(max(0, len(talk.sounds) - 1)),
        frames.ToolResultFrame("unknown", "?"),
    ]
    talk.happens(fact[n % len(fact)])


def _tool(talk: Talk, n: int) -> None:
    call = str(n % 3)
    talk.happens(frames.ToolCallFrame(call, "weather") if n % 2 else frames.ToolResultFrame(call, "rain"))


def _client(talk: Talk, n: int) -> None:
    if n % 4 == 0:
        talk.gone = True
        talk.happens(frames.ClientDisconnectedFrame("gone"))
    else:
        talk.happens(frames.ClientConnectedFrame())


def _close(talk: Talk, n: int) -> None:
    if n % 5 == 0:
        talk.gone = True
        talk.happens(
            commands.CloseCommandFrame("enough", ["Goodbye.", None, ""][n % 3], now=n % 2 == 0, failed=n % 7 == 0)
        )


def _settings(talk: Talk, n: int) -> None:
    changes: list[dict[str, Any]] = [
        {"idle_timeout_s": 5},
        {"idle_timeout_s": None},
        {"interruption": {"allow": n % 2 == 0}},
        {"preemptive": {"enabled": n % 2 == 0}},
        {"mute": ("speaking",) if n % 2 else ()},
        {"history_turns": 1 + n % 3},
        {"endpointing": {"strategy": ["text", "vad", "transcript"][n % 3]}},
        {"response_timeout_s": 1},
    ]
    changed = talk.data.settings.changed(**changes[n % len(changes)])
    talk.happens(commands.UpdateCommandFrame(changed.model_dump_json()))


def _due(talk: Talk, n: int) -> None:
    """To the moment at which the next thing is due; or just before, or a little later than that."""
    due_ns = limits.next_ns(talk.data)
    if due_ns is not None and due_ns > talk.now_ns:
        ms = (due_ns - talk.now_ns) / 1e6
        if n % 3 == 2:
            # The timer is late, and something else comes first.
            talk.now_ns = due_ns + 5_000_000
        else:
            talk.passes(ms - (n % 3) * 0.001)


def _event(*events: frames.Frame) -> Callable[[Talk, int], None]:
    return lambda talk, n: talk.happens(events[n % len(events)])


MOVES: dict[str, Callable[[Talk, int], None]] = {
    "nothing": lambda talk, n: None,
    "time passes": lambda talk, n: talk.passes(PASSES_MS[n % len(PASSES_MS)]),
    "due": _due,
    "speech": _speech,
    "silence": _silence,
    "interim": _interim,
    "transcript": _transcript,
    "utterance": _utterance,
    "probability": lambda talk, n: talk.happens(frames.TurnProbabilityFrame(n % 3 - 0.5)),
    "types": _event(frames.InputTextFrame("what now"), frames.InputTextFrame(" ")),
    "types and waits": _event(frames.InputTextFrame("what now", interrupt=False)),
    "button": _event(client_frames.InterruptRequestFrame("button")),
    "message": _message,
    "say": _say,
    "interrupt": _interrupt,
    "elsewhere": _elsewhere,
    "pause": _event(commands.PauseCommandFrame(), commands.ResumeCommandFrame()),
    "resume": _event(commands.ResumeCommandFrame()),
    "listen": _event(commands.ListenCommandFrame(True), commands.ListenCommandFrame(False)),
    "plays": lambda talk, n: talk.plays(),
    "plays for a while": lambda talk, n: (talk.plays(), talk.passes(100 * (n % 12)))[0],
    "stalls": lambda talk, n: talk.stalls(),
    "finishes": lambda talk, n: talk.finishes(),
    "nonsense": _nonsense,
    "tool": _tool,
    "client": _client,
    "error": _event(commands.ResponseFailedFrame("it does not work", "tts", 1), frames.UsageFrame(1, 2)),
    "touch": _event(commands.TouchCommandFrame(), commands.TalkButtonCommandFrame(True), frames.InputEndedFrame()),
    "settings": _settings,
    "close": _close,
    "start": _event(commands.SessionStartedFrame(0)),
}

moves = st.lists(st.tuples(st.sampled_from([*MOVES]), st.integers(0, 23)), min_size=20, max_size=60)
CONFIGURATIONS: dict[str, list[Any]] = {
    "greeting": ["Hello."],
    "goodbyes": [{"idle": "Bye.", "duration": "Time is up.", "user": "Bye."}],
    "farewells": [("goodbye",)],
    "answer_unclear": [True],
    "mute": [("first_speech",), ("tools",), ("speaking",), ("tools", "speaking")],
    "idle_ladder": [({"after_s": 4, "say": "Are you there?"}, {"after_s": 3, "say": "Hello?"})],
    "idle_timeout_s": [10, None],
    "max_messages": [1, 3, None],
    "max_duration_s": [20, None],
    "response_timeout_s": [2, None],
    "apology": ["I am sorry."],
    "wait_for_client": [True],
    "closing_timeout_s": [2],
    "keep_alive_s": [1, None],
    "history_turns": [1, 2],
    "interruption": [
        {"allow": False}, {"min_words": 0}, {"min_words": 3, "speech_alone_ms": 700}, {"grace_ms": 0},
        {"false_timeout_ms": 300},
    ],
    "endpointing": [
        {"strategy": "transcript"}, {"strategy": "model"}, {"strategy": "dynamic"}, {"strategy": "push_to_talk"},
        {"strategy": "text"}, {"turn_words": 4}, {"turn_timeout_s": 2}, {"turn_timeout_s": None},
        {"transcript_timeout_ms": 400},
    ],
    "preemptive": [
        {"enabled": True}, {"enabled": True, "stable_ms": 0, "agreement": 0.5}, {"enabled": True, "max_speech_s": 1},
    ],
}  # fmt: skip
configurations = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from(values) for name, values in CONFIGURATIONS.items()}
)


def conversation(**properties: Any) -> Any:
    """A test that is given thousands of conversations."""

    def decorate(test: Any) -> Any:
        decorated = given(**properties)(test)
        return settings(
            max_examples=EXAMPLES // 6,
            derandomize="VOXLINE_EXAMPLES" not in os.environ,
            database=None,
            phases=[Phase.explicit, Phase.generate, Phase.shrink],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )(decorated)

    return decorate


def converse(given_settings: dict[str, Any], happens: list[Move], *, user_stops: bool) -> Talk:
    """A conversation from its beginning to its end."""
    talk = Talk(**given_settings)
    talk.moves(happens)
    if user_stops:
        talk.happens(commands.ResumeCommandFrame(), frames.UserStoppedSpeakingFrame(0))
    elif talk.data.settings.endpointing.turn_timeout_s is None:
        talk.happens(frames.UserStoppedSpeakingFrame(0))
    talk.comes_to_rest()
    if not talk.gone and talk.data.state not in OVER:
        talk.check_the_words()
    talk.ended()
    return talk


@conversation(given_settings=configurations, happens=moves, user_stops=st.booleans())
def test_whatever_happens_the_promises_hold(given_settings: dict[str, Any], happens: list[Move], user_stops: bool):
    converse(given_settings, happens, user_stops=user_stops)


# --- many more, each of a few kinds of moves -------------------------------------------------------------------------

USUAL = ["utterance", "say", "message", "plays for a while", "plays for a while", "finishes", "time passes", "due"]
Case = tuple[dict[str, Any], list[Move], bool]


def random_case(seed: int) -> Case:
    """With a few kinds of moves each, what is rare among all of them is frequent in some."""
    dice = random.Random(seed)
    wanted = {name: dice.choice(values) for name, values in CONFIGURATIONS.items() if dice.random() < 0.15}
    kinds = dice.sample([*MOVES], dice.randrange(2, 8)) + dice.sample(USUAL, dice.randrange(0, len(USUAL)))
    return wanted, [(dice.choice(kinds), dice.randrange(24)) for _ in range(60)], dice.random() < 0.5


def fails(case: Case) -> BaseException | None:
    """What goes wrong, if something does."""
    try:
        converse(case[0], case[1], user_stops=case[2])
    except Exception as error:
        return error
    return None


def smallest(case: Case) -> Case:
    """With fewer moves and settings, as long as something goes wrong."""
    given_settings, happens, user_stops = case
    for name in [*given_settings]:
        fewer = {key: value for key, value in given_settings.items() if key != name}
        if fails((fewer, happens, user_stops)) is not None:
            given_settings = fewer
    size = len(happens)
    while size := size // 2:
        at = 0
        while at < len(happens):
            shorter = happens[:at] + happens[at + size :]
            if fails((given_settings, shorter, user_stops)) is not None:
                happens = shorter
            else:
                at += size
    return given_settings, happens, user_stops


def check_conversations(seeds: range) -> None:
    """Fails with the smallest conversation that does not go well."""
    for seed in seeds:
        if fails(random_case(seed)) is not None:
            case = smallest(random_case(seed))
            error = fails(case)
            raise AssertionError(f"converse({case[0]}, {case[1]}, user_stops={case[2]})") from error


BLOCK = 250


@pytest.mark.parametrize("block", range(EXAMPLES // BLOCK))
def test_random_conversations_of_few_kinds_of_moves(block: int):
    check_conversations(range(block * BLOCK, (block + 1) * BLOCK))
