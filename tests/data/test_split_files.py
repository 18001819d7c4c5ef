"""Files that users bring: every mistake is one line that names it."""

import json

import pytest

from dmseg.data.split_files import read_groups, read_splits
from dmseg.errors import UserError

CASES = [f"case_{number:03d}" for number in range(1, 11)]
FOLDS = [{"train": [case for case in CASES if case not in CASES[k::5]], "val": CASES[k::5]} for k in range(5)]


def changed(fold, name, ids):
    return [{**item, name: ids} if number == fold else item for number, item in enumerate(FOLDS)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (changed(1, "val", [*CASES[1::5], "case_001"]), "fold 1 has case_001 in both lists"),
        (
            [*FOLDS[:4], {"train": FOLDS[4]["train"][1:], "val": [*CASES[4::5], "case_001"]}],
            "validates on case_001 in folds 0 and 4",
        ),
        (changed(2, "train", [*FOLDS[2]["train"], "case_003"]), "fold 2 has case_003 in both lists"),
        (
            changed(2, "train", ["\x1b[31m" + 199 * "a"]),
            r"lists \\x1b\[31ma{95} \.\.\. a{15}, which the data set does not have",
        ),
        (
            changed(2, "train", [*FOLDS[2]["train"], "case_099"]),
            r"lists case_099, which the data set does not have.*'case_001'",
        ),
        (changed(2, "val", ["case_003"]), "does not validate on case_008"),
        (FOLDS[:2], "does not validate on case_003, case_004, case_005, case_008, case_009 and 1 more"),
        (changed(2, "val", []), "'val' of fold 2 is empty"),
        (changed(2, "train", []), "'train' of fold 2 is empty"),
        (changed(2, "val", ["case_003", "case_003", "case_008"]), "'val' of fold 2 lists case_003 twice"),
        (changed(2, "val", ["case_003.nii.gz", "case_008"]), "write 'case_003', not 'case_003.nii.gz'"),
        (changed(2, "val", ["a/case_003_0000.NII"]), "write 'case_003', not 'a/case_003_0000.NII'"),
        (changed(2, "val", "case_003"), "'val' of fold 2 is not a list of case ids"),
        (changed(2, "val", [3]), "'val' of fold 2 is not a list of case ids"),
        (changed(2, "val", [["case_003"]]), "'val' of fold 2 is not a list of case ids"),
        (changed(2, "test", ["case_003"]), "fold 2 must have the keys 'train' and 'val'"),
        ([{"training": [], "validation": []}], "fold 0 must have the keys 'train' and 'val'"),
        ([CASES], "fold 0 must have the keys"),
        ({"train": CASES, "val": CASES}, "does not contain a list of folds"),
        ([], "does not contain a list of folds"),
        (None, "does not contain a list of folds"),
    ],
)
def test_a_wrong_split_is_named(tmp_path, content, words):
    path = tmp_path / "splits.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=words) as caught:
        read_splits(str(path), CASES)
    assert str(caught.value).startswith(f"folds.file={path}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'[{"train": ', "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b'[{"train": ["a"], "train": ["b"], "val": ["c"]}]', "a key is repeated"),
        (b"\x80\x04\x95\xff", "not a text file"),
        (b"", "is not valid JSON"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path, content, words):
    path = tmp_path / "splits.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_splits(str(path), CASES)


@pytest.mark.parametrize("read", [read_splits, read_groups])
@pytest.mark.parametrize("name", ["missing.json", ".", "/dev/zero", "~nobody-here/file", "a\0b"])
def test_what_is_no_file_is_named(tmp_path, monkeypatch, read, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"is not a file|cannot be read"):
        read(name, CASES)


def test_training_lists_may_leave_cases_out_and_a_mark_at_the_begin_is_no_matter(tmp_path):
    path = tmp_path / "splits.json"
    path.write_text(json.dumps(changed(0, "train", ["case_009", "case_002"])), encoding="utf-8-sig")
    found = read_splits(str(path), CASES)
    assert found[0] == (["case_002", "case_009"], ["case_001", "case_006"])
    assert [validation for _, validation in found] == [CASES[k::5] for k in range(5)]


GROUPS = {case: f"site {index % 3}" for index, case in enumerate(CASES)}
TABLE = "case,group\n" + "".join(f"{case},{group}\n" for case, group in GROUPS.items())


@pytest.mark.parametrize(
    "text",
    [
        TABLE,
        TABLE.replace("\n", "\r\n"),
        "\ufeff" + TABLE,
        TABLE.replace("\n", "\nother_7,site 8\n", 1) + "case_099,site 9\n",
        "group, age ,case\n\n" + "".join(f" {group},7, {case} \n" for case, group in reversed(GROUPS.items())),
        TABLE.replace("case_003,site 2", '"case_003","site 2"'),
    ],
)
def test_groups_are_read(tmp_path, text):
    path = tmp_path / "groups.csv"
    path.write_bytes(text.encode())
    assert read_groups(str(path), CASES) == {f"site {k}": CASES[k::3] for k in range(3)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TABLE.replace("case_003,site 2\n", ""), "has no row for case_003; every case needs a group"),
        ("case,group\ncase_099,site 1\n", "lists case_099, which the data set does not have"),
        (TABLE + "case_001,site 1\n", "lists case_001 twice"),
        (TABLE.replace("case_003,", "case_003.nii.gz,"), "write 'case_003', not 'case_003.nii.gz'"),
        (TABLE.replace("case_003,site 2", "case_003,"), "has the row 'case_003,'"),
        (TABLE.replace("case_003,site 2", "case_003"), "has the row 'case_003'"),
        (TABLE.replace("case_003,site 2", "case_003,a,b"), "has the row 'case_003,a,b'"),
        (TABLE.replace(",", ";"), "the first line must be 'case,group', but is 'case;group'"),
        (TABLE.partition("\n")[2], "the first line must be 'case,group', but is 'case_001,site 0'"),
        ("", "the first line must be 'case,group'"),
        (TABLE.replace("case_010,", '"case_010,'), "is not valid CSV"),
    ],
)
def test_wrong_groups_are_named(tmp_path, text, words):
    path = tmp_path / "groups.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        read_groups(str(path), CASES)
    assert str(caught.value).startswith(f"folds.groups={path}")
    assert "\n" not in str(caught.value)
