"""Folds: the released blocks, and that the file is obeyed."""

import errno
import json
import os
import threading

import pytest
from conftest import ODDITIES, put_oddity
from hypothesis import given
from hypothesis import strategies as st

from dmseg.config.settings import FoldSettings
from dmseg.data.folds import (
    Split,
    contiguous_folds,
    find_split,
    fold_count,
    load_folds,
    load_splits,
    make_folds,
    make_splits,
    shuffled_folds,
)
from dmseg.data.split_files import seal_of
from dmseg.errors import UserError

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
    for kind in ("contiguous", "shuffled"):
        splits = make_splits(cases, FoldSettings(kind, 5, seed))
        assert sorted(case for fold in splits for case in fold.validation) == cases
        assert len(splits) == 5
        for fold in range(5):
            chosen = find_split(splits, fold)
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
    with pytest.raises(UserError, match=r"has been edited or damaged.*\n.*delete folds-contiguous-5\.json\.sha256 to"):
        load_folds(tmp_path, cases, CONTIGUOUS)
    seal_of(path).unlink()
    assert load_folds(tmp_path, cases, CONTIGUOUS, write=False) == other
    assert not seal_of(path).exists()
    assert load_folds(tmp_path, cases, CONTIGUOUS) == other
    path.unlink()  # and its seal stays
    assert load_folds(tmp_path, cases, CONTIGUOUS) == other[::-1]
    assert load_folds(tmp_path, cases, CONTIGUOUS) == other[::-1]


def test_every_changed_byte_of_a_split_is_noticed(tmp_path):
    cases = [f"p{number}" for number in range(10)]
    load_folds(tmp_path, cases, CONTIGUOUS)
    path = tmp_path / "folds-contiguous-5.json"
    for file in (path, seal_of(path)):
        whole = file.read_bytes()
        for position in range(len(whole)):
            file.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << position % 8]) + whole[position + 1 :])
            with pytest.raises(UserError, match=r"damaged|does not split"):
                load_folds(tmp_path, cases, CONTIGUOUS)
        file.write_bytes(whole)
    assert load_folds(tmp_path, cases, CONTIGUOUS) == contiguous_folds(cases, 5)


@pytest.mark.parametrize("kind", ODDITIES)
def test_what_is_no_split_file_is_refused_at_once(tmp_path, kind):
    cases = [f"p{number}" for number in range(10)]
    load_folds(tmp_path, cases, CONTIGUOUS)
    path = tmp_path / "folds-contiguous-5.json"
    for file in (path, seal_of(path)):
        whole = file.read_bytes()
        file.unlink()
        put_oddity(file, kind, whole)
        with pytest.raises(UserError, match="damaged"):
            load_folds(tmp_path, cases, CONTIGUOUS)
        file.rmdir() if kind == "folder" else file.unlink()
        file.write_bytes(whole)


def test_a_file_that_does_not_fit_is_an_error(tmp_path):
    cases = [f"p{number}" for number in range(10)]
    load_folds(tmp_path, cases, CONTIGUOUS)
    path = tmp_path / "folds-contiguous-5.json"
    with pytest.raises(
        UserError, match=r"folds-contiguous-5\.json does not split .*: p9 removed; p10, p11 added; delete"
    ):
        load_folds(tmp_path, [*cases[:-1], "p11", "p10"], CONTIGUOUS)
    whole = contiguous_folds(cases, 5)
    for content, words in (
        ([["p0", "p1", "p1"], *whole[1:]], "p1 is listed twice"),
        ([["p0", "p1", "p2"], *whole[1:]], "p2 is listed twice"),
        ([whole[0] + whole[1], *whole[2:]], "has 4 folds instead of 5"),
        (
            [[], whole[0] + whole[1], *whole[2:]],
            r"is damaged \(folds\[0\] is \[\], but must be a list with at least 1 item\)",
        ),
        ({"p0": 1}, "is damaged"),
        ([1, 2], "is damaged"),
        ([["p0", 1], *whole[1:]], "is damaged"),
        (["p0"], "is damaged"),
        (None, "is damaged"),
    ):
        path.write_text(json.dumps(content))
        with pytest.raises(UserError, match=words) as caught:
            load_folds(tmp_path, cases, CONTIGUOUS)
        assert "\n" not in str(caught.value)
    for text in ("{", "", "[" * 100_000):
        path.write_text(text)
        with pytest.raises(UserError, match="is damaged"):
            load_folds(tmp_path, cases, CONTIGUOUS)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="is damaged"):
        load_folds(tmp_path, cases, CONTIGUOUS)
    path.unlink()
    assert load_folds(tmp_path, cases, CONTIGUOUS) == whole


