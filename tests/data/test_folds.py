"""Folds: the released blocks, and that the file is obeyed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmseg.data.folds import contiguous_folds, load_folds, make_folds, shuffled_folds, split
from dmseg.errors import UserError
from dmseg.settings import FoldSettings

CONTIGUOUS = FoldSettings("contiguous", 5)


@pytest.mark.parametrize(
    ("n", "sizes"),
    # JDTLosses: brain-growth, brain-tumor, kidney, prostate (54 cases), LiTS, KiTS
    [
        (39, [7, 7, 7, 7, 11]),
        (32, [6, 6, 6, 6, 8]),
        (24, [4, 4, 4, 4, 8]),
        (54, [10, 10, 10, 10, 14]),
        (131, [26] * 4 + [27]),
        (210, [42] * 5),
    ],
)
def test_blocks_of_the_released_code(n, sizes):
    folds = contiguous_folds([f"case{number}" for number in range(n, 0, -1)], 5)
    assert [len(fold) for fold in folds] == sizes
    assert [case for fold in folds for case in fold] == [f"case{number}" for number in range(1, n + 1)]


@given(st.integers(5, 60), st.integers(0, 3))
def test_every_case_is_validated_exactly_once(n, seed):
    cases = [f"p{number:03d}" for number in range(n)]
    for folds in (contiguous_folds(cases, 5), shuffled_folds(cases, 5, seed)):
        assert sorted(case for fold in folds for case in fold) == cases
        for fold in range(5):
            chosen = split(folds, fold)
            assert set(chosen.train) | set(chosen.validation) == set(cases)
            assert not set(chosen.train) & set(chosen.validation)


def test_shuffled_depends_on_its_seed_alone():
    cases = [f"p{number:03d}" for number in range(30)]
    assert shuffled_folds(cases, 5, 1) == shuffled_folds(cases[::-1], 5, 1)
    assert shuffled_folds(cases, 5, 1) != shuffled_folds(cases, 5, 2)


def test_the_file_is_written_once_and_obeyed(tmp_path):
    cases = [f"p{number}" for number in range(10)]
    assert load_folds(tmp_path, cases, CONTIGUOUS) == contiguous_folds(cases, 5)
    path = tmp_path / "folds-contiguous-5.json"
    other = contiguous_folds(cases, 5)[::-1]
    path.write_text(json.dumps(other))
    assert load_folds(tmp_path, cases, CONTIGUOUS) == other


def test_a_file_that_does_not_fit_is_an_error(tmp_path):
    cases = [f"p{number}" for number in range(10)]
    load_folds(tmp_path, cases, CONTIGUOUS)
    with pytest.raises(UserError, match=r"folds-contiguous-5\.json does not split the cases of this store: p9"):
        load_folds(tmp_path, cases[:-1], CONTIGUOUS)
    path = tmp_path / "folds-contiguous-5.json"
    path.write_text(json.dumps([["p0", "p0"], *contiguous_folds(cases, 5)[1:]]))
    with pytest.raises(UserError, match="does not split"):
        load_folds(tmp_path, cases, CONTIGUOUS)
    path.write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        load_folds(tmp_path, cases, CONTIGUOUS)


def test_unknown_fold_and_too_few_cases():
    folds = contiguous_folds([f"p{number}" for number in range(10)], 5)
    for fold in (7, -1, 5):
        with pytest.raises(UserError, match=f"fold {fold} does not exist: there are folds 0 to 4"):
            split(folds, fold)
    with pytest.raises(UserError, match=r"folds\.count is 5, but must lie between 2 and the number of cases, 4"):
        make_folds(["a", "b", "c", "d"], CONTIGUOUS)
