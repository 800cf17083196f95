"""`voxline.processors` loads its parts when they are asked for; type checkers read a stub. Both say the same."""

import re
import subprocess
import sys

import voxline.processors as processors
from voxline.tests.places import ROOT

STUB = ROOT / "processors" / "__init__.pyi"


def test_the_stub_says_what_is_exported_and_from_where() -> None:
    told = re.findall(r"^from (\S+) import (\w+) as (\w+)$", STUB.read_text(encoding="utf-8"), re.MULTILINE)
    assert all(name == again for _, name, again in told)
    home: dict[str, str] = vars(processors)["_HOME"]
    assert {name: module for module, name, _ in told} == home


def test_every_name_is_there() -> None:
    names: list[str] = vars(processors)["__all__"]
    for name in names:
        assert getattr(processors, name) is not None
        assert not (STUB.parent / f"{name}.py").exists(), "a module of that name would take its place"


def test_a_part_is_loaded_when_it_is_asked_for_and_not_before() -> None:
    code = (
        "import sys, voxline.processors as p; before = {*sys.modules}; p.SpeechChunk; "
        "assert 'voxline.processors.session' not in before; assert 'pydantic' not in before; print('quick')"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "quick\n"