def test_unknown_fold_and_too_few_cases():
    splits = make_splits([f"p{number}" for number in range(10)], CONTIGUOUS)
    for fold in (7, -1, 5):
        with pytest.raises(UserError, match=f"fold {fold} does not exist: there are folds 0 to 4"):
            find_split(splits, fold)
    with pytest.raises(UserError, match=r"folds\.count is 5, but must be between 2 and the number of cases, 4"):
        make_folds(["a", "b", "c", "d"], CONTIGUOUS)
    for count in (1, 0, -3):
        with pytest.raises(UserError, match=rf"folds\.count is {count}, but must be at least 2"):
            fold_count(FoldSettings("contiguous", count))


@given(st.integers(2, 60), st.integers(2, 9), st.integers(0, 3))
def test_shuffled_folds_are_equally_large(n, count, seed):
    if count > n:
        return
    sizes = [len(fold) for fold in shuffled_folds([f"p{number}" for number in range(n)], count, seed)]
    assert sum(sizes) == n
    assert max(sizes) - min(sizes) <= 1


def test_shuffled_folds_of_before_are_kept(tmp_path):
    cases = [f"p{number}" for number in range(9)]
    before = [["p3"], ["p5"], ["p0"], ["p8"], ["p1", "p2", "p4", "p6", "p7"]]
    (tmp_path / "folds-shuffled-5-seed0.json").write_text(json.dumps(before))
    assert load_folds(tmp_path, cases, FoldSettings("shuffled", 5, 0)) == before
    # where all folds were equally large, the split is what it was
    folds = shuffled_folds([f"p{number}" for number in range(10)], 5, 1)
    assert folds == [["p4", "p8"], ["p0", "p7"], ["p1", "p2"], ["p5", "p9"], ["p3", "p6"]]


def test_a_fold_far_larger_than_the_others_is_said_once(tmp_path, caplog):
    cases = [f"p{number}" for number in range(9)]
    for _ in range(2):
        load_folds(tmp_path, cases, CONTIGUOUS)
    load_folds(tmp_path, cases, FoldSettings("shuffled", 5, 0))
    load_folds(tmp_path, cases[:8], FoldSettings("contiguous", 2))
    assert [record.getMessage() for record in caplog.records] == [
        "folds-contiguous-5.json: folds of 1, 1, 1, 1, 5 cases; folds.kind=shuffled makes folds of equal size"
    ]


def test_looking_at_a_split_writes_nothing(tmp_path):
    cases = [f"p{number}" for number in range(10)]
    seen = load_splits(tmp_path, cases, FoldSettings("shuffled", 5, 3), write=False)
    assert not list(tmp_path.iterdir())
    assert load_splits(tmp_path, cases, FoldSettings("shuffled", 5, 3)) == seen
    path = tmp_path / "folds-shuffled-5-seed3.json"
    assert sorted(tmp_path.iterdir()) == [path, seal_of(path)]


