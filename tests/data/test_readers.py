"""Single files: PNG of every depth and layout, masks with one tolerance, names in natural order."""

import numpy as np
import pytest
from conftest import save_png, write_lidc
from PIL import Image

from dmseg.data.adapters.lidc import LidcAdapter
from dmseg.data.images import png_depth, read_png
from dmseg.data.prepared import PreparedTask, prepare
from dmseg.data.readers import as_mask, natural_key
from dmseg.errors import UserError

GREY = np.arange(16 * 16, dtype=np.uint8).reshape(16, 16)
BINARY = GREY > 100


def palette(image):
    """A grey image with a palette whose entries are out of order."""
    coloured = Image.fromarray(255 - image, "P")
    coloured.putpalette([255 - value for value in range(256) for _ in range(3)])
    return coloured


def with_alpha(grey, alpha):
    return Image.fromarray(np.stack([grey, grey, grey, np.full_like(grey, 255) if alpha is None else alpha], -1))


@pytest.mark.parametrize(
    ("image", "expected", "depth"),
    [
        (Image.fromarray(GREY), GREY, 8),
        (Image.fromarray(np.stack([GREY] * 3, -1)), GREY, 8),
        (with_alpha(GREY, None), GREY, 8),
        (Image.fromarray(np.stack([GREY, np.full_like(GREY, 255)], -1), "LA"), GREY, 8),
        (palette(GREY), GREY, 8),
        (Image.fromarray(GREY.astype(np.uint16) * 257), GREY.astype(int) * 257, 16),
        (Image.fromarray(GREY.astype(np.uint16)), GREY, 16),
        (Image.fromarray(BINARY), BINARY, 1),
    ],
)
def test_grey_is_read_with_the_files_own_values(tmp_path, image, expected, depth):
    image.save(tmp_path / "image.png")
    values = read_png(tmp_path / "image.png")
    assert values.dtype == (np.uint16 if depth == 16 else np.uint8)
    assert np.array_equal(values, expected)
    assert png_depth(tmp_path / "image.png") == depth


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (Image.fromarray(np.stack([GREY, GREY * 0, GREY * 0], -1)), "is a colour image"),
        (with_alpha(np.full_like(GREY, 255), GREY), "has transparent pixels"),
        (Image.fromarray(np.stack([GREY, GREY], -1), "LA"), "has transparent pixels"),
    ],
)
def test_what_is_not_grey_is_refused_by_name(tmp_path, image, said):
    image.save(tmp_path / "image.png")
    with pytest.raises(UserError, match=rf"image\.png {said}"):
        read_png(tmp_path / "image.png")


def test_transparent_grey_values_are_refused(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "image.png", transparency=7)
    with pytest.raises(UserError, match="has transparent pixels"):
        read_png(tmp_path / "image.png")


