# ruff: noqa: E501 - tables of inputs
"""Folders as they may come: files that are missing, doubled, oddly named or junk, and a damaged dataset.json."""

import json
import shutil

from conftest import save_nifti
from fuzz.harness import Right, names
from fuzz.templates import DECATHLON, KITS, LIDC, LITS, QUBIQ

ALL = (QUBIQ, LITS, KITS, DECATHLON, LIDC)
ODD = (
    "a\nb",
    "x" * 240,
    "[red]",
    "$(touch pwned)",
    "=1+1",
    "\x1b[31m",
    "²",
    "a b",
    "..x",
    "-rf",
    "%s{}",
    "M\udcfcller",
)


def files(box):
    return sorted(path for path in (box / "raw").rglob("*") if path.is_file() and path.name != "dataset.json")


def pick(box, rng, found=None):
    found = files(box) if found is None else found
    return found[rng.integers(len(found))]


def missing(box, rng):
    path = pick(box, rng)
    path.unlink()
    return Right((*names(path).named, path.name.replace("segmentation", "volume").split(".")[0]))


def folder_missing(box, rng):
    path = pick(box, rng).parent
    shutil.rmtree(path)
    return Right((*names(path).named, "images", "mask-", "labelsTr"))


def doubled(box, rng):
    """The same case once more in another place, or packed and unpacked with other content."""
    path = pick(box, rng, sorted((box / "raw").rglob("*.nii.gz")))
    content = pick(box, rng, sorted(set(path.parent.glob("*.nii.gz")) - {path}) or [path])
    shutil.copy(content, path.with_name(path.name.removesuffix(".gz")))
    return Right(names(path).named, judge=lambda box, ran: [])


def twice(box, rng):
    """A case once more, elsewhere below the root."""
    (box / "raw/again").mkdir()
    path = pick(box, rng, sorted(path for path in (box / "raw").iterdir() if path.name != "again"))
    for path in (box / "raw").iterdir():
        if path.name != "again":
            (shutil.copytree if path.is_dir() else shutil.copy)(path, box / "raw/again" / path.name)


def junk(box, rng):
    for folder in {path.parent for path in files(box)}:
        for name in (".DS_Store", "Thumbs.db", "._image.nii.gz", "desktop.ini"):
            (folder / name).write_bytes(rng.bytes(99))
        (folder / "@eaDir").mkdir()
        (folder / "@eaDir" / "slice-9.png").write_bytes(b"")


def foreign(box, rng):
    """Files and folders that belong to nobody, with names that a terminal or a spreadsheet would obey."""
    folder = pick(box, rng).parent
    (folder / str(rng.choice(ODD[:6]))).write_text("foreign")
    return Right(judge=lambda box, ran: [])


def renamed(box, rng):
    """A case, or a file, with an odd name."""
    path = pick(box, rng)
    path = path.parent if rng.integers(2) and path.parent != box / "raw" else path
    name = ODD[rng.integers(len(ODD))]
    path.rename(path.with_name(name + (path.suffix if path.is_file() else "")))
    return Right(judge=lambda box, ran: [])


def empty(box, rng):
    shutil.rmtree(box / "raw")
    (box / "raw").mkdir()
    return Right(("raw", "lits", "kits", "qubiq", "kidney"))


def a_file(box, rng):
    shutil.rmtree(box / "raw")
    (box / "raw").write_text("not a folder")
    return Right(("raw",), judge=lambda box, ran: [])


def circle(box, rng):
    pick(box, rng).parent.joinpath("circle").symlink_to(box / "raw")
    return Right(judge=lambda box, ran: [])


def dataset(change, *more):
    """Lets `change(node)` change dataset.json; what it returns is written, text as it is."""

    def apply(box, rng):
        path = box / "raw/dataset.json"
        node = change(json.loads(path.read_text()))
        path.write_bytes(node if isinstance(node, bytes) else json.dumps(node).encode())
        return Right(("dataset.json", *more))

    return apply


def row(**values):
    """Changes the first row of the training cases."""
    return lambda node: node | {"training": [node["training"][0] | values, *node["training"][1:]]}


