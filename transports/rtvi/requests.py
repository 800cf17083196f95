"""What a client asks for, as frames for the bot."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ...pipeline.client_frames import ClientMessageFrame, InterruptRequestFrame, ServerMessageFrame
from ...pipeline.clock import NS_PER_S, Clock
from ...pipeline.errors import QueueOverflowError, TransportError
from ...pipeline.frames import Frame, InputTextFrame
from .channel import Channel
from .messages import BadMessageError, RTVIMessage, major, name, read

MESSAGES_PER_S = 50
"""What a client may send in the long run; an app's own messages, and a screen that is typed on, stay below."""
BURST = 100
"""And at once."""
ASKED = 256
"""Messages whose answers are awaited; then the oldest is answered with an error."""
KEYS = frozenset("0123456789*#")
MAX_KEYS = 64

log = logging.getLogger("voxline")


class ClientTransport(Protocol):
    """What RTVI needs of a transport: a `Transport` has it all."""

    lead_ms: float

    @property
    def clock(self) -> Clock:
        """The worker's, when that runs; before, `TransportError`."""
        ...

    @property
    def input_dbfs(self) -> float:
        """How loud the user is."""
        ...

    @property
    def output_dbfs(self) -> float:
        """How loud the bot is."""
        ...

    def deliver(self, frame: Frame) -> None:
        """To the head of the pipeline."""
        ...

    def hang_up(self) -> None:
        """The user has gone."""
        ...


@dataclass(slots=True)
class _PendingRequest:
    kind: str
    seen: bool = False
    """A processor got it."""


