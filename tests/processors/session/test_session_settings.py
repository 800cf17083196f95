"""Settings: errors that name the field and what is allowed; from TOML, YAML and the environment, in that order."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from voxline.pipeline import MissingExtraError, SettingsError
from voxline.processors import SessionController, SessionSettings
from voxline.processors.session import IdleStep, InterruptionSettings
from voxline.processors.session.settings import BACKCHANNELS, KEYWORDS

TOML = """
greeting = "Hello."
idle_timeout_s = 20
farewells = ["good bye", "so long"]
mute = ["tools"]

[goodbyes]
idle = "Are you gone?"

[interruption]
min_words = 2
allow = false

[[idle_ladder]]
after_s = 5
say = "Hello?"
"""
YAML = """
greeting: Hello.
idle_timeout_s: 20
farewells: [good bye, so long]
mute: [tools]
goodbyes:
  idle: Are you gone?
interruption:
  min_words: 2
  allow: false
idle_ladder:
  - after_s: 5
    say: Hello?
"""
BOTH = SessionSettings(
    greeting="Hello.",
    idle_timeout_s=20,
    farewells=("good bye", "so long"),
    mute=("tools",),
    goodbyes={"idle": "Are you gone?"},
    interruption={"min_words": 2, "allow": False},
    idle_ladder=[{"after_s": 5, "say": "Hello?"}],
)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process's own variables stay out."""
    for name in list(os.environ):
        if name.startswith("VOXLINE_SESSION_"):
            monkeypatch.delenv(name)


# --- values and errors -----------------------------------------------------------------------------------------------


def test_the_defaults_are_the_published_ones():
    settings = SessionSettings()
    assert settings.idle_timeout_s == 300
    assert settings.max_duration_s == 3_600
    assert settings.max_messages == 100
    assert (settings.response_timeout_s, settings.connection_timeout_s, settings.keep_alive_s) == (30, 10, 30)
    assert settings.interruption.min_speech_ms == 500
    assert settings.interruption.false_timeout_ms == 2_000
    assert (settings.endpointing.min_delay_ms, settings.endpointing.max_delay_ms) == (500, 3_000)
    assert not settings.preemptive.enabled
    assert "yeah" in BACKCHANNELS
    assert "stop" in KEYWORDS


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"history_turns": 0}, r"SessionSettings: history_turns is 0, and should be greater than or equal to 1\."),
        ({"idle_timeout_s": -1}, r"SessionSettings: idle_timeout_s is -1, and should be greater than 0\."),
        ({"idle_timeout_s": float("inf")}, r"SessionSettings: idle_timeout_s is inf, and should be a finite number\."),
        ({"interruption": {"min_words": -1}}, r"SessionSettings: interruption\.min_words is -1, and should be gr"),
        ({"idle_ladder": [{"after_s": 5}]}, r"SessionSettings: idle_ladder\.0\.say"),
        ({"mute": ["sometimes"]}, r"mute\.0 is 'sometimes', and should be 'first_speech', 'tools' or 'speaking'\."),
        (
            {"endpointing": {"strategy": "guess"}},
            r"endpointing\.strategy is 'guess', and should be 'vad', 'transcript', 'model', 'dynamic', 'push_to_talk' ",
        ),
        (
            {"idle_timeout": 20},
            r"SessionSettings: unknown setting idle_timeout \(.* are .*idle_timeout_s",
        ),
        (
            {"interruption": {"words": 2}},
            r"unknown setting interruption\.words.*; the settings are allow, backchannels, .*min_words",
        ),
        ({"endpointing": {"delay_ms": 2}}, r"setting endpointing\.delay_ms.*; the settings are .*min_delay_ms"),
        ({"idle_ladder": [{"after_s": 5, "says": "x", "say": "x"}]}, r"the settings are after_s, say\."),
    ],
)
def test_an_error_names_the_field_and_what_is_allowed(fields: dict[str, Any], message: str):
    with pytest.raises(SettingsError, match=message):
        SessionSettings(**fields)
    with pytest.raises(SettingsError, match=message):
        SessionController(**fields)
    with pytest.raises(SettingsError, match=message):
        SessionController().session.update(**fields)


def test_two_mistakes_are_both_named():
    with pytest.raises(SettingsError) as caught:
        SessionSettings(max_messages=0, closing_timeout_s="soon")
    assert "SessionSettings: max_messages is 0" in str(caught.value)
    assert "; closing_timeout_s is 'soon'" in str(caught.value)