def key(**values):
    return lambda node: {name: value for name, value in (node | values).items() if value is not Ellipsis}


def outside_file(image):
    """An image path that leads out of the data set's folder, to a good file of the same name."""

    def apply(box, rng):
        shutil.copy(next((box / "raw/imagesTr").iterdir()), box / "cwd/secret.nii.gz")
        path = image.replace("ABS", str(box))
        return dataset(row(image=path), "secret")(box, rng)

    return apply


DATASET = {
    "not JSON": lambda node: b"{",
    "cut": lambda node: json.dumps(node).encode()[:-9],
    "empty": lambda node: b"",
    "not UTF-8": lambda node: b'{"name": "\xff\xfe"}',
    "deep": lambda node: b'{"a":' * 100000,
    "deep lists": lambda node: b'{"name": "x", "labels": {"0": "b", "1": "o"}, "training": ' + b"[" * 99999 + b"}",
    "a long number": lambda node: b'{"name": ' + b"9" * 100000 + b"}",
    **{f"is {text}": lambda node, text=text: text.encode() for text in ("null", "[]", "5", '"x"', "{}", "NaN")},
    **{f"training is {value!r}": key(training=value) for value in (None, 5, {}, [], "x", ["x"], [[]], [{}], [None], 1e9, True)},
    **{f"labels are {value!r}": key(labels=value) for value in (None, 5, [], {}, "x", {"a": "b"}, {"0": "b"}, {"²": "b", "1": "c"}, {"-1": "b"}, {"9" * 9999: "b"})},
    **{f"the name is {value[:9]!r}": key(name=value) for value in ("../up", "a/b", "a\0b", "\ud800", ".", "..", "x" * 300, "a\\b", "\x1b[31m", "a\nb", "/etc", "../../cwd/pwned")},
    **{f"an image is {value!r}": row(image=value) for value in (None, 5, [], {}, "", "/", ".", "a\0b", "\ud800", "x" * 5000, True)},
    **{f"a label is {value!r}": row(label=value) for value in (None, 5, [], "", "/", "..", "a\0b", "imagesTr")},
    "a row twice": lambda node: node | {"training": node["training"] + node["training"][:1]},
}  # fmt: skip


def other_row(box, rng):
    """One case has the image of another, which is legal, but not the same data."""
    node = json.loads((box / "raw/dataset.json").read_text())
    node["training"][0]["image"] = node["training"][1]["image"]
    (box / "raw/dataset.json").write_text(json.dumps(node))
    return Right(judge=lambda box, ran: [])


def extra(box, rng):
    """A file that no list names."""
    save_nifti(box / "raw/imagesTr/tiny_77.nii.gz", [[1, 2], [3, 4]], "int16")


CHANGES = [
    (ALL, "refused", "a file is missing", missing),
    ((DECATHLON, LIDC), "refused", "a folder is missing", folder_missing),
    ((QUBIQ, LITS, KITS), "either", "a file twice", doubled),
    ((LITS,), "refused", "all cases twice", twice),
    (ALL, "refused", "an empty folder", empty),
    (ALL, "refused", "a file as root", a_file),
    (ALL, "accepted", "junk", junk),
    (ALL, "either", "foreign files", foreign),
    (ALL, "either", "odd names", renamed),
    (ALL, "either", "more odd names", renamed),
    (ALL, "either", "a circle of links", circle),
    ((DECATHLON,), "either", "an image of another case", other_row),
    ((DECATHLON,), "accepted", "a file that is not listed", extra),
    *(
        ((DECATHLON,), "refused", f"an image outside: {path}", outside_file(path))
        for path in ("../cwd/secret.nii.gz", "ABS/cwd/secret.nii.gz", "imagesTr/../../cwd/secret.nii.gz")
    ),
    *(
        ((DECATHLON,), "refused", f"dataset.json: {name}", dataset(change, "tiny", "imagesTr", "ud800", "x00b", "xxxx"))
        for name, change in DATASET.items()
    ),
]