class ClientRequests:
    """Reads the client's messages. ``ready`` is called when the client has said that it is."""

    def __init__(
        self, transport: ClientTransport, channel: Channel, about: dict[str, Any], ready: Callable[[], None]
    ) -> None:
        self._transport = transport
        self._channel = channel
        self._about = about
        self._ready = ready
        self._asked: dict[str, _PendingRequest] = {}
        self._budget = float(BURST)
        self._budget_ns: int | None = None
        self._refusing = False
        self._told_silent = False
        self.refused = 0
        """Messages that were too many, or could not be read."""

    def received(self, text: str) -> None:
        """A message of the client. Whatever it is, it raises nothing."""
        # Who is heard, be it by a ping, is there: what was told while it was away can be sent.
        self._channel.flush()
        id = ""
        try:
            if not text.startswith("ping") and self._too_many():
                return
            message = read(text)
            if message is not None:
                id = message.id
                self._take(message)
        except BadMessageError as error:
            self._refuse(id, str(error))
        except QueueOverflowError:
            self._refuse(id, "The bot cannot take more at the moment.")

    def _refuse(self, id: str, why: str) -> None:
        self.refused += 1
        log.debug("RTVI: a client's message was refused: %s", why)
        if id:
            self._channel.answer("error-response", id, {"error": why})
        else:
            self._channel.fault(why)

    def _too_many(self) -> bool:
        """One bucket of tokens; it is filled again when there is a clock, which is when the worker runs."""
        try:
            now_ns = self._transport.clock.now_ns()
        except TransportError:
            now_ns = self._budget_ns
        if now_ns is not None:
            if self._budget_ns is not None:
                self._budget += (now_ns - self._budget_ns) * MESSAGES_PER_S / NS_PER_S
                self._budget = min(self._budget, BURST)
            self._budget_ns = now_ns
        if self._budget >= 1:
            self._budget -= 1
            self._refusing = False
            return False
        self.refused += 1
        if not self._refusing:
            self._refusing = True
            self._channel.fault(f"More than {MESSAGES_PER_S} messages in a second; they are not read.")
        return True

    # --- what it may be ---------------------------------------------------------------------------------------------

    def _take(self, message: RTVIMessage) -> None:
        data = message.data
        match message.type:
            case "client-ready":
                self._greet(data)
            case "send-text":
                self._text(data)
            case "client-message":
                self._message(message)
            case "append-to-context":
                # What client-js 1.x has in the place of send-text.
                if data.get("role") != "user":
                    raise BadMessageError("Only the user's words are taken: append-to-context has the role user.")
                self._say(data.get("content"), data.get("run_immediately"))
            case "dtmf":
                keys: Any = data.get("buttons", [data.get("button")])
                if not isinstance(keys, list) or not keys or not all(isinstance(key, str) for key in keys):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
                    raise BadMessageError('"buttons" is a list of keys.')
                pressed = "".join(keys)  # pyright: ignore[reportUnknownArgumentType]
                if len(pressed) > MAX_KEYS or not KEYS.issuperset(pressed):
                    raise BadMessageError(f"Keys are 0 to 9, * and #, at most {MAX_KEYS}.")
                self._transport.deliver(ClientMessageFrame("dtmf", json.dumps({"buttons": pressed})))
            case "disconnect-bot":
                self._transport.hang_up()
            case _:
                raise BadMessageError("This server does not know messages of this type.")

    def _greet(self, data: dict[str, Any]) -> None:
        version = major(data.get("version"))
        if version < 1:
            self._channel.fault("This server speaks RTVI 1 and 2. Use a newer client.", fatal=True)
            return
        self._channel.open(version, self._about)
        self._ready()

    def _text(self, data: dict[str, Any]) -> None:
        options: Any = data.get("options")
        options = {} if options is None else options
        if not isinstance(options, dict):
            raise BadMessageError('"options" is an object.')
        self._say(data.get("content"), options.get("run_immediately"))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        if options.get("audio_response") is False and not self._told_silent:  # pyright: ignore[reportUnknownMemberType]
            self._told_silent = True
            self._channel.fault("This bot speaks its answers: audio_response=false has no effect.")

    def _say(self, content: object, run_immediately: object) -> None:
        if not isinstance(content, str) or not content.strip():
            raise BadMessageError('"content" is a text, and not empty.')
        if run_immediately is not None and not isinstance(run_immediately, bool):
            raise BadMessageError('"run_immediately" is true or false.')
        self._transport.deliver(InputTextFrame(content, interrupt=run_immediately is not False))

    def _message(self, message: RTVIMessage) -> None:
        kind = name(message.data, "t")
        if kind == "interrupt":
            # Answered here: a bot need not know of it to be stopped.
            self._transport.deliver(InterruptRequestFrame())
            if message.id:
                self._channel.answer("server-response", message.id, {"t": kind, "d": None})
            return
        if message.id in self._asked:
            raise BadMessageError("A message with this id waits for its answer.")
        self._transport.deliver(ClientMessageFrame(kind, json.dumps(message.data.get("d")), message.id))
        if message.id:
            self._asked[message.id] = _PendingRequest(kind)
            if len(self._asked) > ASKED:
                self._fail(next(iter(self._asked)), "The bot has too many messages to answer.")

    # --- what becomes of it -----------------------------------------------------------------------------------------

    def seen(self, frame: ClientMessageFrame) -> None:
        """A processor gets a client's message."""
        asked = self._asked.get(frame.id)
        if asked is not None:
            asked.seen = True

    def unseen(self, frame: ClientMessageFrame) -> None:
        """A client's message has left the pipeline."""
        asked = self._asked.get(frame.id)
        if asked is not None and not asked.seen:
            self._fail(frame.id, "The bot does not know messages of this type.")

    def answer(self, message: ServerMessageFrame) -> None:
        """The bot's message: an answer, or one of its own."""
        if not message.reply_to:
            if message.error:
                self._channel.tell("error", {"error": message.error, "message": message.error, "fatal": False})
            else:
                self._channel.server_message(message.data)
            return
        asked = self._asked.pop(message.reply_to, None)
        if asked is None:
            log.debug("RTVI: an answer to a message that nobody waits for")
            return
        error = message.error
        try:
            data = json.loads(message.data)
        except (ValueError, RecursionError):
            data, error = None, error or "The bot's answer could not be sent."
        if error:
            self._channel.answer("error-response", message.reply_to, {"error": error})
        else:
            self._channel.answer("server-response", message.reply_to, {"t": asked.kind, "d": data})

    def _fail(self, id: str, why: str) -> None:
        del self._asked[id]
        self._channel.answer("error-response", id, {"error": why})
