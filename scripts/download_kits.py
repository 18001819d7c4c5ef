"""Downloads KiTS19: segmentations from its GitHub repository, images from its Hugging Face repository.

Run ``python scripts/download_kits.py data/kits``. ``--labels-only`` gets the segmentations alone, which is all that
``dmseg prepare data=kits data.labels_only=true`` needs. Stopped and called again it goes on where it was. The data are
under CC BY-NC-SA 4.0.
"""

import argparse
import logging
import sys
from pathlib import Path

from dmseg.data.adapters.kits import TRAINING_CASES
from dmseg.data.download import fetch, git_checksums
from dmseg.errors import UserError

LABELS = "https://raw.githubusercontent.com/neheller/kits19/master/data"
CHECKSUMS = "https://api.github.com/repos/neheller/kits19/git/trees/master?recursive=1"
IMAGES = "https://huggingface.co/datasets/neheller/KiTS-Challenge-Imaging/resolve/main/images"

log = logging.getLogger("download_kits")


def main(words: list[str] | None = None) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = _parser().parse_args(words)
    checksums = _published(arguments.checksums_url)
    failed = []
    for number in range(arguments.first, arguments.last + 1):
        case = f"case_{number:05d}"
        wanted = [(f"{arguments.labels_url}/{case}/segmentation.nii.gz", "segmentation.nii.gz")]
        if not arguments.labels_only:
            wanted.append((f"{arguments.images_url}/{case}.nii.gz", "imaging.nii.gz"))
        for url, name in wanted:
            checksum = checksums.get(f"data/{case}/{name}") if name == "segmentation.nii.gz" else None
            try:
                if fetch(url, arguments.folder / case / name, checksum, timeout=arguments.timeout):
                    log.info("%s/%s", case, name)
            except UserError as error:
                log.error("%s/%s: %s", case, name, error)
                failed.append(f"{case}/{name}")
    if failed:
        log.error("%d files are missing, first %s; call again to go on", len(failed), failed[0])
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("folder", type=Path, help="where case_00000 and so on go: data/kits")
    parser.add_argument("--labels-only", action="store_true", help="segmentations alone")
    parser.add_argument("--first", type=int, default=0, help="first case")
    parser.add_argument("--last", type=int, default=TRAINING_CASES - 1, help="last case")
    parser.add_argument(
        "--timeout", type=float, default=60.0, help="seconds without a byte until a connection is broken"
    )
    parser.add_argument("--labels-url", default=LABELS, help="folder of case_00000/segmentation.nii.gz")
    parser.add_argument("--images-url", default=IMAGES, help="folder of case_00000.nii.gz")
    parser.add_argument("--checksums-url", default=CHECKSUMS, help="GitHub's list of the segmentations' checksums")
    return parser


def _published(url: str) -> dict[str, str]:
    try:
        return git_checksums(url)
    except UserError as error:
        log.warning("%s; the segmentations are not checked", error)
        return {}


if __name__ == "__main__":
    sys.exit(main())
