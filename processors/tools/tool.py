"""Tools: plain typed functions that a language model may call.

::

    def get_weather(city: str, unit: Literal["celsius", "fahrenheit"] = "celsius") -> str:
        '''Tells the weather of a city.

        Args:
            city: The city's name, without its country.
        '''

    llm = OpenAILLM("a-model", tools=[get_weather])

The function's name, docstring and signature are what the model is told. Nothing here runs anything: see `running.py`.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired, cast, get_origin, overload

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError, PydanticUserError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, PydanticUndefined, to_json, to_jsonable_python
from typing_extensions import TypedDict

from ...pipeline.clock import Clock
from ...pipeline.errors import SettingsError, VoxlineError
from .docstring import read_docstring

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""What the protocols of models take for a name (OpenAI's API reference, "function.name")."""

Say = str | Callable[[Mapping[str, Any]], str]
Key = bool | Callable[[Mapping[str, Any]], str]


class ToolError(VoxlineError):
    """Raise it in a tool: the model is told its message. Of any other exception it is told the class only."""


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as a model is told of it. ``parameters``: a JSON schema of an object, as JSON."""

    name: str
    description: str
    parameters: str


class ToolContext:
    """For a tool that wants to know of its call: a parameter with this type gets it, and no model hears of it."""

    def __init__(self, call_id: str, name: str, clock: Clock, say: Callable[[str], None]) -> None:
        self.call_id = call_id
        self.name = name
        self.clock = clock
        """The worker's: ``await context.clock.sleep(1)``, in an async tool."""
        self._say = say

    def say(self, text: str) -> None:
        """Let the bot say something while the tool runs. Nothing is said once the answer was cut or the call is over.

        It does not wait for that, and works in an ordinary function too, which runs in a thread.
        """
        self._say(text)


