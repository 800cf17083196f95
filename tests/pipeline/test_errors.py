"""The command that installs an extra, in a checkout and for each way in which the package may be installed."""

from __future__ import annotations

import json
import shlex
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from voxline.pipeline.errors import MissingExtraError, install_command
from voxline.tests.places import ROOT

PIP = [sys.executable, "-m", "pip", "install"]


class Installed:
    """Metadata of an installed package."""

    requires = ("numpy>=1.26", 'pocketsphinx>=5; extra == "speech"', 'aiortc>=1.9; extra == "webrtc"')

    def __init__(self, origin: object) -> None:
        self.origin = origin

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self.origin is None else json.dumps(self.origin)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The package stands in a folder without a `pyproject.toml`, as an installed one does."""
    monkeypatch.setattr("voxline.pipeline.errors.ROOT", tmp_path)
    return tmp_path


def installed(monkeypatch: pytest.MonkeyPatch, origin: object) -> None:
    monkeypatch.setattr("importlib.metadata.distribution", lambda name: Installed(origin))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]


def test_a_checkout_is_installed_again_with_the_extra() -> None:
    assert shlex.split(install_command("speech")) == [*PIP, "-e", f"{ROOT}[speech]"]
    assert str(MissingExtraError("PocketSphinx", "pocketsphinx", "speech")) == (
        "PocketSphinx needs the package pocketsphinx, which is not installed. "
        f"Install it with: {install_command('speech')}"
    )


def test_a_wheel_is_installed_again_from_its_file(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = site / "a folder" / "voxline-0.1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.touch()
    installed(monkeypatch, {"url": wheel.as_uri(), "archive_info": {}})
    assert shlex.split(install_command("speech")) == [*PIP, f"{wheel}[speech]"]


@pytest.mark.parametrize("url", ["file:///gone/voxline-0.1.0-py3-none-any.whl", "https://example.invalid/voxline.whl"])
def test_without_the_file_the_packages_of_the_extra_are_named(
    site: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    installed(monkeypatch, {"url": url, "archive_info": {}})
    assert shlex.split(install_command("speech")) == [*PIP, "pocketsphinx>=5"]


def test_from_an_index_the_extra_is_named(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, None)
    assert shlex.split(install_command("speech")) == [*PIP, "voxline[speech]"]


def test_a_package_without_metadata(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.distribution", missing)
    assert shlex.split(install_command("speech")) == [*PIP, "voxline[speech]"]
