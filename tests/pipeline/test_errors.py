"""The command that installs an extra: in a checkout, and where the package is installed."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
from voxline.pipeline.errors import MissingExtraError, install_command
from voxline.tests.places import ROOT

PIP = [sys.executable, "-m", "pip", "install"]


def test_a_checkout_is_installed_again_with_the_extra() -> None:
    assert shlex.split(install_command("speech")) == [*PIP, "-e", f"{ROOT}[speech]"]
    assert str(MissingExtraError("PocketSphinx", "pocketsphinx", "speech")) == (
        "PocketSphinx needs the package pocketsphinx, which is not installed. "
        f"Install it with: {install_command('speech')}"
    )


def test_an_installed_package_gets_the_packages_of_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No `pyproject.toml` stands beside an installed package."""
    monkeypatch.setattr("voxline.pipeline.errors.ROOT", tmp_path)
    assert shlex.split(install_command("speech")) == [*PIP, "voxline[speech]"]
