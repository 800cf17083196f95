"""What a session is asked to do, as one model. Durations carry their unit; None switches a limit off.

::

    settings = SessionSettings(greeting="Hello.", idle_timeout_s=20, interruption={"min_words": 2})
    settings = SessionSettings.load("session.toml")          # or .yaml; then VOXLINE_SESSION_... of the environment
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ...pipeline.errors import MissingExtraError, SettingsError
from .apology_audio import check_recording

ENVIRONMENT = "VOXLINE_SESSION_"
"""What the names of variables begin with; two underscores lead into a section: ``..._INTERRUPTION__MIN_WORDS``."""

BACKCHANNELS = (
    "yeah", "yes", "yep", "yup", "uh huh", "mm hm", "mhm", "mm", "hm", "hmm", "okay", "ok", "right", "sure", "i see",
    "ah", "oh", "uh", "um", "aha", "got it", "alright", "cool", "huh",
)  # fmt: skip
"""Said by who listens, to say that they do. From the classes "b" and "ba" of the Switchboard-DAMSL tags (Jurafsky,
Shriberg and Biasca, 1997), the frequent ones.
"""
KEYWORDS = ("stop", "wait", "hold on", "hang on", "no", "cancel", "quiet", "enough", "shut up", "be quiet", "pause")


class Section(BaseModel):
    """A frozen model that allows no field it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _understand(cls, values: Any) -> Any:
        """One text is a list of one; "none" is None where that is allowed, for TOML has no other way to say it."""
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


class InterruptionSettings(Section):
    """When speech over the bot is an interruption.

    The bot is silenced at the start of speech. It is cut once the words say that the user wants the turn, or once the
    speech lasts too long to be anything else; otherwise it goes on where it was silenced.
    """

    allow: bool = True
    """False: what is said over the bot is ignored. `Session.say` can say otherwise for what it says."""
    min_words: int = Field(default=1, ge=0)
    """So many words cut the bot. 0: speech of ``min_speech_ms`` does, understood or not."""
    min_speech_ms: float = Field(default=500, ge=0)
    """Shorter speech is none, but for a keyword."""
    speech_alone_ms: float = Field(default=1_500, gt=0)
    """Speech that lasts so long cuts the bot without a word being understood yet. No cough does."""
    grace_ms: float = Field(default=200, ge=0)
    """Speech that begins so soon after the bot did may be its echo: only its words count, it silences nobody."""
    false_timeout_ms: float = Field(default=2_000, gt=0)
    """When the user is silent and no words have come for so long, the bot goes on."""
    backchannels: tuple[str, ...] = BACKCHANNELS
    """Words that do not interrupt, if nothing else is said."""
    keywords: tuple[str, ...] = KEYWORDS
    """Words that always do: an interruption of the kind ``request``."""


class EndpointingSettings(Section):
    """When the user's turn is over."""

    strategy: Literal["vad", "transcript", "model", "dynamic", "push_to_talk", "text"] = "vad"
    """``vad``: after ``min_delay_ms`` of silence. ``transcript``: with the final transcript. ``model``: the surer a
    turn model is, the sooner. ``dynamic``: learnt from the caller's pauses. ``push_to_talk``: with the button.
    ``text``: there is no speech.
    """
    min_delay_ms: float = Field(default=500, ge=0)
    """From the end of speech, and not from when the detector is sure of it: `SileroVAD`'s ``stop_ms`` is part of it."""
    max_delay_ms: float = Field(default=3_000, gt=0)
    transcript_delay_ms: float = Field(default=0, ge=0)
    """``transcript``: from the final transcript."""
    transcript_timeout_ms: float = Field(default=3_000, gt=0)
    """With no transcript for so long after speech, the turn is ended without it, and an error says so."""
    turn_timeout_s: float | None = Field(default=60, gt=0)
    """A turn that does not end is ended: music on hold."""
    turn_words: int | None = Field(default=None, gt=0)
    """The same, in words."""

    @model_validator(mode="after")
    def _check_delays(self) -> Self:
        if self.max_delay_ms < self.min_delay_ms and self.strategy in ("model", "dynamic"):
            raise ValueError(
                f"max_delay_ms is {self.max_delay_ms:g}, and should be at least min_delay_ms, "
                f"which is {self.min_delay_ms:g}"
            )
        return self


class PreemptiveSettings(Section):
    """Begin the answer before the user's turn is over, on a guess of what they will have said."""

    enabled: bool = False
    stable_ms: float = Field(default=200, ge=0)
    """An interim transcript that has not changed for so long is worth a guess."""
    max_tries: int = Field(default=3, gt=0)
    """In one turn; the last of them when the user is silent."""
    max_speech_s: float = Field(default=10, gt=0)
    """Longer turns are not guessed."""
    agreement: float = Field(default=0.9, gt=0, le=1)
    """How alike the guess and what was said must be, as a share of their words, for the answer to be played."""


class IdleStep(Section):
    """A step of the ladder: after so much silence, the bot says something."""

    after_s: float = Field(gt=0)
    say: str = Field(min_length=1)


