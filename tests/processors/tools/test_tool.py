"""Functions as tools: their description for the model, and the arguments that models send."""

from __future__ import annotations

import enum
import functools
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any, Literal, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from voxline.pipeline.clock import VirtualClock
from voxline.pipeline.errors import SettingsError
from voxline.processors.tools import Tool, ToolContext, ToolError, tool
from voxline.processors.tools.tool import as_tools


class Unit(enum.Enum):
    CELSIUS = "celsius"
    FAHRENHEIT = "fahrenheit"


class Place(BaseModel):
    """Somewhere."""

    city: str
    title: str = ""
    country: str | None = None


@dataclass
class Stay:
    day: date
    guests: list[str] = field(default_factory=list[str])


def parameters(function: Callable[..., Any]) -> dict[str, Any]:
    return json.loads(Tool(function).spec.parameters)


def context() -> ToolContext:
    return ToolContext("c1", "a_tool", VirtualClock(), lambda text: None)


def test_a_function_is_told_by_its_name_docstring_and_signature():
    def get_weather(city: str, unit: Literal["c", "f"] = "c", days: Annotated[int, Field(ge=1, le=7)] = 1) -> str:
        """Tells the weather of a city.

        Args:
            city: The city's name.
            days: So many days.
        """
        return city + unit + str(days)

    spec = Tool(get_weather).spec
    assert (spec.name, spec.description) == ("get_weather", "Tells the weather of a city.")
    assert json.loads(spec.parameters) == {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "city": {"type": "string", "description": "The city's name."},
            "unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
            "days": {"type": "integer", "minimum": 1, "maximum": 7, "default": 1, "description": "So many days."},
        },
        "required": ["city"],
    }


def test_a_field_overrides_the_docstring():
    def look(what: Annotated[str, Field(description="from the field")], where: str = Field("here", description="too")):
        """Looks.

        :param what: from the docstring
        """
        return f"{what} {where}"

    told = parameters(look)["properties"]
    assert told["what"]["description"] == "from the field"
    assert told["where"] == {"type": "string", "description": "too", "default": "here"}
    made = Tool(look)
    assert made.call(made.arguments('{"what": "it"}'), context()) == "it here"


def test_models_dataclasses_enums_lists_and_options():
    def book(place: Place, stay: Stay, unit: Unit = Unit.CELSIUS, notes: list[str] | None = None) -> Any:
        return place, stay, unit, notes

    made = Tool(book)
    schema = json.loads(made.spec.parameters)
    assert schema["required"] == ["place", "stay"]
    # A property that is called "title" is none of the titles that are left out.
    assert set(schema["$defs"]["Place"]["properties"]) == {"city", "title", "country"}
    assert "title" not in schema["$defs"]["Place"]
    assert schema["properties"]["unit"]["default"] == "celsius"
    given_ = made.arguments(
        '{"place": {"city": "Rome"}, "stay": {"day": "2026-11-21", "guests": ["a"]}, "unit": "fahrenheit"}'
    )
    assert made.call(given_, context()) == (Place(city="Rome"), Stay(date(2026, 11, 21), ["a"]), Unit.FAHRENHEIT, None)


def test_names_that_pydantic_uses_itself_are_names_like_others():
    def odd(json: str, schema: int, copy: bool = True, _private: str = "", model_config: str = "") -> Any:
        return json, schema, copy, _private, model_config

    made = Tool(odd)
    assert made.call(made.arguments('{"json": "a", "schema": 1, "_private": "p"}'), context()) == (
        "a",
        1,
        True,
        "p",
        "",
    )


def test_the_context_is_not_in_the_schema():
    def look(context: ToolContext, what: str) -> str:
        return f"{context.call_id}: {what}"

    made = Tool(look)
    assert list(json.loads(made.spec.parameters)["properties"]) == ["what"]
    assert made.call(made.arguments('{"what": "it"}'), context()) == "c1: it"


def test_a_tool_without_parameters_takes_whatever_models_write_for_none():
    made = Tool(lambda: "now", name="now")
    for nothing in ("", "{}", "null", '"{}"', "  "):
        assert made.arguments(nothing) == {}


def test_methods_partials_and_objects_are_functions_too():
    class Shop:
        def __init__(self, name: str) -> None:
            self.name = name

        def sells(self, what: str, count: int = 1) -> str:
            """Asks whether it sells something."""
            return f"{self.name} {what} {count}"

        async def __call__(self, what: str) -> str:
            return what

    shop = Shop("Corner")
    method = Tool(shop.sells)
    assert (method.spec.name, method.spec.description) == ("sells", "Asks whether it sells something.")
    assert method.call(method.arguments('{"what": "tea"}'), context()) == "Corner tea 1"
    partial = Tool(functools.partial(shop.sells, count=3))
    assert partial.name == "sells"
    assert list(json.loads(partial.spec.parameters)["properties"]) == ["what"]
    assert partial.call(partial.arguments('{"what": "tea"}'), context()) == "Corner tea 3"
    called = Tool(shop, name="shop")
    assert called.is_async
    assert not method.is_async


