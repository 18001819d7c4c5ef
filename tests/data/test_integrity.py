"""The seal of a prepared store: whatever is changed is noticed before the store is used; what is whole is kept."""

import json
import os
import shutil

import numpy as np
import pytest
from conftest import ODDITIES, ensure_qubiq_case, flips, put_oddity, write_lidc

from dmseg.data import integrity as seal
from dmseg.data.adapters.lidc import LidcAdapter
from dmseg.data.adapters.qubiq import QubiqAdapter
from dmseg.data.integrity import ContentDigest, read_store, seal_store, verify_store
from dmseg.data.prepared import PreparedTask, is_current, prepare
from dmseg.errors import DamagedStoreError, UserError

FILES = ("seal.json", "manifest.json", "images.npy", "annotations.npy")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small store with a rater who is absent from a case."""
    folder = tmp_path_factory.mktemp("made")
    for number in range(1, 6):
        ensure_qubiq_case(folder / f"raw/kidney/case{number:02d}", "kidney", 3, 1, np.random.default_rng(number))
    (folder / "raw/kidney/case02/task01_seg02.nii.gz").unlink()
    adapter = QubiqAdapter(folder / "raw", missing_raters="allow")
    prepare(adapter, adapter.tasks["kidney-1"], folder / "store", 16, {})
    return folder


@pytest.fixture
def store(made, tmp_path):
    return shutil.copytree(made / "store", tmp_path / "store")


def current(made, store):
    adapter = QubiqAdapter(made / "raw", missing_raters="allow")
    return is_current(store, adapter.tasks["kidney-1"], adapter.list_cases("kidney-1"), {})


def rewrite_manifest(store, change):
    manifest = json.loads((store / "manifest.json").read_text())
    change(manifest)
    (store / "manifest.json").write_text(json.dumps(manifest))
    return manifest


def digest_of(store):
    """The digest that the arrays and rows of a store give."""
    manifest = json.loads((store / "manifest.json").read_text())
    images, masks = (np.load(store / name) for name in FILES[2:])
    digest = ContentDigest()
    for row in manifest["cases"]:
        span = slice(row["first"], row["first"] + row["n_slices"])
        digest.add(images[span], np.ascontiguousarray(masks[span][:, row["raters"]]))
        digest.end_case(row)
    return digest.hexdigest()


@pytest.mark.parametrize("name", FILES)
def test_every_changed_byte_is_noticed(made, store, name):
    path = store / name
    whole = path.read_bytes()
    for changed in flips(whole, seed=1):
        path.write_bytes(changed)
        with pytest.raises(DamagedStoreError, match=f"{name} is damaged") as caught:
            PreparedTask(store)
        assert str(caught.value).count("\n") <= 2
    assert not current(made, store)
    assert len(verify_store(store)) == 1
    path.write_bytes(whole)
    assert current(made, store)
    assert not verify_store(store)


@pytest.mark.parametrize("name", FILES[1:])
def test_every_changed_byte_that_matters_is_noticed_without_a_seal(store, name):
    (store / "seal.json").unlink()
    path = store / name
    whole = path.read_bytes()
    before = PreparedTask(store)
    known = (before.digest, before.cases, before.images.tobytes(), before.annotation_arrays.tobytes())
    for changed in flips(whole, seed=2):
        path.write_bytes(changed)
        try:
            after = PreparedTask(store)
        except DamagedStoreError:
            continue
        assert name == "manifest.json", "sources, options and titles are known to the manifest alone"
        assert known == (after.digest, after.cases, after.images.tobytes(), after.annotation_arrays.tobytes())


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ODDITIES)
def test_what_is_no_file_is_not_opened(made, store, name, kind):
    whole = (store / name).read_bytes()
    (store / name).unlink()
    put_oddity(store / name, kind, whole)
    with pytest.raises(DamagedStoreError, match=f"{name} is damaged"):
        PreparedTask(store)
    assert not current(made, store)


@pytest.mark.parametrize("name", FILES[1:])
@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_cut_and_missing_files_are_named(store, name, length):
    whole = (store / name).read_bytes()
    (store / name).write_bytes(whole[:length])
    for _ in range(2):  # with a seal and without
        with pytest.raises(DamagedStoreError, match=f"{name} is damaged"):
            PreparedTask(store)
        (store / "seal.json").unlink(missing_ok=True)
    (store / name).unlink()
    with pytest.raises(DamagedStoreError, match=f"{name} is missing"):
        PreparedTask(store)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("name", FILES[2:])
def test_other_headers_are_refused(store, name, sealed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    array = np.load(store / name)
    if not sealed:
        (store / "seal.json").unlink()
    bombs = np.array([Bomb()], dtype=object)
    for other in (
        np.asfortranarray(array),
        array.astype(">i2"),
        array.view(np.int8),
        array.view(np.bool_) if name == "annotations.npy" else array.astype(np.uint16),
        array[:-1],
        array[:, :, :, :-1],
        array.swapaxes(0, 1),
        array.reshape(-1),
        array.view([("a", "u1")]),
        bombs,
    ):
        np.save(store / name, other, allow_pickle=True)
        with pytest.raises(DamagedStoreError, match=f"{name} is damaged"):
            PreparedTask(store)
    assert not (tmp_path / "exploded").exists()


def deep(manifest):
    for _ in range(500):
        manifest["options"] = [manifest["options"]]


def change_case(key, value, index=1):
    return lambda manifest: manifest["cases"][index].__setitem__(key, value)


def change(key, value):
    return lambda manifest: manifest.__setitem__(key, value)


def change_task(key, value):
    return lambda manifest: manifest["task"].__setitem__(key, value)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (change_case("first", 0), "does not start where"),
        (change_case("first", True), "does not start where"),
        (change_case("n_slices", 0), "no slice"),
        (change_case("n_slices", 10**30, 4), "the manifest says"),
        (change_case("n_slices", 2, 4), "the manifest says"),
        (change_case("raters", [0, 3]), "expected positions below 3"),
        (change_case("raters", [-1]), "expected positions below 3"),
        (change_case("raters", [0, 0]), "expected positions below 3"),
        (change_case("raters", []), "expected positions below 3"),
        (change_case("raters", [0.0]), "expected positions below 3"),
        (change_case("raters", {"0": 0}), "expected positions below 3"),
        (change_case("raters", [[0]]), "expected positions below 3"),
        (change_case("raters", [0, 1, 2]), "do not match the digest"),
        (change_case("raters", [2, 0]), "do not match the digest"),
        (change_case("raters", [0]), "did not annotate case case02 have marked something"),
        (change_case("case", "case01"), "listed twice"),
        (change_case("case", "../case01"), "slash"),
        (change_case("case", "case\u0000"), "control"),
        (change_case("case", 1), "not text"),
        (change_case("case", "other"), "listed"),
        (change("cases", []), "expected a list of cases"),
        (change("cases", [1]), "expected case, first, n_slices and raters"),
        (change("cases", {}), "expected a list of cases"),
        (lambda manifest: manifest["cases"].reverse(), "does not start where"),
        (lambda manifest: manifest["cases"].pop(), "the manifest says"),
        (change("listed", ["case01"]), "listed"),
        (change("listed", [f"case0{n}" for n in (1, 1, 2, 3, 4, 5)]), "listed"),
        (change("listed", 7), "listed"),
        (change("size", 32), "the manifest says"),
        (change("size", "16"), "size is '16'"),
        (change("size", 1e400), "size is inf"),
        (change("digest", "0" * 64), "do not match the digest"),
        (change("digest", "0" * 63), "64 hexadecimal digits"),
        (change("digest", None), "64 hexadecimal digits"),
        (change("options", []), "expected a mapping"),
        (change("revision", "1"), "expected a whole number"),
        (change("version", 1), "expected text"),
        (change("sources", {"a": {}}), "sources"),
        (change("source_files", [["case01"]]), "source_files"),
        (change("task", []), "task"),
        (change_task("raters", ["a", "b"]), "expected positions below 2"),
        (change_task("raters", ["a", "b", "c", "d"]), "the manifest says"),
        (change_task("raters", ["a", "b", "b"]), "task"),
        (change_task("raters", [["a"], ["b"], ["c"]]), "task"),
        (change_task("name", "../x"), "task"),
        (change_task("title", "\ud800"), "task"),
        (change_task("anonymous_raters", "no"), "task"),
        (lambda manifest: manifest.pop("task"), "task is missing"),
        (lambda manifest: manifest.pop("cases"), "cases is missing"),
        (deep, "nested more than 50 levels deep"),
    ],
)
def test_the_manifest_has_one_schema(store, edit, words):
    (store / "seal.json").unlink()
    rewrite_manifest(store, edit)
    with pytest.raises(DamagedStoreError, match=words) as caught:
        PreparedTask(store)
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "content", [b"[]", b"null", b'"' + b"\xff" * 9 + b'"', b"{}\0", b"1" * 5000, b"[0," * 4_000_000]
)
def test_what_is_no_manifest_is_refused(store, content):
    (store / "seal.json").unlink()
    (store / "manifest.json").write_bytes(content)
    with pytest.raises(DamagedStoreError, match=r"manifest\.json is damaged"):
        PreparedTask(store)


def test_values_that_no_store_has_are_refused_whatever_is_sealed(store):
    """Somebody may have written arrays, digest and seal that fit one another."""
    masks = np.load(store / "annotations.npy")
    masks[0, 0, 3, 3] = 2
    np.save(store / "annotations.npy", masks)
    (store / "seal.json").unlink()
    rewrite_manifest(store, lambda manifest: manifest.update(digest=digest_of(store)))
    with pytest.raises(DamagedStoreError, match="holds the value 2"):
        PreparedTask(store)
    with (store / "annotations.npy").open("rb") as file:
        rows = {name: {"size": (store / name).stat().st_size, "crc32": "0"} for name in FILES[2:]}
        crc = f"{seal.file_crc(file):08x}"
    with (store / "images.npy").open("rb") as file:
        rows["images.npy"]["crc32"] = f"{seal.file_crc(file):08x}"
    rows["annotations.npy"]["crc32"] = crc
    seal.write_seal(store, rows, (store / "manifest.json").read_bytes())
    with pytest.raises(DamagedStoreError, match="holds the value 2"):
        PreparedTask(store)


def test_a_store_of_before_is_sealed_as_it_is(made, store, monkeypatch):
    sealed = (store / "seal.json").read_bytes()
    (store / "seal.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in store.iterdir()}
    assert PreparedTask(store).digest == PreparedTask(made / "store").digest == digest_of(store)
    assert current(made, store)
    assert before == {path: path.stat().st_mtime_ns for path in store.iterdir()}, "looking writes nothing"
    with monkeypatch.context() as patch:
        patch.setattr(seal, "write_whole", refuse)
        seal_store(store)
        assert PreparedTask(store).digest, "a store that cannot be written to is used without"
    adapter = QubiqAdapter(made / "raw", missing_raters="allow")
    assert not prepare(adapter, adapter.tasks["kidney-1"], store, 16, {})
    assert (store / "seal.json").read_bytes() == sealed
    (store / "seal.json").unlink()
    (store / "images.npy").write_bytes((store / "images.npy").read_bytes()[:-1] + b"\1")
    with pytest.raises(DamagedStoreError):
        seal_store(store)
    assert not (store / "seal.json").exists()


def refuse(path, text):
    raise OSError(30, "Read-only file system")


def test_manifests_without_later_keys_are_read(store):
    (store / "seal.json").unlink()

    def older(manifest):
        del manifest["listed"], manifest["version"]

    rewrite_manifest(store, older)
    assert PreparedTask(store).listed == [f"case0{n}" for n in range(1, 6)]


@pytest.mark.parametrize("sealed", [True, False])
def test_arrays_are_compared_once_in_a_process_unless_they_change(store, monkeypatch, sealed):
    if not sealed:
        (store / "seal.json").unlink()
    monkeypatch.setattr(seal, "SETTLED_SECONDS", -1.0)
    read = []
    monkeypatch.setattr(
        seal, "_describe", lambda file, name, known=seal._describe: read.append(name) or known(file, name)
    )
    for _ in range(35):
        PreparedTask(store)
    assert sorted(read) == ["annotations.npy", "images.npy"]
    assert not verify_store(store), "which reads them again"
    assert len(read) >= 4
    path = store / "images.npy"
    status, whole = path.stat(), path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    with pytest.raises(DamagedStoreError):
        PreparedTask(store)


def test_a_file_that_has_just_been_written_is_compared_again(store, monkeypatch):
    monkeypatch.setattr(seal, "_stamp", lambda file: (0, 0, 0, 0, 0))  # a clock that stands still
    path = store / "images.npy"
    PreparedTask(store)
    path.write_bytes(path.read_bytes()[:-1] + b"\7")
    with pytest.raises(DamagedStoreError):
        PreparedTask(store)


def test_files_that_are_not_the_stores_do_not_matter(made, store):
    (store / "._images.npy").write_bytes(b"junk")
    (store / "Thumbs.db").write_bytes(b"junk")
    (store / ".folds").mkdir()
    os.mkfifo(store / ".folds/lock")
    os.mkfifo(store / "times.json")
    assert current(made, store)
    (store / "times.json").unlink()
    (store / "times.json").symlink_to("/dev/zero")
    assert current(made, store)
    assert not verify_store(store)


def interrupted(root, folder, monkeypatch):
    """Prepares all cases, and fails before they are joined; returns the parts."""
    with monkeypatch.context() as patch:
        patch.setattr("dmseg.data.prepared._assemble", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            prepare_lidc(root, folder)
    return folder.parent / f".{folder.name}.parts"


def prepare_lidc(root, folder):
    adapter = LidcAdapter(root)
    return prepare(adapter, adapter.tasks["nodule"], folder, 32, {})


@pytest.mark.parametrize("name", ["images", "annotations", "case.json"])
def test_a_changed_part_of_an_interrupted_prepare_is_made_again(tmp_path, monkeypatch, name):
    root = write_lidc(tmp_path / "lidc", 3, np.random.default_rng(0))
    prepare_lidc(root, tmp_path / "whole/store")
    known = PreparedTask(tmp_path / "whole/store").digest
    parts = interrupted(root, tmp_path / "work/store", monkeypatch)
    path = sorted(parts.glob(f"*/{name}"))[0]
    whole, read = path.read_bytes(), []
    read_case = LidcAdapter.read_case
    monkeypatch.setattr(
        LidcAdapter, "read_case", lambda self, task, files: read.append(files.case) or read_case(self, task, files)
    )
    odd = [lambda path, kind=kind: put_oddity(path, kind, whole) for kind in ODDITIES if kind != "sparse"]
    for number, put in enumerate([*(lambda p, c=c: p.write_bytes(c) for c in flips(whole, 3, 8)), *odd]):
        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        put(path)
        interrupted(root, tmp_path / "work/store", monkeypatch)
        assert len(read) == number + 1, "the changed part alone"
    prepare_lidc(root, tmp_path / "work/store")
    assert PreparedTask(tmp_path / "work/store").digest == known
    assert len(read) == number + 1


def test_a_part_that_is_a_link_is_not_followed(tmp_path, monkeypatch):
    root = write_lidc(tmp_path / "lidc", 3, np.random.default_rng(0))
    parts = interrupted(root, tmp_path / "work/store", monkeypatch)
    part = sorted(path for path in parts.iterdir() if path.is_dir())[0]
    part.rename(tmp_path / "elsewhere")
    part.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/images").write_bytes(b"")
    (parts / "lock").unlink()
    (tmp_path / "mine").write_text("mine")
    (parts / "lock").symlink_to(tmp_path / "mine")
    with pytest.raises(UserError):
        prepare_lidc(root, tmp_path / "work/store")
    assert (tmp_path / "mine").read_text() == "mine"
    (parts / "lock").unlink()
    assert prepare_lidc(root, tmp_path / "work/store")
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == ["annotations", "case.json", "images"]
    assert read_store(tmp_path / "work/store")