def test_settings_do_not_change_under_anybody():
    settings = SessionSettings()
    with pytest.raises(ValueError, match="frozen"):
        settings.greeting = "Hi."


def test_none_switches_a_limit_off():
    settings = SessionSettings(
        idle_timeout_s=None, max_duration_s=None, max_messages=None, response_timeout_s=None, keep_alive_s=None
    )
    assert settings.idle_timeout_s is settings.max_messages is None


def test_a_part_of_a_section_can_be_changed():
    settings = SessionSettings(interruption={"min_words": 2}).changed(
        interruption={"grace_ms": 0}, greeting="Hi.", goodbyes={"idle": "Bye."}
    )
    assert (settings.interruption.min_words, settings.interruption.grace_ms, settings.greeting) == (2, 0, "Hi.")
    assert settings.changed(goodbyes={"done": "So long."}).goodbyes == {"idle": "Bye.", "done": "So long."}


def test_sections_may_be_given_as_models():
    settings = SessionSettings(
        interruption=InterruptionSettings(min_words=3), idle_ladder=(IdleStep(after_s=5, say="Hello?"),)
    )
    assert settings.interruption.min_words == 3
    assert settings.changed(interruption=InterruptionSettings(min_words=4)).interruption.min_words == 4


def test_settings_survive_json():
    assert SessionSettings.model_validate_json(BOTH.model_dump_json()) == BOTH


def test_a_controller_takes_settings_and_fields_over_them():
    controller = SessionController(BOTH, greeting="Hi.", interruption={"min_words": 5})
    settings = controller.session.settings
    assert settings.greeting == "Hi."
    assert (settings.interruption.min_words, settings.interruption.allow) == (5, False)
    assert settings.mute == ("tools",)
    assert SessionController(BOTH, mute=["speaking"]).session.settings.mute == ("speaking",)
    assert SessionController(endpointing={"min_delay_ms": 7}).session.settings.endpointing.min_delay_ms == 7


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "text"), [("s.toml", TOML), ("s.yaml", YAML), ("s.yml", YAML), ("S.TOML", TOML)])
def test_a_file_says_the_same_in_either_language(tmp_path: Path, name: str, text: str):
    path = tmp_path / name
    path.write_text(text)
    assert SessionSettings.load(path) == BOTH
    assert SessionSettings.load(str(path)) == BOTH


def test_an_empty_file_changes_nothing(tmp_path: Path):
    for name in ("a.toml", "a.yaml"):
        (tmp_path / name).write_text("# nothing\n")
        assert SessionSettings.load(tmp_path / name) == SessionSettings()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "greeting = ", "is not valid TOML"),
        ("a.yaml", "greeting: [", "is not valid YAML"),
        ("a.yaml", "- 1\n- 2\n", "must contain names with values, not a list"),
        ("a.json", "{}", r"settings are read from \.toml, \.yaml or \.yml files, not from '\.json'"),
        ("a", "", "settings are read from"),
        ("a.toml", "idle_timeout_s = 0", r"SessionSettings: idle_timeout_s is 0"),
        ("a.yaml", "interruption: {min_words: many}", r"SessionSettings: interruption\.min_words is 'many'"),
    ],
)
def test_a_file_that_cannot_be_says_why(tmp_path: Path, name: str, text: str, message: str):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(SettingsError, match=message):
        SessionSettings.load(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"nowhere\.toml cannot be read"):
        SessionSettings.load(tmp_path / "nowhere.toml")


def test_yaml_without_its_package_names_the_extra_and_toml_needs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "a.yaml").write_text(YAML)
    (tmp_path / "a.toml").write_text(TOML)
    with pytest.raises(MissingExtraError, match=r"\[yaml\]"):
        SessionSettings.load(tmp_path / "a.yaml")
    assert SessionSettings.load(tmp_path / "a.toml") == BOTH