def test_a_tool_can_be_called_as_the_function_that_it_is():
    @tool
    def double(number: int) -> int:
        """Doubles."""
        return number * 2

    assert isinstance(double, Tool)
    assert double(4) == 8
    assert repr(double) == "<Tool double>"


# --- what cannot be told ----------------------------------------------------------------------------------------------


def many(*what: str) -> str:
    return str(what)


def positional(what: str, /) -> str:
    return what


def a_socket(where: socket.socket) -> str:
    return str(where)


def a_function(what: Callable[[], str]) -> str:
    return what()


def unknown(what: str) -> str:
    return what


unknown.__annotations__["what"] = "Missing"


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (many, r"\*what"),
        (positional, "by name"),
        (a_socket, "cannot express the type of where, socket"),
        (a_function, "the type of what, "),
        (unknown, "name Missing, which is not defined"),
        (lambda: "x", "set name="),
    ],
)
def test_a_function_that_cannot_be_described_is_an_error_at_once(function: Callable[..., Any], says: str):
    with pytest.raises(SettingsError, match=says):
        Tool(function)


def test_a_parameter_without_a_type_is_an_error():
    def look(what: str) -> str:
        return what

    del look.__annotations__["what"]
    with pytest.raises(SettingsError, match="the parameter what needs a type, as in `what: str`"):
        Tool(look)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout_s": 0},
        {"on_interruption": "ignore"},
        {"remember_s": 0},
        {"say_after_ms": -1},
        {"max_result_chars": 0},
        {"name": "not a name"},
        {"name": "x" * 65},
    ],
)
def test_invalid_options(options: dict[str, Any]):
    with pytest.raises(SettingsError, match=r"must be|tool name"):
        cast(Any, Tool)(lambda: "x", **{"name": "x", **options})


def test_duplicate_names_and_objects_that_are_not_tools():
    with pytest.raises(SettingsError, match="Two tools have the name many_"):
        as_tools([Tool(lambda: 1, name="many_"), Tool(lambda: 2, name="many_")])
    with pytest.raises(SettingsError, match="takes functions and Tools, not 'weather'"):
        as_tools(["weather"])


# --- arguments --------------------------------------------------------------------------------------------------------


@tool
def order(what: str, count: Annotated[int, Field(gt=0)] = 1, unit: Unit = Unit.CELSIUS) -> str:
    """Orders."""
    return f"{what} {count} {unit}"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ('{"what": "tea", "count": "many"}', "count: .*not 'many'"),
        ('{"what": "tea", "count": 0}', "count: .*greater than 0, not 0"),
        ("{}", "what: Field required"),
        ('{"what": "tea", "milk": true}', "milk: there is no such argument"),
        ('{"what": "tea", "unit": "kelvin"}', "unit: .*'celsius' or 'fahrenheit', not 'kelvin'"),
        ('{"what": ', "not a JSON object"),
        ("[1]", "not a JSON object"),
        ("tea", "not a JSON object"),
        ('{"what": "' + "x" * 500, "not a JSON object"),
    ],
)
def test_invalid_arguments_are_explained_to_the_model(arguments: str, says: str):
    with pytest.raises(ToolError, match=says) as told:
        order.arguments(arguments)
    assert len(str(told.value)) < 1_000


def test_an_object_within_a_text_is_one():
    assert order.arguments('"{\\"what\\": \\"tea\\"}"') == {"what": "tea"}


@given(st.text(max_size=40) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_any_arguments_are_parsed_or_refused(text: str):
    try:
        order.arguments(text)
    except ToolError:
        return


# --- keys, words, results ---------------------------------------------------------------------------------------------


def test_calls_are_the_same_by_their_values_and_not_by_how_they_are_written():
    made = Tool(order.function, name="order", key=True)
    keys = [
        made.key_of(made.arguments(text))
        for text in ('{"what":"tea"}', '{"count": 1, "what": "tea"}', '{"what": "tea", "unit": "celsius"}')
    ]
    assert len(set(keys)) == 1
    assert made.key_of(made.arguments('{"what": "tea", "count": 2}')) not in keys
    assert Tool(order.function, name="other", key=True).key_of({"what": "tea"}) not in keys
    assert order.key_of({"what": "tea"}) is None
    by = Tool(order.function, name="order", key=lambda given: given["what"])
    assert by.key_of({"what": "tea", "count": 1}) == by.key_of({"what": "tea", "count": 2})


def test_results_are_texts_or_json_and_bounded():
    made = Tool(order.function, max_result_chars=20)
    assert made.text_of("as it is") == "as it is"
    assert made.text_of(None) == "null"
    assert made.text_of({"a": [1, 2.5, Unit.CELSIUS]}) == '{"a":[1,2.5,"celsius'[:20] + " [cut: 20 of 23 characters]"
    assert Tool(order.function).text_of([Place(city="Rome"), Stay(date(2026, 1, 1))]) == (
        '[{"city":"Rome","title":"","country":null},{"day":"2026-01-01","guests":[]}]'
    )
    assert made.text_of("x" * 30) == "x" * 20 + " [cut: 20 of 30 characters]"
    with pytest.raises(ToolError, match="cannot be converted"):
        made.text_of(object())
