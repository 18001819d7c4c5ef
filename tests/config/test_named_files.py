"""Names in overrides and files stay names: nothing is read or written by a path that was smuggled in."""

import os
import time

import pytest

from dmseg.cli.main import main
from dmseg.config.compose import compose_settings
from dmseg.data.folds import Split
from dmseg.errors import UserError
from dmseg.files.names import check_id, check_name
from dmseg.files.regular import checksums, copy_regular, inside, read_regular
from dmseg.files.schema import SchemaError, number, parse_json, record
from dmseg.runs.identity import run_identity
from dmseg.runs.lease import is_held
from dmseg.runs.store import RunStore
from dmseg.training.evaluate import save_prediction


@pytest.mark.parametrize(
    "words",
    [
        ["profile=../x"],
        ["profile=/tmp/x"],
        ["model='../../x'"],
        ["data=phantom/../lidc"],
        ["loss=./ce"],
        ["distill=kd", "distill.teacher.model=../data/lidc"],
        ["distill=kd", "distill.teacher.loss=/etc/x"],
    ],
)
def test_files_of_a_group_are_chosen_by_name(words):
    with pytest.raises(UserError) as caught:
        compose_settings(["data=lidc", *words])
    assert "slash" in str(caught.value) or "does not exist" in str(caught.value) or "dot" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize("words", [["plan", "table=../config"], ["plan", "table=../table/2"], ["plan", "table=/etc/x"]])
def test_tables_are_named(words, capfd):
    assert main(words) == 2
    assert "there is no table" in capfd.readouterr().err


@pytest.mark.parametrize("value", ["../x", "", "0" * 15, "0" * 17, "A" * 16, "0" * 16 + "\n", 5, None])
def test_ids_are_sixteen_digits(tmp_path, value):
    with pytest.raises(UserError):
        check_id(value, "the id")
    with pytest.raises(UserError):
        RunStore(tmp_path).folder(value)


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "a\\b", ".x", "", "a\0", "\ud800", "x" * 201, 5])
def test_names_of_files(name, tmp_path):
    with pytest.raises(UserError):
        check_name(name, "it")
    with pytest.raises(UserError):
        save_prediction(tmp_path / "predictions", name, None)


def test_only_regular_files_are_read_copied_and_summed_and_nothing_waits(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret").write_text("secret")
    (folder / "file").write_text("content")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "zero").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe")
    (folder / "way").symlink_to(tmp_path)
    start = time.monotonic()
    assert list(checksums(folder)) == ["file"]
    for name in ("link", "zero", "pipe", "way"):
        with pytest.raises(OSError, match=r"link|regular"):
            read_regular(folder / name, 100)
        with pytest.raises(OSError, match=r"link|regular"):
            copy_regular(folder / name, tmp_path / "copy")
    with pytest.raises(OSError, match="link"):
        inside(folder, "way/secret")
    with pytest.raises(OSError, match="more than"):
        read_regular(folder / "file", 6)
    assert read_regular(folder / "file", 7) == b"content"
    assert time.monotonic() - start < 5


def test_weights_that_are_no_regular_file_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "zero.safetensors").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "zero"):
        settings = compose_settings(["task=prostate-1", f"model.weights='{tmp_path / name}.safetensors'"])
        with pytest.raises(UserError, match="not a regular file"):
            run_identity(settings, "fp32", "0" * 64, Split(("a",), ("b",)))


def test_a_folder_in_place_of_a_file_leaves_no_file_open(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(OSError, match="regular"):
            read_regular(tmp_path, 100)
        assert is_held(tmp_path)  # changed a moment ago, by nobody known
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("content", [b"[" * 100_000, b"[" * 60 + b"]" * 60, b"\xff", b"", b"1" * 5000])
def test_json_is_bounded(content):
    with pytest.raises(ValueError):  # noqa: PT011
        parse_json(content)


def test_a_message_names_the_place_and_the_value():
    case = record({"dice": number(0, 1)})
    with pytest.raises(SchemaError, match=r"^row 3: dice is 2, but must be a number from 0 to 1$"):
        case({"dice": 2}, "row 3")
    with pytest.raises(SchemaError, match="row 3 has no key 'dice'"):
        case({}, "row 3")
    for value in (float("nan"), float("inf"), True, "1", None, 10**400):
        with pytest.raises(SchemaError):
            case({"dice": value}, "row 3")
