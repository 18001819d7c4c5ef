# ruff: noqa: E501 - tables of inputs
"""Files that split the cases: nnU-Net's ``splits_final.json``, groups, and the splits that a store keeps."""

import json

from fuzz.harness import SPECIAL, Right, special
from fuzz.templates import TRAIN, study

CASES = [f"LIDC-IDRI-{number:04d}" for number in range(1, 7)]
SPLITS = [{"train": CASES[2:], "val": CASES[:2]}, {"train": CASES[:2], "val": CASES[2:]}]
GROUPS = "case,group\n" + "".join(f"{case},{number // 2}\n" for number, case in enumerate(CASES))


def brought(key, content, kind=None):
    """Trains with a file that the user brings."""

    def apply(box, rng):
        path = box / "cwd" / ("splits.json" if key == "file" else "groups.csv")
        if kind is None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        else:
            special(path, kind)
        words = [word for word in study(box) if not (key == "file" and word.startswith("folds.count"))]
        return Right((path.name,), words=["train", *words, f"folds.{key}={path}"], judge=lambda box, ran: [])

    return apply


def kept(content):
    """Changes the split that a store keeps, and trains."""

    def apply(box, rng):
        (path,) = (box / "prepared").glob("lidc/*/folds-*.json")
        path.write_text(content)
        words = ["train", *study(box), "seed=1"]
        return Right((path.name,), words=words, judge=lambda box, ran: [], repair=lambda box: path.unlink())

    return apply


def fold(**values):
    return json.dumps([SPLITS[0] | values, SPLITS[1]])


BAD_SPLITS = {
    "empty": "", "not JSON": "[{", "deep": "[" * 100000, "a number": "5", "no folds": "[]", "not UTF-8": b"\xff\xfe[",
    "NUL": "\0" * 99, "a fold is null": json.dumps([None, SPLITS[1]]), "one fold": json.dumps(SPLITS[:1]),
    "a key twice": '[{"train": ["a"], "val": ["b"], "val": ["c"]}]', "NaN": "[NaN, NaN]",
    "a key more": fold(test=[]), "train is text": fold(train="x"), "an id is a number": fold(val=[1, 2]),
    "an id is null": fold(val=[None]), "a case twice": fold(val=[CASES[0], CASES[0]]), "no val": fold(val=[]),
    "no train": fold(train=[]), "in both": fold(train=CASES), "unknown": fold(val=[CASES[0], "../x"]),
    "a surrogate": '[{"train": ["\\ud800"], "val": ["x"]}]', "a file name": fold(val=[f"{CASES[0]}.png", CASES[1]]),
    "markup": fold(val=["[red]\x1b[31m", CASES[0]]), "a long id": fold(val=["x" * 10**6, CASES[0]]),
    "validated twice": json.dumps([SPLITS[0], SPLITS[0]]), "one left out": fold(val=CASES[:1]),
    "a long number": "[" + "9" * 100000 + "]",
}  # fmt: skip
BAD_GROUPS = {
    "empty": "", "no header": GROUPS.partition("\n")[2], "not UTF-8": b"case,group\n\xff\xfe,1\n", "NUL": b"\0" * 9,
    "a case less": GROUPS.rpartition("LIDC")[0], "a case twice": GROUPS + f"{CASES[0]},9\n",
    "unknown": GROUPS + "../x,9\n", "no group": GROUPS.replace(",0", ","), "a column less": "case\n" + "\n".join(CASES),
    "an open quote": GROUPS + '"x', "a long field": GROUPS + "x" * 200000 + ",1\n", "one group": GROUPS.replace(",1", ",0").replace(",2", ",0"),
    "UTF-16": GROUPS.encode("utf-16"), "semicolons": GROUPS.replace(",", ";"), "markup": GROUPS + "[red]\x1b[31m,1\n",
}  # fmt: skip
KEPT = {
    "empty": "", "not JSON": "{", "deep": "[" * 100000, "no folds": "[]", "an empty fold": json.dumps([CASES, []]),
    "numbers": "[[1, 2], [3]]", "three folds": json.dumps([CASES[:2], CASES[2:4], CASES[4:]]), "NaN": "[NaN]",
    "a case twice": json.dumps([CASES[:3], CASES[2:]]), "a case less": json.dumps([CASES[:3], CASES[3:5]]),
    "unknown": json.dumps([[*CASES[:3], "../x"], CASES[3:]]), "keys": json.dumps({"0": CASES}),
}  # fmt: skip
CHANGES = [
    *(((TRAIN,), "refused", f"the split of a store: {name}", kept(text)) for name, text in KEPT.items()),
    *(((TRAIN,), "refused", f"folds.file: {name}", brought("file", text)) for name, text in BAD_SPLITS.items()),
    *(((TRAIN,), "refused", f"folds.groups: {name}", brought("groups", text)) for name, text in BAD_GROUPS.items()),
    *(
        ((TRAIN,), "refused", f"a {kind} as folds.{key}", brought(key, "", kind))
        for kind in SPECIAL
        for key in ("file", "groups")
    ),
    ((TRAIN,), "accepted", "a split of two folds", brought("file", json.dumps(SPLITS))),
    ((TRAIN,), "accepted", "a byte order mark", brought("file", b"\xef\xbb\xbf" + json.dumps(SPLITS).encode())),
    ((TRAIN,), "accepted", "groups", brought("groups", GROUPS)),
    ((TRAIN,), "accepted", "groups with CRLF and a column more", brought("groups", GROUPS.replace("\n", ",x\r\n"))),
]