def test_sixteen_bits_in_colour_are_refused(tmp_path):
    """Pillow would drop the lower eight without a word; the file is written by hand."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(6 * 4) for _ in range(4))
    content = [(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    (tmp_path / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in content))
    with pytest.raises(UserError, match="16 bits in several channels"):
        read_png(tmp_path / "image.png")


@pytest.mark.parametrize("kind", ["jpeg", "tiff", "bmp", "text", "empty"])
def test_only_png_is_read(tmp_path, kind):
    path = tmp_path / "image.png"
    if kind in ("text", "empty"):
        path.write_bytes(b"version https://git-lfs" * (kind == "text"))
    else:
        Image.fromarray(GREY).save(path, kind)
    with pytest.raises(UserError, match="is empty; download it again" if kind == "empty" else "is not a PNG file"):
        read_png(path)


def test_an_image_of_too_many_pixels_is_refused(tmp_path, monkeypatch):
    Image.fromarray(GREY).save(tmp_path / "image.png")
    with pytest.raises(UserError, match=r"an image of 256 pixels, but at most 255 are allowed; .* raise data\.max_gib"):
        read_png(tmp_path / "image.png", max_gib=255.5 * 64 / 2**30)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow's own bound is not ours
    assert read_png(tmp_path / "image.png").shape == (16, 16)


MASK = np.array([[0, 1], [1, 0]])


@pytest.mark.parametrize("foreground", [1, 255, 65535, 0.9999, 0.999, np.float32(0.99999994), 254.999])
def test_masks_hold_zero_and_one_other_value(tmp_path, foreground):
    values = (MASK * foreground).astype(np.float32)
    mask = as_mask(values, tmp_path, (2, 2))
    assert mask.dtype == np.bool_
    assert np.array_equal(mask, MASK)
    assert not as_mask(values * 0, tmp_path, (2, 2)).any()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([[0, -1], [0, 0]], r"it contains -1, 0; expected 0 and one of 1, 255, 65535"),
        ([[0, 0.5], [0, 0]], r"it contains 0, 0\.5; soft masks are not supported yet"),
        ([[0, 1], [0, 0.97]], r"it contains 0, 0\.97, 1; soft"),
        ([[0, 128], [0, 0]], r"it contains 0, 128;"),
        ([[0, 1], [255, 0]], r"it contains 0, 1, 255;"),
        ([[0, 1], [2, 0]], r"it contains 0, 1, 2;"),
        ([[0, 1.0123457], [0, 0]], r"it contains 0, 1\.0123457;"),
        ([[0, np.nan], [0, 0]], r"it contains 0, nan;"),
        ([[255, 254], [0, 0]], r"it contains 0, 254, 255;"),
    ],
)
def test_other_masks_are_refused_with_all_digits(tmp_path, values, said):
    with pytest.raises(UserError, match=said):
        as_mask(np.array(values, dtype=np.float32), tmp_path, (2, 2))


def test_natural_order_of_any_digits():
    names = ["p10", "p2", "p²", "²", "p٣", "p1"]
    assert sorted(names, key=natural_key)[:1] == ["p1"]
    assert sorted(["p10", "p2", "p٣"], key=natural_key) == ["p2", "p٣", "p10"]


def stored_images(root, **options):
    adapter = LidcAdapter(root, **options)
    prepare(adapter, adapter.tasks["nodule"], root.parent / "store", 32, options)
    return PreparedTask(root.parent / "store").images


def lidc_of(root, change, which="images"):
    write_lidc(root, 4, np.random.default_rng(0), slices=(2,))
    for path in sorted(root.rglob(f"{which}/*.png")):
        with Image.open(path) as image:
            values = np.asarray(image)
        Image.fromarray(change(values)).save(path)
    return root


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.astype(np.uint16) * 257,
        lambda values: values.astype(np.uint16) * 16,
        lambda values: values.astype(np.uint16),
        lambda values: np.stack([values] * 3, -1),
    ],
)
def test_lidc_is_the_same_in_every_depth(tmp_path, change):
    eight_bit = stored_images(write_lidc(tmp_path / "a/lidc", 4, np.random.default_rng(0), slices=(2,)))
    assert np.array_equal(stored_images(lidc_of(tmp_path / "b/lidc", change)), eight_bit)


def test_lidc_whose_depth_is_unclear(tmp_path):
    root = lidc_of(tmp_path / "lidc", lambda values: values.astype(np.uint16) * 30)
    with pytest.raises(UserError, match=r"have values up to \d+, of either 12 or 16 bits; set data\.bits=16"):
        stored_images(root)
    with Image.open(sorted(root.rglob("images/*.png"))[0]) as image:
        expected = np.rint(np.asarray(image, dtype=float) / 65535 * 255)
    assert np.array_equal(stored_images(root, bits=16)[0, 0], expected)
    with pytest.raises(UserError, match=r"data\.bits is 10, but must be 8, 12, 16 or null"):
        LidcAdapter(root, bits=10)


def test_lidc_whose_patients_differ_in_depth_is_said(tmp_path, caplog):
    root = lidc_of(tmp_path / "lidc", lambda values: values.astype(np.uint16) * 257)
    for path in root.rglob("LIDC-IDRI-0003/**/images/*.png"):
        Image.fromarray(np.full((32, 32), 4000, dtype=np.uint16)).save(path)
    stored_images(root)
    assert (
        sum("16-bit images of some patients use 12 bits and those of others 16" in line for line in caplog.messages)
        == 1
    )


def test_lidc_whose_slices_differ_in_depth_or_are_binary(tmp_path):
    root = lidc_of(tmp_path / "a/lidc", lambda values: values)
    Image.fromarray(np.zeros((32, 32), dtype=np.uint16)).save(sorted(root.rglob("images/*.png"))[1])
    with pytest.raises(UserError, match=r"LIDC-IDRI-0001 have \[8, 16\] bits; save them with one bit depth"):
        stored_images(root)
    root = lidc_of(tmp_path / "b/lidc", lambda values: (values > 100).astype(np.uint8))
    with pytest.raises(UserError, match="has only the values 0 and 1, but would be scaled from 0 to 255"):
        stored_images(root)
    root = lidc_of(tmp_path / "c/lidc", lambda values: values > 100)
    assert set(np.unique(stored_images(root))) == {0, 255}


@pytest.mark.parametrize("name", ["._slice-0.png", ".DS_Store", "Thumbs.db", "@eaDir", "__MACOSX", "lost+found"])
def test_lidc_with_junk_in_every_folder(tmp_path, name):
    root = write_lidc(tmp_path / "lidc", 2, np.random.default_rng(0))
    before = [case.files for case in LidcAdapter(root).list_cases("nodule")]
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        if name.startswith(("@", "_", "lost")):
            save_png(folder / name / "nodule-0/images/slice-0.png", GREY)
        else:
            (folder / name).write_bytes(b"junk")
    assert [case.files for case in LidcAdapter(root).list_cases("nodule")] == before


def test_lidc_with_suffixes_in_capitals(tmp_path):
    root = write_lidc(tmp_path / "lidc", 2, np.random.default_rng(0))
    expected = np.array(stored_images(root))
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        if number % 2:
            path.rename(path.with_suffix(".PNG"))
    assert np.array_equal(stored_images(root), expected)
