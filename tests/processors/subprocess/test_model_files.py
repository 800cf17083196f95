"""Files of models: what is told of wrong ones, and what is read of right ones."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxline.processors.subprocess.child import Refused
from voxline.processors.subprocess.model_files import (
    first_line,
    read_head,
    read_json,
    require_binary,
    require_file,
    require_folder,
)
from voxline.tests.processors.subprocess.onnx_file import field, mean_model, model, node, tensor_info

names = st.text("abcxyz_0", min_size=1, max_size=12)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models") / "model.onnx"


@given(st.lists(names, unique=True), st.lists(names, unique=True, min_size=1), st.dictionaries(names, names))
def test_the_head_has_what_was_written(file: Path, inputs: list[str], outputs: list[str], notes: dict[str, str]):
    made = model(
        [node("Identity", [one], f"_{one}") for one in inputs],
        [tensor_info(one, [1, "n"]) for one in inputs],
        [tensor_info(one, ["n"]) for one in outputs],
    )
    made += b"".join(field(14, field(1, key) + field(2, value)) for key, value in notes.items())
    file.write_bytes(made)
    head = read_head(file, "a model")
    assert (head.inputs, head.outputs, head.metadata) == (tuple(inputs), tuple(outputs), notes)


@given(st.integers(1, len(mean_model()) - 1))
def test_a_head_that_is_cut_off_anywhere_is_refused(file: Path, length: int):
    file.write_bytes(mean_model()[:length])
    # The last field is the version of the operators, which is not read.
    whole = length >= len(mean_model()) - len(field(8, field(1, "") + field(2, 13)))
    if whole and length == len(mean_model()) - len(field(8, field(1, "") + field(2, 13))):
        assert read_head(file, "a model").outputs == ("logits",)
        return
    with pytest.raises(Refused, match="should be a model"):
        read_head(file, "a model")


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_or_read_and_never_a_surprise(file: Path, content: bytes):
    file.write_bytes(content)
    with suppress(Refused):
        assert read_head(file, "a model").outputs


def test_a_length_beyond_all_bounds_is_refused(file: Path):
    file.write_bytes(b"\x3a" + b"\xff" * 9 + b"\x7f" + b"graph")
    with pytest.raises(Refused, match="truncated"):
        read_head(file, "a model")


def test_what_a_file_is_instead_is_told(tmp_path: Path):
    path = tmp_path / "a.bin"
    with pytest.raises(Refused, match=r"there is no file .*a\.bin; it should be a voice. Nothing is downloaded"):
        require_file(path, "a voice")
    with pytest.raises(Refused, match="is a folder; it should be a voice"):
        require_file(tmp_path, "a voice")
    path.write_bytes(b"")
    with pytest.raises(Refused, match="is empty; it should be a voice"):
        require_file(path, "a voice")
    path.write_text("hello")
    require_file(path, "a voice")
    with pytest.raises(Refused, match="is a text file; it should be a voice"):
        require_binary(path, "a voice")
    with pytest.raises(Refused, match="is a file; it should be a folder with a voice"):
        require_folder(path, "a voice")


@pytest.mark.parametrize("content", [b"[]", b"{", b"\xff\xfe", b"7"])
def test_settings_that_are_no_object_are_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(Refused, match="is not a JSON object; it should be settings"):
        read_json(path, "settings")


def test_of_what_a_library_says_one_line_is_told_without_the_path(tmp_path: Path):
    error = ValueError(f"Load of {tmp_path} failed.\nAnd a trace")
    assert first_line(error, tmp_path) == "Load of it failed"
    assert first_line(ValueError()) == "ValueError"
