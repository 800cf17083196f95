"""Settings: refused when they cannot be, and told in the guide as they are."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

import pytest
from voxline.pipeline import SettingsError
from voxline.tests.places import ROOT
from voxline.transports.server import ServerSettings

GUIDE = ROOT / "docs" / "guide" / "serving.md"


@pytest.mark.parametrize(
    "settings",
    [
        {"port": -1},
        {"port": 70_000},
        {"port": "8000"},
        {"max_connections": 0},
        {"connections_per_address": 0},
        {"connections_per_address": "3"},
        {"twilio_auth_token": "short"},
        {"body_timeout_s": float("nan")},
        {"drain_s": float("inf")},
        {"token": "short"},
        {"secret": ""},
        {"origins": ("example.org",)},
        {"origins": ("https://example.org/",)},
    ],
)
def test_settings_that_cannot_be_are_refused_and_say_what_is_allowed(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as refused:
        ServerSettings(**settings)
    assert next(iter(settings)) in str(refused.value) or "origin" in str(refused.value)
    assert "short" not in str(refused.value), "a token has no place in an error"


def test_a_token_and_a_secret_are_not_printed() -> None:
    printed = repr(ServerSettings(token="hunter2" * 3, secret="swordfish" * 3, twilio_auth_token="tuna" * 8))
    assert "tuna" not in printed
    assert "hunter2" not in printed
    assert "swordfish" not in printed


def test_places_of_an_address_may_have_no_bound_of_their_own() -> None:
    assert ServerSettings(connections_per_address=None).connections_per_address is None


def test_the_guide_lists_every_limit_with_its_default() -> None:
    told = {
        name: float(value.replace(",", ""))
        for name, value in re.findall(r"^\| `(\w+)` \| ([\d,.]+) \|", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    }
    names = [field.name for field in fields(ServerSettings)]
    limits = {name: float(getattr(ServerSettings(), name)) for name in names[names.index("max_connections") :]}
    assert told == limits