class SessionSettings(Section):
    """All settings of a session. Raises `SettingsError`, which names the field and says what is allowed."""

    instructions: str = ""
    """The system message that begins every request."""
    greeting: str = ""
    """What the bot says first."""
    farewells: tuple[str, ...] = ()
    """User turns, word for word, that end the session once their answer was played."""
    goodbyes: dict[str, str] = Field(default_factory=dict)
    """What the bot says before it closes, by reason: ``idle``, ``duration``, ``messages``, or your own."""
    answer_unclear: bool = False
    """Speech without an intelligible word is a turn too, with an empty text."""
    history_turns: int = Field(default=200, ge=1)
    """So many of the newest turns are kept, and told to the model."""
    mute: tuple[Literal["first_speech", "tools", "speaking"], ...] = ()
    """When the user is not listened to: until the bot's first speech is over, while a tool runs, while it speaks."""

    idle_timeout_s: float | None = Field(default=300, gt=0)
    """Silence of both sides, from the end of playout, until the session closes (after the ladder)."""
    idle_ladder: tuple[IdleStep, ...] = ()
    max_duration_s: float | None = Field(default=3_600, gt=0)
    max_messages: int | None = Field(default=100, gt=0)
    """Messages of the user and of the bot together. The exchange that reaches it is completed."""
    response_timeout_s: float | None = Field(default=30, gt=0)
    """An answer of which nothing is heard for so long is given up."""
    error_timeout_s: float | None = Field(default=3, gt=0)
    """The same, from an error in it on."""
    apology: str = ""
    """What the bot says where an answer was lost, in whole or in part, or what the user said: services failed."""
    apology_file: Path | None = None
    """The same as a recording, for the case that the voice has failed too; ``apology`` is what is said in it."""
    wait_for_client: bool = False
    """True: connected is when `ClientConnectedFrame` says so. False: when the pipeline runs."""
    connection_timeout_s: float = Field(default=10, gt=0)
    closing_timeout_s: float = Field(default=30, gt=0)
    """How long the last words may take."""
    keep_alive_s: float | None = Field(default=30, gt=0)

    interruption: InterruptionSettings = InterruptionSettings()
    endpointing: EndpointingSettings = EndpointingSettings()
    preemptive: PreemptiveSettings = PreemptiveSettings()

    @field_validator("apology_file")
    @classmethod
    def _can_be_said(cls, value: Path | None) -> Path | None:
        if value is not None:
            check_recording(value)
        return value

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError(_explain(error)) from None

    def changed(self, **values: Any) -> Self:
        """The same with other values; a section may be given in part, as a dict.

        Raises `SettingsError`.
        """
        return type(self)(**_merged(self.model_dump(), values))

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None, environment: Mapping[str, str] | None = None) -> Self:
        """Settings from a TOML or YAML file, if given, and over that from the environment (that of the process).

        Variables are named ``VOXLINE_SESSION_IDLE_TIMEOUT_S``; in ``VOXLINE_SESSION_INTERRUPTION__MIN_WORDS`` the two
        underscores lead into a section. Lists and tables are written as JSON, and ``null`` is None. Raises
        `SettingsError`, and `MissingExtraError` where YAML is to be read without its package.
        """
        values = {} if path is None else _from_file(Path(path))
        given = _from_environment(os.environ if environment is None else environment)
        return cls(**_merged(values, given))


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
                raise SettingsError(f"{path}: settings are read from .toml, .yaml or .yml, not {other or 'that'!r}.")
    except ValueError as error:
        if isinstance(error, SettingsError):
            raise
        raise SettingsError(f"{path} is no {path.suffix[1:].upper()}: {error}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise SettingsError(f"{path} has to hold names with values, not a {type(found).__name__}.")
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
                    f"{name} leads into {section}, which {ENVIRONMENT}{section.upper()} says is no section."
                )
            place = place[section]
        place[key] = _plain(text)
    return values


def _plain(text: str) -> Any:
    """A list, a table or ``null``; the rest stays text, of which pydantic makes numbers."""
    stripped = text.strip()
    if stripped == "null":
        return None
    if stripped[:1] in ("[", "{"):
        try:
            return json.loads(stripped)
        except ValueError:
            return text
    return text


def _explain(error: ValidationError) -> str:
    """One sentence for each mistake."""
    return " ".join(_sentence(".".join(map(str, one["loc"])), one) for one in error.errors())


def _sentence(field: str, error: Any) -> str:
    if error["type"] == "extra_forbidden":
        allowed = _allowed(error["loc"])
        meant = get_close_matches(str(error["loc"][-1]), allowed, n=1)
        hint = f" Did you mean {meant[0]}?" if meant else ""
        return f"SessionSettings has no {field}.{hint} What there is: {', '.join(allowed)}."
    if error["type"] == "value_error":
        return f"SessionSettings.{field}: {str(error['msg']).removeprefix('Value error, ')}."
    if error["type"] == "missing":
        return f"SessionSettings.{field} is missing, and is needed."
    value = error.get("input")
    message = str(error["msg"]).removeprefix("Input ").removeprefix("String ").removeprefix("should ")
    return f"SessionSettings.{field} is {value!r}, and should {message}."


def _allowed(where: tuple[int | str, ...]) -> list[str]:
    model: Any = SessionSettings
    for name in where[:-1]:
        if isinstance(name, str):
            model = SECTIONS.get(name, model)
    return sorted(model.model_fields)


SECTIONS: Mapping[str, type[Section]] = {
    "interruption": InterruptionSettings,
    "endpointing": EndpointingSettings,
    "preemptive": PreemptiveSettings,
    "idle_ladder": IdleStep,
}
