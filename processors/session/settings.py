"""The settings of a session, as one model. Durations carry their unit; None switches a limit off.

::

    settings = SessionSettings(greeting="Hello.", idle_timeout_s=20, interruption={"min_words": 2})
    settings = SessionSettings.load("session.toml")          # or .yaml; then VOXLINE_SESSION_... of the environment
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ...pipeline.errors import MissingExtraError, SettingsError
from ...pipeline.settings import explain
from .apology_audio import check_recording

ENVIRONMENT = "VOXLINE_SESSION_"
"""Prefix of the environment variables. Two underscores lead into a section: ``..._INTERRUPTION__MIN_WORDS``."""

BACKCHANNELS = (
    "yeah", "yes", "yep", "yup", "uh huh", "mm hm", "mhm", "mm", "hm", "hmm", "okay", "ok", "right", "sure", "i see",
    "ah", "oh", "uh", "um", "aha", "got it", "alright", "cool", "huh",
)  # fmt: skip
"""Words by which a listener signals attention. The frequent ones of the classes "b" and "ba" of the Switchboard-DAMSL
tags (Jurafsky, Shriberg and Biasca, 1997).
"""
KEYWORDS = ("stop", "wait", "hold on", "hang on", "no", "cancel", "quiet", "enough", "shut up", "be quiet", "pause")


class SettingsSection(BaseModel):
    """A frozen model that rejects unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _understand(cls, values: Any) -> Any:
        """Accept one text for a list of texts, and "none" for None: TOML cannot express None."""
        if isinstance(values, str) and cls is EndpointingSettings:
            return {"strategy": values}
        if not isinstance(values, dict):
            return values
        given: dict[str, Any] = dict(values)  # pyright: ignore[reportUnknownArgumentType]
        for name, value in given.items():
            kind = cls.model_fields[name].annotation if name in cls.model_fields else None
            if isinstance(value, str) and get_origin(kind) is tuple:
                given[name] = (value,)
            elif value == "none" and type(None) in get_args(kind):
                given[name] = None
        return given


class InterruptionSettings(SettingsSection):
    """Conditions for an interruption by the user's speech.

    The start of speech pauses the bot. The bot is cut once the words show that the user wants the turn, or once the
    speech lasts too long to be anything else; otherwise it continues where it was paused.
    """

    allow: bool = True
    """False: speech over the bot is ignored. `Session.say` can restrict a single speech."""
    min_words: int = Field(default=1, ge=0)
    """Number of words that cut the bot. 0: speech of ``min_speech_ms`` cuts it, with or without words."""
    min_speech_ms: float = Field(default=500, ge=0)
    """Shorter speech does not interrupt, unless it contains a keyword."""
    speech_alone_ms: float = Field(default=1_500, gt=0)
    """Speech of this length cuts the bot without any word. A cough is shorter."""
    grace_ms: float = Field(default=200, ge=0)
    """Speech that starts this soon after the bot may be its echo: it does not pause the bot; only its words count."""
    false_timeout_ms: float = Field(default=2_000, gt=0)
    """The bot continues after this silence of the user without any words."""
    backchannels: tuple[str, ...] = BACKCHANNELS
    """Words that do not interrupt, unless other words are said with them."""
    keywords: tuple[str, ...] = KEYWORDS
    """Words that always interrupt: an interruption of the kind ``request``."""


class EndpointingSettings(SettingsSection):
    """Conditions for the end of the user's turn."""

    strategy: Literal["vad", "transcript", "model", "dynamic", "push_to_talk", "text"] = "vad"
    """``vad``: after ``min_delay_ms`` of silence. ``transcript``: with the final transcript. ``model``: the surer a
    turn model is, the sooner. ``dynamic``: estimated from the caller's pauses. ``push_to_talk``: on release of the
    button. ``text``: there is no speech.
    """
    min_delay_ms: float = Field(default=500, ge=0)
    """Delay from the end of speech. The detector's own silence (`SileroVAD`'s ``stop_ms``) is a part of it."""
    max_delay_ms: float = Field(default=3_000, gt=0)
    transcript_delay_ms: float = Field(default=0, ge=0)
    """Delay from the final transcript, for the strategy ``transcript``."""
    transcript_timeout_ms: float = Field(default=3_000, gt=0)
    """Time-out for the transcript after speech. The turn then ends without it, and an error is reported."""
    turn_timeout_s: float | None = Field(default=60, gt=0)
    """Longest turn. A longer one is ended: music on hold."""
    turn_words: int | None = Field(default=None, gt=0)
    """Longest turn, in words."""

    @model_validator(mode="after")
    def _check_delays(self) -> Self:
        if self.max_delay_ms < self.min_delay_ms and self.strategy in ("model", "dynamic"):
            raise ValueError(
                f"max_delay_ms is {self.max_delay_ms:g}, and should be at least min_delay_ms, "
                f"which is {self.min_delay_ms:g}"
            )
        return self


class PreemptiveSettings(SettingsSection):
    """Start the answer before the end of the user's turn, from a guess of their words."""

    enabled: bool = False
    stable_ms: float = Field(default=200, ge=0)
    """An interim transcript that is unchanged for this long starts a guess."""
    max_tries: int = Field(default=3, gt=0)
    """Guesses in one turn. The last one is reserved for the silence after the speech."""
    max_speech_s: float = Field(default=10, gt=0)
    """No guess in turns that last longer."""
    agreement: float = Field(default=0.9, gt=0, le=1)
    """Smallest agreement between guess and final words, as a share of the words, for which the answer is played."""


