"""Tools: plain typed functions that a language model may call.

::

    def get_weather(city: str, unit: Literal["celsius", "fahrenheit"] = "celsius") -> str:
        '''Tells the weather of a city.

        Args:
            city: The city's name, without its country.
        '''

    llm = OpenAILLM("a-model", tools=[get_weather])

The model gets the function's name, docstring and signature. `running.py` runs the tools.
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
"""Tool names that model protocols accept (OpenAI's API reference, "function.name")."""

Say = str | Callable[[Mapping[str, Any]], str]
Key = bool | Callable[[Mapping[str, Any]], str]


class ToolError(VoxlineError):
    """Error with a message for the model, raised by a tool. Of other exceptions the model gets only the class name."""


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """Description of a tool for a model. ``parameters``: JSON schema of an object, as JSON text."""

    name: str
    description: str
    parameters: str


class ToolContext:
    """Context of a call. A parameter of this type receives it, and the model does not see that parameter."""

    def __init__(self, call_id: str, name: str, clock: Clock, say: Callable[[str], None]) -> None:
        self.call_id = call_id
        self.name = name
        self.clock = clock
        """Clock of the worker. Wait with ``await context.clock.sleep(1)`` in an async tool."""
        self._say = say

    def say(self, text: str) -> None:
        """Make the bot say a text while the tool runs. Ignored after an interruption and after the end of the call.

        Returns at once, and also works in the thread of an ordinary function.
        """
        self._say(text)


class Tool:
    """A function that a model may call, with options for its execution.

    ``function``: an ``async def`` runs beside the pipeline; an ordinary function runs in a thread, so it may block. The
    model passes arguments by name, so each parameter needs a type that JSON can express, except `ToolContext`.

    ``name``, ``description``: replace the function's name and docstring.

    ``timeout_s``: deadline after which the model gets a text instead of the result. An async function is then
    cancelled; a thread cannot be cancelled and is left behind.

    ``on_interruption``: effect of an interruption on a running call. ``"finish"``, the default, lets the call run to
    its end, because a half-done booking leaves an unknown state; the history has the result for the next answer.
    ``"cancel"`` is for lookups.

    ``key``: prevents duplicate runs. True: calls with the same arguments are equal; a function of the arguments returns
    the key as a text. While a call runs, another call with the same key waits for the same result. After a success,
    for the rest of the conversation or for ``remember_s`` seconds, it gets the remembered result.

    ``say``: a text, or a function of the arguments, that the bot says if the tool takes longer than ``say_after_ms``.

    ``max_result_chars``: maximum length of the result. A longer one is cut, with a note at the end.

    Raises `SettingsError` for a function that cannot be described to a model.
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
        """True for ``async def``; other functions run in threads."""
        about, of_parameters = read_docstring(inspect.getdoc(_plain(function)))
        self._context = ""
        self._defaults: dict[str, Any] = {}
        types = self._parameters()
        self._arguments, schema = self._schema(types, of_parameters)
        self.spec = ToolSpec(self.name, about if description is None else description, json.dumps(schema))
        """Description for the model."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function directly, without the options of the tool."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Tool {self.name}>"

    # --- a call -------------------------------------------------------------------------------------------------------

    def arguments(self, text: str) -> dict[str, Any]:
        """Parse the arguments of a call (JSON) into the types of the parameters. Raises `ToolError` for the model."""
        text = text.strip() or "{}"
        try:
            given = json.loads(text)
            # Some models send the object as a JSON string inside the JSON, others send null for no arguments.
            given = json.loads(given) if isinstance(given, str) else given
        except ValueError:
            given = text
        if given is None:
            given = {}
        if not isinstance(given, dict):
            raise ToolError(
                f"{self.name} was not called: the arguments are not a JSON object. Expected: {self.spec.parameters}"
            )
        try:
            return self._arguments.validate_json(json.dumps(given))
        except ValidationError as error:
            raise ToolError(
                f"{self.name} was not called: {_problems(error)}. Call it again with valid arguments."
            ) from None

    def call(self, arguments: Mapping[str, Any], context: ToolContext) -> Any:
        """Call the function. The caller must await the result of an async one."""
        given = {**{name: one for name, one in self._defaults.items() if name not in arguments}, **arguments}
        if self._context:
            given[self._context] = context
        return self.function(**given)

    def key_of(self, arguments: Mapping[str, Any]) -> str | None:
        """Return the key of a call with these arguments; None if the tool has no keys."""
        if self._key is False:
            return None
        if self._key is True:
            every = {**self._all_defaults(), **arguments}
            return f"{self.name} {json.dumps(to_jsonable_python(every), sort_keys=True)}"
        return f"{self.name} {self._key(arguments)}"

    @property
    def says(self) -> bool:
        """True if the tool has a ``say`` text."""
        return bool(self._say)

    def words_for(self, arguments: Mapping[str, Any]) -> str:
        """Return the ``say`` text for a call; empty if there is none."""
        return self._say(arguments) if callable(self._say) else self._say or ""

    def text_of(self, result: object) -> str:
        """Convert a result to the text for the model: strings unchanged, other values as JSON. Raises `ToolError`."""
        if isinstance(result, str):
            text = result
        else:
            try:
                text = to_json(result).decode()
            except (PydanticSerializationError, UnicodeDecodeError):
                raise ToolError(f"{self.name} ran, but its result cannot be converted to JSON.") from None
        most = self.max_result_chars
        return text if len(text) <= most else f"{text[:most]} [cut: {most} of {len(text)} characters]"

    # --- the description for the model --------------------------------------------------------------------------------

    def _check(
        self, timeout_s: float, on_interruption: str, remember_s: float | None, say_after_ms: float, most: int
    ) -> None:
        if not _NAME.fullmatch(self.name):
            raise SettingsError(f"A tool name has 1 to 64 of a-z, A-Z, 0-9, _ and -, not {self.name!r}: set name=.")
        wrong = [
            ("timeout_s", "more than 0", timeout_s > 0),
            ("on_interruption", "'finish' or 'cancel'", on_interruption in ("finish", "cancel")),
            ("remember_s", "more than 0, or None for the whole conversation", remember_s is None or remember_s > 0),
            ("say_after_ms", "0 or more", say_after_ms >= 0),
            ("max_result_chars", "more than 0", most > 0),
        ]
        for setting, allowed, fits in wrong:
            if not fits:
                raise SettingsError(f"Tool {self.name}: {setting} must be {allowed}.")

    def _parameters(self) -> dict[str, tuple[Any, bool]]:
        """Return the type of each parameter, and True if it is required."""
        try:
            signature = inspect.signature(self.function, eval_str=True)
        except NameError as error:
            raise SettingsError(
                f"Tool {self.name}: its annotations name {error.name}, which is not defined. Define or import it "
                "at the top of the module."
            ) from None
        except (TypeError, ValueError) as error:
            raise SettingsError(f"Tool {self.name}: the signature of {self.function!r} cannot be read.") from error
        bound = _bound(self.function)
        found: dict[str, tuple[Any, bool]] = {}
        for parameter in signature.parameters.values():
            if parameter.name in bound:
                continue
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise SettingsError(
                    f"Tool {self.name}: a model passes arguments by name, and {parameter} does not accept a name."
                )
            hint, default = parameter.annotation, parameter.default
            if hint is ToolContext:
                self._context = parameter.name
                continue
            if hint is parameter.empty:
                raise SettingsError(
                    f"Tool {self.name}: the parameter {parameter.name} needs a type, as in `{parameter.name}: str`."
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
                    f"Tool {self.name}: JSON cannot express the type of {name}, {_shown(hint)}. Use str, int, "
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
"""Argument of ``tools=``: a `Tool`, or a function that becomes one."""


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
    """Turn a function into a `Tool`: ``@tool`` or ``@tool(timeout_s=30)``. Code can still call it as a function."""
    if function is not None:
        return Tool(function)
    return functools.partial(Tool, **options)


def as_tools(tools: Any) -> dict[str, Tool]:
    """Return tools by name. Raises `SettingsError` for duplicate names."""
    found: dict[str, Tool] = {}
    for one in tools:
        if not isinstance(one, Tool) and not callable(one):
            raise SettingsError(f"tools= takes functions and Tools, not {one!r}.")
        made = one if isinstance(one, Tool) else Tool(one)
        if made.name in found:
            raise SettingsError(f"Two tools have the name {made.name}. Rename one of them: Tool(..., name=...).")
        found[made.name] = made
    return found


def _bound(function: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the arguments that a ``functools.partial`` sets."""
    return cast("functools.partial[Any]", function).keywords if isinstance(function, functools.partial) else {}


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return function.func if isinstance(function, functools.partial) else function


def _name(function: Callable[..., Any]) -> str:
    plain = _plain(function)
    return getattr(plain, "__name__", "") or type(plain).__name__


def _shown(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and get_origin(hint) is None else str(hint)


def _problems(error: ValidationError) -> str:
    """Describe validation errors for the model, at most eight."""
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
    """Remove the titles that pydantic derives from names in a JSON schema: they cost tokens.

    ``names``: the keys of this object are names of properties or definitions, not schema keywords.
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