def test_yaml_runs_nothing(tmp_path: Path):
    path = tmp_path / "a.yaml"
    path.write_text("greeting: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(SettingsError, match="is not valid YAML"):
        SessionSettings.load(path)


# --- the environment -------------------------------------------------------------------------------------------------


def test_variables_say_everything_that_a_file_can():
    settings = SessionSettings.load(
        environment={
            "VOXLINE_SESSION_GREETING": "Hello.",
            "VOXLINE_SESSION_IDLE_TIMEOUT_S": "20",
            "VOXLINE_SESSION_FAREWELLS": '["good bye", "so long"]',
            "VOXLINE_SESSION_MUTE": '["tools"]',
            "VOXLINE_SESSION_GOODBYES": '{"idle": "Are you gone?"}',
            "VOXLINE_SESSION_INTERRUPTION__MIN_WORDS": "2",
            "VOXLINE_SESSION_INTERRUPTION__ALLOW": "false",
            "VOXLINE_SESSION_IDLE_LADDER": '[{"after_s": 5, "say": "Hello?"}]',
            "VOXLINE_OTHER": "?",
            "PATH": "?",
        }
    )
    assert settings == BOTH


def test_null_switches_a_limit_off_and_other_text_stays_text():
    settings = SessionSettings.load(
        environment={
            "VOXLINE_SESSION_IDLE_TIMEOUT_S": "null",
            "VOXLINE_SESSION_GREETING": "[Hello",
            "VOXLINE_SESSION_INSTRUCTIONS": "42",
        }
    )
    assert (settings.idle_timeout_s, settings.greeting, settings.instructions) == (None, "[Hello", "42")


def test_the_environment_goes_over_the_file_and_the_file_over_the_defaults(tmp_path: Path):
    path = tmp_path / "a.toml"
    path.write_text(TOML)
    settings = SessionSettings.load(
        path, {"VOXLINE_SESSION_GREETING": "Hi.", "VOXLINE_SESSION_INTERRUPTION__MIN_WORDS": "7"}
    )
    assert settings.greeting == "Hi."
    assert (settings.interruption.min_words, settings.interruption.allow) == (7, False)
    assert settings.idle_timeout_s == 20
    assert settings.max_messages == 100


def test_the_process_s_own_environment_is_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VOXLINE_SESSION_MAX_MESSAGES", "7")
    assert SessionSettings.load().max_messages == 7
    assert SessionSettings().max_messages == 100, "who does not load does not read it"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"VOXLINE_SESSION_MAX_MESSAGES": "many"}, r"SessionSettings: max_messages is 'many'"),
        ({"VOXLINE_SESSION_IDLE": "1"}, r"SessionSettings: unknown setting idle.*; the settings are"),
        (
            {"VOXLINE_SESSION_INTERRUPTION__WORDS": "1"},
            r"setting interruption\.words.*; the settings are allow",
        ),
        (
            {"VOXLINE_SESSION_GREETING": "a", "VOXLINE_SESSION_GREETING__X": "1"},
            "GREETING__X sets a part of greeting, but",
        ),
    ],
)
def test_a_variable_that_cannot_be_is_named(environment: dict[str, str], message: str):
    with pytest.raises(SettingsError, match=message):
        SessionSettings.load(environment=environment)


def test_a_section_as_json_and_a_field_of_it_go_together():
    settings = SessionSettings.load(
        environment={
            "VOXLINE_SESSION_INTERRUPTION": '{"min_words": 3, "grace_ms": 0}',
            "VOXLINE_SESSION_INTERRUPTION__MIN_WORDS": "5",
        }
    )
    assert (settings.interruption.min_words, settings.interruption.grace_ms) == (5, 0)


def test_a_strategy_can_be_named_for_its_section():
    assert SessionSettings(endpointing="dynamic").endpointing.strategy == "dynamic"
    assert SessionController(endpointing="dynamic").session.settings.endpointing.strategy == "dynamic"


def test_who_mistypes_a_field_is_told_which_was_meant():
    with pytest.raises(
        SettingsError, match=r"unknown setting greting \(did you mean greeting\?\); the settings are answer_unclear, "
    ):
        SessionSettings(greting="Hello.")


def test_one_text_is_a_list_of_one():
    assert SessionSettings(farewells="good bye").farewells == ("good bye",)
    assert SessionSettings(interruption={"keywords": "halt"}).interruption.keywords == ("halt",)


def test_none_can_be_written_where_it_is_allowed(tmp_path: Path):
    (tmp_path / "session.toml").write_text('idle_timeout_s = "none"\ngreeting = "none"\n')
    settings = SessionSettings.load(tmp_path / "session.toml", {})
    assert (settings.idle_timeout_s, settings.greeting) == (None, "none")


def test_delays_that_contradict_each_other_are_told():
    with pytest.raises(SettingsError, match="max_delay_ms is 3000, and should be at least min_delay_ms, which is 5000"):
        SessionSettings(endpointing={"strategy": "model", "min_delay_ms": 5_000})
