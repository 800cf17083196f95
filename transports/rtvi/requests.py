"""`ClientRequests`: turns the client's messages into frames for the bot."""

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
"""Bound on messages of a client in the long run; app messages and typing stay below it."""
BURST = 100
"""Bound on messages at once."""
ASKED = 256
"""Bound on messages waiting for an answer; beyond it the oldest is answered with an error."""
KEYS = frozenset("0123456789*#")
MAX_KEYS = 64

log = logging.getLogger("voxline")


class ClientTransport(Protocol):
    """Interface of the transport, as far as RTVI uses it. Every `Transport` fits."""

    lead_ms: float

    @property
    def clock(self) -> Clock:
        """The worker's clock; `TransportError` before it runs."""
        ...

    @property
    def input_dbfs(self) -> float:
        """Level of the user, in dB of full scale."""
        ...

    @property
    def output_dbfs(self) -> float:
        """Level of the bot, in dB of full scale."""
        ...

    def deliver(self, frame: Frame) -> None:
        """Post a frame to the head of the pipeline."""
        ...

    def hang_up(self) -> None:
        """End the user's input."""
        ...


@dataclass(slots=True)
class _PendingRequest:
    kind: str
    seen: bool = False
    """True once a processor received it."""


class ClientRequests:
    """Reads the client's messages. ``ready`` is called when the client reports that it is ready."""

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
        """Messages that were refused: too many, or invalid."""

    def received(self, text: str) -> None:
        """Process a message of the client. Never raises."""
        # Any message, even a ping, shows that the client is present: send the messages kept for it.
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
            self._refuse(id, "The bot cannot take more messages at the moment.")

    def _refuse(self, id: str, why: str) -> None:
        self.refused += 1
        log.debug("RTVI: a client's message was refused: %s", why)
        if id:
            self._channel.answer("error-response", id, {"error": why})
        else:
            self._channel.fault(why)

    def _too_many(self) -> bool:
        """Apply the token bucket, which refills only while the worker runs and provides a clock."""
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
            self._channel.fault(f"More than {MESSAGES_PER_S} messages per second; they are ignored.")
        return True

    # --- kinds of messages ------------------------------------------------------------------------------------------

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
                # Version 1 of the JavaScript client sends this instead of send-text.
                if data.get("role") != "user":
                    raise BadMessageError(
                        "Only the user's words are accepted: append-to-context must have the role user."
                    )
                self._say(data.get("content"), data.get("run_immediately"))
            case "dtmf":
                keys: Any = data.get("buttons", [data.get("button")])
                if not isinstance(keys, list) or not keys or not all(isinstance(key, str) for key in keys):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
                    raise BadMessageError('"buttons" must be a list of keys.')
                pressed = "".join(keys)  # pyright: ignore[reportUnknownArgumentType]
                if len(pressed) > MAX_KEYS or not KEYS.issuperset(pressed):
                    raise BadMessageError(f"Keys must be 0 to 9, * or #, at most {MAX_KEYS}.")
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
            raise BadMessageError('"options" must be an object.')
        self._say(data.get("content"), options.get("run_immediately"))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        if options.get("audio_response") is False and not self._told_silent:  # pyright: ignore[reportUnknownMemberType]
            self._told_silent = True
            self._channel.fault("This bot speaks its answers: audio_response=false has no effect.")

    def _say(self, content: object, run_immediately: object) -> None:
        if not isinstance(content, str) or not content.strip():
            raise BadMessageError('"content" must be a text and not empty.')
        if run_immediately is not None and not isinstance(run_immediately, bool):
            raise BadMessageError('"run_immediately" must be true or false.')
        self._transport.deliver(InputTextFrame(content, interrupt=run_immediately is not False))

    def _message(self, message: RTVIMessage) -> None:
        kind = name(message.data, "t")
        if kind == "interrupt":
            # Answered here: every bot can be interrupted, without code for it.
            self._transport.deliver(InterruptRequestFrame())
            if message.id:
                self._channel.answer("server-response", message.id, {"t": kind, "d": None})
            return
        if message.id in self._asked:
            raise BadMessageError("A message with this id already waits for its answer.")
        self._transport.deliver(ClientMessageFrame(kind, json.dumps(message.data.get("d")), message.id))
        if message.id:
            self._asked[message.id] = _PendingRequest(kind)
            if len(self._asked) > ASKED:
                self._fail(next(iter(self._asked)), "The bot has too many messages to answer.")

    # --- answers ----------------------------------------------------------------------------------------------------

    def seen(self, frame: ClientMessageFrame) -> None:
        """Note that a processor receives a client's message."""
        asked = self._asked.get(frame.id)
        if asked is not None:
            asked.seen = True

    def unseen(self, frame: ClientMessageFrame) -> None:
        """Answer a client's message that left the pipeline unseen with an error."""
        asked = self._asked.get(frame.id)
        if asked is not None and not asked.seen:
            self._fail(frame.id, "The bot does not know messages of this type.")

    def answer(self, message: ServerMessageFrame) -> None:
        """Send a message of the bot: an answer, or one on its own initiative."""
        if not message.reply_to:
            if message.error:
                self._channel.tell("error", {"error": message.error, "message": message.error, "fatal": False})
            else:
                self._channel.server_message(message.data)
            return
        asked = self._asked.pop(message.reply_to, None)
        if asked is None:
            log.debug("RTVI: an answer to an unknown message id")
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