class Tool:
    """A function and how it is to be run.

    ``function``: ``async def``, which runs beside the pipeline; or an ordinary one, which runs in a thread, so it may
    block. Its parameters need types that JSON can express, each by its name; one of type `ToolContext` is left out.

    ``name``, ``description``: in the place of the function's name and docstring.

    ``timeout_s``: when the model is told that there is no result. An async function is cancelled then; a thread
    cannot be, and is left behind.

    ``on_interruption``: what becomes of a call that runs when the user interrupts the answer. ``"finish"``, the
    default, since nobody knows what half a booking is: it goes on, and its result is in the history for the next
    answer. ``"cancel"``: for what only looks something up.

    ``key``: for what must not happen twice. True: calls with the same arguments are the same; or a function of the
    arguments that gives a text. A second call with the same key does not run: while the first runs, it waits for that
    one's result; where that has succeeded, within the conversation or the last ``remember_s`` seconds, it gets it.

    ``say``: what the bot says where the tool has taken ``say_after_ms``: a text, or a function of the arguments.

    ``max_result_chars``: a longer result is cut, and says so.

    Raises `SettingsError` where a model could not be told of the function.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        timeout_s: float = 10.0,
        on_interruption: Literal["finish", "cancel"] = "finish",
        key: Key = False,
        remember_s: float | None = None,
        say: Say | None = None,
        say_after_ms: float = 500.0,
        max_result_chars: int = 8_000,
    ) -> None:
        self.function = function
        self.name = _name(function) if name is None else name
        self._check(timeout_s, on_interruption, remember_s, say_after_ms, max_result_chars)
        self.timeout_s = timeout_s
        self.on_interruption = on_interruption
        self.remember_s = remember_s
        self.say_after_ms = say_after_ms
        self.max_result_chars = max_result_chars
        self._key = key
        self._say = say
        self.is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004
        )
        """Whether it is ``async def``: the others run in threads."""
        about, of_parameters = read_docstring(inspect.getdoc(_plain(function)))
        self._context = ""
        self._defaults: dict[str, Any] = {}
        types = self._parameters()
        self._arguments, schema = self._schema(types, of_parameters)
        self.spec = ToolSpec(self.name, about if description is None else description, json.dumps(schema))
        """What a model is told."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, as if it were none."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Tool {self.name}>"

    # --- a call -------------------------------------------------------------------------------------------------------

    def arguments(self, text: str) -> dict[str, Any]:
        """What a model gave as arguments (JSON), in the types of the parameters. Raises `ToolError`, for the model."""
        text = text.strip() or "{}"
        try:
            given = json.loads(text)
            # Some models write the object as a text within the JSON, and some write null for no arguments.
            given = json.loads(given) if isinstance(given, str) else given
        except ValueError:
            given = text
        if given is None:
            given = {}
        if not isinstance(given, dict):
            raise ToolError(f"The arguments are not a JSON object. It was not called. Expected: {self.spec.parameters}")
        try:
            return self._arguments.validate_json(json.dumps(given))
        except ValidationError as error:
            raise ToolError(f"{self.name} was not called: {_told(error)}. Call it again with what fits.") from None

    def call(self, arguments: Mapping[str, Any], context: ToolContext) -> Any:
        """Call the function; what an async one gives is to be awaited."""
        given = {**{name: one for name, one in self._defaults.items() if name not in arguments}, **arguments}
        if self._context:
            given[self._context] = context
        return self.function(**given)

    def key_of(self, arguments: Mapping[str, Any]) -> str | None:
        """What a call with these arguments is known by; None where each is one of its own."""
        if self._key is False:
            return None
        if self._key is True:
            every = {**self._all_defaults(), **arguments}
            return f"{self.name} {json.dumps(to_jsonable_python(every), sort_keys=True)}"
        return f"{self.name} {self._key(arguments)}"

    @property
    def says(self) -> bool:
        """Whether something is to be said while it runs."""
        return bool(self._say)

    def words_for(self, arguments: Mapping[str, Any]) -> str:
        """What is said while it runs; empty for nothing."""
        return self._say(arguments) if callable(self._say) else self._say or ""

    def text_of(self, result: object) -> str:
        """A result as the model is told it: a text as it is, all else as JSON. Raises `ToolError`, for the model."""
        if isinstance(result, str):
            text = result
        else:
            try:
                text = to_json(result).decode()
            except (PydanticSerializationError, UnicodeDecodeError):
                raise ToolError(f"{self.name} ran, and its result cannot be told: it is no JSON.") from None
        most = self.max_result_chars
        return text if len(text) <= most else f"{text[:most]} [cut: {most} of {len(text)} characters]"

    # --- what a model is told -----------------------------------------------------------------------------------------

    def _check(
        self, timeout_s: float, on_interruption: str, remember_s: float | None, say_after_ms: float, most: int
    ) -> None:
        if not _NAME.fullmatch(self.name):
            raise SettingsError(f"A tool's name has 1 to 64 of a-z, A-Z, 0-9, _ and -, not {self.name!r}: give name=.")
        wrong = [
            ("timeout_s", "more than 0", timeout_s > 0),
            ("on_interruption", "'finish' or 'cancel'", on_interruption in ("finish", "cancel")),
            ("remember_s", "more than 0, or None for the whole conversation", remember_s is None or remember_s > 0),
            ("say_after_ms", "0 or more", say_after_ms >= 0),
            ("max_result_chars", "more than 0", most > 0),
        ]
        for setting, allowed, fits in wrong:
            if not fits:
                raise SettingsError(f"Tool {self.name}: {setting} has to be {allowed}.")

    def _parameters(self) -> dict[str, tuple[Any, bool]]:
        """Type of each parameter, and whether it has to be given."""
        try:
            signature = inspect.signature(self.function, eval_str=True)
        except NameError as error:
            raise SettingsError(
                f"Tool {self.name}: its annotations name {error.name}, which is not found. Define or import it at the "
                "top of the module."
            ) from None
        except (TypeError, ValueError) as error:
            raise SettingsError(f"Tool {self.name}: {self.function!r} has no signature to be read.") from error
        bound = _bound(self.function)
        found: dict[str, tuple[Any, bool]] = {}
        for parameter in signature.parameters.values():
            if parameter.name in bound:
                continue
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise SettingsError(
                    f"Tool {self.name}: a model gives arguments by name, and {parameter} takes none so."
                )
            hint, default = parameter.annotation, parameter.default
            if hint is ToolContext:
                self._context = parameter.name
                continue
            if hint is parameter.empty:
                raise SettingsError(
                    f"Tool {self.name}: say what type {parameter.name} has, as in `{parameter.name}: str`."
                )
            if isinstance(default, FieldInfo):
                hint = Annotated[hint, default]
                default = default.get_default(call_default_factory=True)
                if default is PydanticUndefined:
                    default = parameter.empty
                else:
                    self._defaults[parameter.name] = default
            found[parameter.name] = (hint, default is parameter.empty)
        return found

    def _schema(
        self, types: Mapping[str, tuple[Any, bool]], described: Mapping[str, str]
    ) -> tuple[TypeAdapter[dict[str, Any]], dict[str, Any]]:
        for name, (hint, _) in types.items():
            try:
                TypeAdapter(hint).json_schema()
            except (PydanticSchemaGenerationError, PydanticInvalidForJsonSchema, PydanticUserError):
                raise SettingsError(
                    f"Tool {self.name}: the type of {name}, {_shown(hint)}, cannot be told to a model. Take str, int, "
                    "float, bool, Literal, an Enum, lists and dicts of these, dataclasses or pydantic models."
                ) from None
        fields = {name: hint if needed else NotRequired[hint] for name, (hint, needed) in types.items()}
        shape = cast(Any, TypedDict)(self.name, fields)
        shape.__pydantic_config__ = ConfigDict(extra="forbid")
        adapter = cast(TypeAdapter[dict[str, Any]], TypeAdapter(shape))
        schema = cast(dict[str, Any], _without_titles(adapter.json_schema()))
        properties = schema.setdefault("properties", {})
        for name, text in described.items():
            if name in properties:
                properties[name].setdefault("description", text)
        for name, default in self._all_defaults().items():
            try:
                properties[name].setdefault("default", to_jsonable_python(default))
            except PydanticSerializationError:
                continue
        return adapter, schema

    def _all_defaults(self) -> dict[str, Any]:
        plain = {
            parameter.name: parameter.default
            for parameter in inspect.signature(self.function).parameters.values()
            if parameter.default is not parameter.empty
            and parameter.name not in self._defaults
            and parameter.name != self._context
            and not isinstance(parameter.default, FieldInfo)
        }
        bound = _bound(self.function)
        return {name: one for name, one in {**plain, **self._defaults}.items() if name not in bound}