@pytest.mark.parametrize("refusal", [None, errno.EPERM, errno.ENOTSUP, errno.EACCES])
def test_of_two_writers_the_first_is_obeyed(tmp_path, monkeypatch, refusal):
    """Also where the file system has no hard links; every reader sees one whole split."""
    cases = [f"p{number}" for number in range(40)]
    link, together = os.link, threading.Barrier(6)

    def meet_and_link(source, target):
        if target.suffix == ".json":
            together.wait()
        if refusal is not None:
            raise OSError(refusal, os.strerror(refusal))
        link(source, target)

    def other_folds(cases, settings, writer):
        return shuffled_folds(cases, 5, writer)

    monkeypatch.setattr(os, "link", meet_and_link)
    results = [None] * 6

    def work(writer):
        import dmseg.data.folds as module

        local.writer = writer
        results[writer] = module.load_folds(tmp_path, cases, CONTIGUOUS)

    local = threading.local()
    monkeypatch.setattr(
        "dmseg.data.folds.make_folds", lambda cases, settings: other_folds(cases, settings, local.writer)
    )
    threads = [threading.Thread(target=work, args=(writer,)) for writer in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first = json.loads((tmp_path / "folds-contiguous-5.json").read_text())
    assert results == [first] * 6
    names = sorted(path.name for path in tmp_path.glob("*.json*"))
    assert names == ["folds-contiguous-5.json", "folds-contiguous-5.json.sha256"]
    assert load_folds(tmp_path, cases, CONTIGUOUS, write=False) == first


def write_splits(path, folds):
    path.write_text(json.dumps([{"train": train, "val": validation} for train, validation in folds]))
    return FoldSettings("contiguous", None, 0, file=str(path))


def test_a_split_of_ones_own(tmp_path):
    """As nnU-Net's splits_final.json: as many folds as it lists, training lists as they are, in any order."""
    settings = write_splits(
        tmp_path / "splits.json", [(["p10", "p3"], ["p2", "p1"]), (["p1"], ["p10"]), (["p1", "p2"], ["p3"])]
    )
    found = make_splits(["p1", "p2", "p3", "p10"], settings)
    assert found == [Split(("p3", "p10"), ("p1", "p2")), Split(("p1",), ("p10",)), Split(("p1", "p2"), ("p3",))]
    assert fold_count(settings) == 3
    store = tmp_path / "store"
    store.mkdir()
    assert load_splits(store, ["p1", "p2", "p3", "p10"], settings) == found
    assert not list(store.iterdir())
    with pytest.raises(UserError, match=r"has 3 folds, but folds\.count is 5"):
        make_splits(["p1", "p2", "p3", "p10"], FoldSettings("contiguous", 5, file=settings.file))
    with pytest.raises(UserError, match=r"folds\.groups has no effect together with folds\.file"):
        make_splits(["p1", "p2", "p3", "p10"], FoldSettings("contiguous", 3, file=settings.file, groups="g.csv"))


def test_the_same_folds_from_a_file_are_the_same_split(tmp_path):
    cases = [f"p{number}" for number in range(11)]
    made = make_splits(cases, CONTIGUOUS)
    settings = write_splits(tmp_path / "s.json", [(fold.train[::-1], fold.validation[::-1]) for fold in made])
    assert make_splits(cases[::-1], settings) == made


def test_home_folders_are_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_splits(tmp_path / "s.json", [(["a"], ["b"]), (["b"], ["a"])])
    assert len(make_splits(["a", "b"], FoldSettings("contiguous", None, file="~/s.json"))) == 2
    (tmp_path / "g.csv").write_text("case,group\na,1\nb,2\n")
    assert make_folds(["a", "b"], FoldSettings("contiguous", 2, groups="~/g.csv")) == [["a"], ["b"]]


@pytest.mark.parametrize("kind", ["contiguous", "shuffled"])
def test_groups_are_part_of_what_a_split_is(tmp_path, kind):
    """The file in the store is named by the grouping, not by how it is written."""
    cases = [f"p{number}" for number in range(12)]
    table = tmp_path / "groups.csv"

    def folds(groups, **more):
        table.write_text("case,group\n" + "".join(f"{case},{group}\n" for case, group in groups.items()))
        return load_folds(tmp_path, cases, FoldSettings(kind, 3, 0, groups=str(table), **more))

    pairs = {case: f"g{index // 2}" for index, case in enumerate(cases)}
    first = folds(pairs)
    assert [len(fold) for fold in first] == [4, 4, 4]
    assert all({f"p{2 * k}", f"p{2 * k + 1}"} <= set(fold) or not {f"p{2 * k}", f"p{2 * k + 1}"} & set(fold)
               for k in range(6) for fold in first)  # fmt: skip
    assert folds(dict(reversed(pairs.items()))) == folds({case: f"other{g}" for case, g in pairs.items()}) == first
    assert len(list(tmp_path.glob("folds-*.json"))) == 1
    folds({case: f"g{index % 6}" for index, case in enumerate(cases)})
    assert len(list(tmp_path.glob("folds-*.json"))) == 2
    with pytest.raises(UserError, match="has 2 groups, too few for 3 folds"):
        folds({case: index < 5 for index, case in enumerate(cases)})
