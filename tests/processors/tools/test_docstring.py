"""Docstrings in the three styles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxline.processors.tools.docstring import read_docstring

GOOGLE = """Tells the weather
    of a city.

    Asks the station: that takes long.

    Args:
        city (str): The city's name,
            without its country.
        unit: Celsius, if not given.
        **more: Anything.

    Returns:
        What a person would say.
"""
NUMPY = """Tells the weather of a city.

    Asks the station: that takes long.

    Parameters
    ----------
    city : str
        The city's name,
        without its country.
    unit, more : str, optional
        Celsius, if not given.

    Returns
    -------
    str
        What a person would say.
"""
SPHINX = """Tells the weather of a city.

    Asks the station: that takes long.

    :param str city: The city's name,
        without its country.
    :param unit: Celsius, if not given.
    :type unit: str
    :returns: What a person would say.
    :raises ValueError: for no city.
"""
ABOUT = "Tells the weather of a city.\n\nAsks the station: that takes long."


@pytest.mark.parametrize("text", [GOOGLE, NUMPY, SPHINX])
def test_each_style_describes_the_function_and_its_parameters(text: str):
    about, parameters = read_docstring(text)
    assert about == ABOUT
    assert parameters["city"] == "The city's name, without its country."
    assert parameters["unit"] == "Celsius, if not given."
    assert set(parameters) <= {"city", "unit", "more"}


def test_a_plain_text_is_all_about_the_function():
    assert read_docstring("One line.") == ("One line.", {})
    assert read_docstring("Note: this is a sentence.\nSo is this.") == ("Note: this is a sentence. So is this.", {})
    assert read_docstring(None) == ("", {})


def test_sections_that_are_no_parameters_are_left_out():
    assert read_docstring("Does it.\n\nRaises:\n    ValueError: never.\n\nExample:\n    >>> 1\n") == ("Does it.", {})


@given(st.text(alphabet=st.sampled_from("ab :-\n\t*()Args.Parameters"), max_size=200))
def test_any_text_can_be_read(text: str):
    about, parameters = read_docstring(text)
    assert about == about.strip()
    assert all(parameters.values())