class IdleStep(SettingsSection):
    """A step of the idle ladder: after ``after_s`` of silence, the bot says ``say``."""

    after_s: float = Field(gt=0)
    say: str = Field(min_length=1)


class SessionSettings(SettingsSection):
    """All settings of a session. Raises `SettingsError`, which names the field and the allowed values."""

    instructions: str = ""
    """The system message that begins every request."""
    greeting: str = ""
    """The first words of the bot."""
    farewells: tuple[str, ...] = ()
    """Turns of the user, word for word, after whose answer the session closes."""
    goodbyes: dict[str, str] = Field(default_factory=dict)
    """Last words of the bot, by reason: ``idle``, ``duration``, ``messages``, or a custom reason."""
    answer_unclear: bool = False
    """True: speech without an intelligible word is a turn with an empty text."""
    history_turns: int = Field(default=200, ge=1)
    """Number of the newest turns that are kept, and sent to the model."""
    mute: tuple[Literal["first_speech", "tools", "speaking"], ...] = ()
    """Times at which the user is muted: until the bot's first speech has ended, while a tool runs, while it speaks."""

    idle_timeout_s: float | None = Field(default=300, gt=0)
    """Silence of both sides, from the end of playout, until the session closes (after the ladder)."""
    idle_ladder: tuple[IdleStep, ...] = ()
    max_duration_s: float | None = Field(default=3_600, gt=0)
    max_messages: int | None = Field(default=100, gt=0)
    """Limit for the messages of user and bot together. The exchange that reaches it is completed."""
    response_timeout_s: float | None = Field(default=30, gt=0)
    """Time-out for an answer of which nothing is heard."""
    error_timeout_s: float | None = Field(default=3, gt=0)
    """Time-out for an answer in which an error occurred."""
    apology: str = ""
    """Words of the bot after a service failed and an answer, or the user's words, were lost."""
    apology_file: Path | None = None
    """A recording of the apology, for the case that the voice fails too; ``apology`` is its text."""
    wait_for_client: bool = False
    """True: the session connects with a `ClientConnectedFrame`. False: it connects when the pipeline runs."""
    connection_timeout_s: float = Field(default=10, gt=0)
    closing_timeout_s: float = Field(default=30, gt=0)
    """Time-out for the last words."""
    keep_alive_s: float | None = Field(default=30, gt=0)

    interruption: InterruptionSettings = InterruptionSettings()
    endpointing: EndpointingSettings = EndpointingSettings()
    preemptive: PreemptiveSettings = PreemptiveSettings()

    @field_validator("apology_file")
    @classmethod
    def _check_recording(cls, value: Path | None) -> Path | None:
        if value is not None:
            check_recording(value)
        return value

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError(f"{type(self).__name__}: {explain(error, type(self))}.") from None

    def changed(self, **values: Any) -> Self:
        """Return a copy with other values; a section may be given in part, as a dict.

        Raises `SettingsError`.
        """
        return type(self)(**_merged(self.model_dump(), values))

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None, environment: Mapping[str, str] | None = None) -> Self:
        """Read settings from a TOML or YAML file, if given, and then from the environment (by default the process's).

        Variables are named ``VOXLINE_SESSION_IDLE_TIMEOUT_S``; in ``VOXLINE_SESSION_INTERRUPTION__MIN_WORDS`` the two
        underscores lead into a section. Lists and tables are written as JSON, and ``null`` is None. Raises
        `SettingsError`, and `MissingExtraError` for YAML without its package.
        """
        values = {} if path is None else _from_file(Path(path))
        overrides = _from_environment(os.environ if environment is None else environment)
        return cls(**_merged(values, overrides))


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        if isinstance(value, BaseModel):
            value = value.model_dump()
        below = result.get(key)
        section = isinstance(value, Mapping) and isinstance(below, Mapping)
        result[key] = _merged(below, value) if section else value  # pyright: ignore[reportUnknownArgumentType, reportArgumentType]
    return result


def _from_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"The settings in {path} cannot be read: {error}.") from error
    try:
        match path.suffix.lower():
            case ".toml":
                found: Any = tomllib.loads(text)
            case ".yaml" | ".yml":
                found = _yaml(text)
            case other:
                raise SettingsError(f"{path}: settings are read from .toml, .yaml or .yml files, not from {other!r}.")
    except ValueError as error:
        if isinstance(error, SettingsError):
            raise
        raise SettingsError(f"{path} is not valid {path.suffix[1:].upper()}: {error}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise SettingsError(f"{path} must contain names with values, not a {type(found).__name__}.")
    return found  # pyright: ignore[reportUnknownVariableType]


def _yaml(text: str) -> Any:
    try:
        yaml: Any = import_module("yaml")
    except ImportError as error:
        raise MissingExtraError("Settings in YAML", "pyyaml", "yaml") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(error) from error


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in sorted(environment.items()):
        if not name.startswith(ENVIRONMENT):
            continue
        *sections, key = name.removeprefix(ENVIRONMENT).lower().split("__")
        place = values
        for section in sections:
            if not isinstance(place.setdefault(section, {}), dict):
                raise SettingsError(
                    f"{name} sets a part of {section}, but {ENVIRONMENT}{section.upper()} sets it to a plain value."
                )
            place = place[section]
        place[key] = _plain(text)
    return values


def _plain(text: str) -> Any:
    """Parse a JSON list or table, or ``null``. Other text stays text, which pydantic converts to numbers."""
    stripped = text.strip()
    if stripped == "null":
        return None
    if stripped[:1] in ("[", "{"):
        try:
            return json.loads(stripped)
        except ValueError:
            return text
    return text
