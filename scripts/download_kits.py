"""Downloads KiTS19: segmentations from its GitHub repository, images from its Hugging Face repository.

Run ``python scripts/download_kits.py data/kits``. ``--labels-only`` downloads only the segmentations, which are all
that ``dmseg prepare data=kits data.labels_only=true`` needs. Run it again to continue an interrupted download:
incomplete images are resumed, and existing files are kept. The data are under CC BY-NC-SA 4.0.
"""

import argparse
import hashlib
import http.client
import json
import logging
import shutil
import sys
import urllib.request
from pathlib import Path

from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

from dmseg.data.adapters.kits import TRAINING_CASES
from dmseg.files.atomic import write_whole

LABELS = "https://raw.githubusercontent.com/neheller/kits19/master/data"
CHECKSUMS = "https://api.github.com/repos/neheller/kits19/git/trees/master?recursive=1"
IMAGES = "neheller/KiTS-Challenge-Imaging"
"""The data set on Hugging Face."""
TIMEOUT = 60.0
"""Seconds without data after which a connection counts as broken."""

log = logging.getLogger("download_kits")


def main(words: list[str] | None = None) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    given = _parser().parse_args(words)
    checksums = _published_checksums(given.checksums_url)
    failed = []
    for case in (f"case_{number:05d}" for number in range(given.first, given.last + 1)):
        label, image = (given.folder / case / name for name in ("segmentation.nii.gz", "imaging.nii.gz"))
        try:
            if not label.exists():
                url = f"{given.labels_url}/{case}/{label.name}"
                _download_label(url, label, checksums.get(f"data/{case}/{label.name}"))
                log.info("%s/%s", case, label.name)
            if not given.labels_only and not image.exists():
                _download_image(f"images/{case}.nii.gz", image, given.endpoint)
                log.info("%s/%s", case, image.name)
        except Exception as error:  # huggingface_hub raises errors of several libraries
            log.error("%s: %s", case, " ".join(str(error).split()))
            failed.append(case)
    if failed:
        log.error("%d cases are incomplete, first %s; run the command again to continue", len(failed), failed[0])
    return 1 if failed else 0


def _download_label(url: str, place: Path, checksum: str | None) -> None:
    """Downloads a segmentation and compares it with the checksum of its Git blob, if that is known."""
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
        content: bytes = answer.read()
    if checksum not in (None, hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()):
        raise ValueError(f"{url} has a wrong checksum")
    write_whole(place, content)


def _download_image(name: str, place: Path, endpoint: str | None) -> None:
    """Downloads an image, resuming an interrupted download, and compares it with its published SHA-256."""
    url = hf_hub_url(IMAGES, name, repo_type="dataset", endpoint=endpoint)
    published = get_hf_file_metadata(url, timeout=TIMEOUT, endpoint=endpoint)
    work = place.parent / "download"
    found = Path(hf_hub_download(IMAGES, name, repo_type="dataset", local_dir=work, endpoint=endpoint))
    with found.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != published.etag:
            found.unlink()
            raise ValueError(f"{url} has a wrong checksum")
    found.replace(place)
    shutil.rmtree(work)


def _published_checksums(url: str) -> dict[str, str]:
    """SHA-1 of the Git blob of each file in GitHub's list; empty if the list cannot be read."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            return {row["path"]: row["sha"] for row in json.load(answer)["tree"] if row["type"] == "blob"}
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException) as error:
        log.warning("%s cannot be read (%s); the segmentations are not checked", url, error)
        return {}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder for case_00000 and so on: data/kits")
    parser.add_argument("--labels-only", action="store_true", help="download only the segmentations")
    parser.add_argument("--first", type=int, default=0, help="first case")
    parser.add_argument("--last", type=int, default=TRAINING_CASES - 1, help="last case")
    parser.add_argument("--labels-url", default=LABELS, help="folder of case_00000/segmentation.nii.gz")
    parser.add_argument("--checksums-url", default=CHECKSUMS, help="GitHub's list of the segmentations' checksums")
    parser.add_argument("--endpoint", help="Hugging Face, or a mirror of it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