ToolLike = Tool | Callable[..., Any]
"""What may be given as a tool: a `Tool`, or a function that becomes one."""


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout_s: float = 10.0,
    on_interruption: Literal["finish", "cancel"] = "finish",
    key: Key = False,
    remember_s: float | None = None,
    say: Say | None = None,
    say_after_ms: float = 500.0,
    max_result_chars: int = 8_000,
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(function: Callable[..., Any] | None = None, /, **options: Any) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a function a `Tool`, with its options: ``@tool`` or ``@tool(timeout_s=30)``. It can be called as before."""
    if function is not None:
        return Tool(function)
    return functools.partial(Tool, **options)


def as_tools(tools: Any) -> dict[str, Tool]:
    """Tools by their names. Raises `SettingsError` where two have the same."""
    found: dict[str, Tool] = {}
    for one in tools:
        if not isinstance(one, Tool) and not callable(one):
            raise SettingsError(f"tools= takes functions and Tools, not {one!r}.")
        made = one if isinstance(one, Tool) else Tool(one)
        if made.name in found:
            raise SettingsError(f"Two tools have the name {made.name}. Give one of them another: Tool(..., name=...).")
        found[made.name] = made
    return found


def _bound(function: Callable[..., Any]) -> Mapping[str, Any]:
    """Arguments that are settled already."""
    return cast("functools.partial[Any]", function).keywords if isinstance(function, functools.partial) else {}


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return function.func if isinstance(function, functools.partial) else function


def _name(function: Callable[..., Any]) -> str:
    plain = _plain(function)
    return getattr(plain, "__name__", "") or type(plain).__name__


def _shown(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and get_origin(hint) is None else str(hint)


def _told(error: ValidationError) -> str:
    """What does not fit, in a sentence for the model."""
    problems: list[str] = []
    for one in error.errors(include_url=False):
        where = ".".join(map(str, one["loc"])) or "arguments"
        given = "" if one["type"] in ("missing", "extra_forbidden") else f", not {_short(one['input'])}"
        message = "there is no such argument" if one["type"] == "extra_forbidden" else one["msg"]
        problems.append(f"{where}: {message}{given}")
    return "; ".join(problems[:8])


def _short(value: object, most: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


def _without_titles(schema: Any, *, names: bool = False) -> Any:
    """A JSON schema without the titles that pydantic makes of names: they cost tokens.

    ``names``: the keys of this object are names of something, and no words of the schema.
    """
    if isinstance(schema, list):
        return [_without_titles(one) for one in cast(list[Any], schema)]
    if not isinstance(schema, dict):
        return schema
    cleaned: dict[str, Any] = {}
    for key, one in cast(dict[str, Any], schema).items():
        if key == "title" and not names:
            continue
        keep = not names and key in ("default", "enum", "const", "examples")
        cleaned[key] = one if keep else _without_titles(one, names=not names and key in ("properties", "$defs"))
    return cleaned
