"""Downloads files over unreliable connections: resumes interrupted downloads and verifies checksums."""

import hashlib
import http.client
import json
import logging
import re
import time
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from typing import IO, Any

from dmseg.errors import UserError
from dmseg.files.atomic import write_whole

CHUNK = 1 << 20
RETRIED = {408, 425, 429, 500, 502, 503, 504}
"""HTTP statuses worth a retry."""

log = logging.getLogger(__name__)


class _Broken(Exception):
    """The connection failed; the part that arrived is kept."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects and remembers the checksum that Hugging Face sends with the first response."""

    linked: str | None = None

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        self.linked = self.linked or headers.get("X-Linked-Etag")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def fetch(url: str, place: Path, checksum: str | None = None, *, attempts: int = 6, timeout: float = 60.0) -> bool:
    """Downloads a file unless it exists.

    An incomplete download is kept as ``<name>.part``; this or a later call resumes it. The file gets its final name
    only once it is complete and its checksum is right: the given one, or Hugging Face's ``X-Linked-Etag``.

    Args:
        url: http or https.
        place: path of the file.
        checksum: ``sha256:<hex>`` or ``git:<hex>`` (of the Git blob), or None.
        attempts: number of connections in a row that may bring no data.
        timeout: seconds without data after which a connection counts as broken.

    Returns:
        Whether anything was downloaded.

    Raises:
        UserError: if the server refuses, no more data arrive, or the checksum is wrong twice.
    """
    if place.exists():
        return False
    place.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(2):
        published = _collect(url, place, attempts, timeout)
        if _is_right(_part(place), checksum or published):
            _part(place).replace(place)
            _note(place).unlink(missing_ok=True)
            return True
        log.warning("%s has a wrong checksum and is downloaded again", place)
        _discard(place)
    raise UserError(f"{url} has a wrong checksum after two downloads; try again later, or ask its owner")


def git_checksums(url: str, timeout: float = 60.0) -> dict[str, str]:
    """Checksums of all files of a GitHub repository by path, for `fetch`.

    Args:
        url: of GitHub's tree API, ``.../git/trees/<branch>?recursive=1``.
        timeout: seconds without data after which a connection counts as broken.

    Raises:
        UserError: if they cannot be downloaded.
    """
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            tree = json.load(answer)["tree"]
        return {row["path"]: f"git:{row['sha']}" for row in tree if row["type"] == "blob"}
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException) as error:
        raise UserError(f"{url} cannot be read ({error}); try again later") from None


def _collect(url: str, place: Path, attempts: int, timeout: float) -> str | None:
    """Downloads until the part is complete; returns the published checksum, if any."""
    failures = 0
    while True:
        before = _size(_part(place))
        try:
            return _continue(url, place, timeout)
        except _Broken as error:
            failures = 0 if _size(_part(place)) > before else failures + 1
            if failures >= attempts:
                raise UserError(f"{url} cannot be downloaded ({error}); run the command again to resume") from None
            time.sleep(min(2.0**failures - 1, 30.0) * min(1.0, timeout))


def _continue(url: str, place: Path, timeout: float) -> str | None:
    """Downloads the rest of the part over one connection; if nothing is missing, the server answers 416."""
    part, redirects = _part(place), _Redirects()
    headers = {"Accept-Encoding": "identity", "User-Agent": "dmseg"}
    if have := _size(part):  # the rest, provided that the server's file is still the same
        tag = _note(place).read_text() if _note(place).exists() else ""
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": tag} if tag else {})
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.build_opener(redirects).open(request, timeout=timeout) as answer:
            total = _begin(answer, place)
            with part.open("ab") as file:
                while chunk := answer.read1(CHUNK):
                    file.write(chunk)
            if total is not None and _size(part) != total:
                raise _Broken(f"{_size(part)} of {total} bytes arrived")
            return _linked(redirects.linked or answer.headers.get("X-Linked-Etag"))
    except urllib.error.HTTPError as error:
        if error.code == 416:
            if error.headers.get("Content-Range", "").endswith(f"*/{_size(part)}"):
                return _linked(redirects.linked or error.headers.get("X-Linked-Etag"))
            _discard(place)
        elif error.code not in RETRIED:
            raise UserError(f"{url} was refused ({error.code} {error.reason}); check the address") from None
        raise _Broken(f"{error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(str(error) or type(error).__name__) from None


def _begin(answer: Any, place: Path) -> int | None:  # noqa: ANN401
    """Prepares the part for a response: keeps it if the rest follows, else discards it. Returns the total size."""
    length = answer.headers.get("Content-Length")
    have = _size(_part(place))
    if answer.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != have:
            _discard(place)
            raise _Broken("the server sent a different range from the one requested")
        return None if found[2] == "*" else int(found[2])
    _discard(place)
    tag = answer.headers.get("ETag", "")
    if tag.startswith('"'):
        write_whole(_note(place), tag)
    return None if length is None else int(length)


def _is_right(path: Path, checksum: str | None) -> bool:
    if checksum is None:
        return True
    kind, _, expected = checksum.partition(":")
    digest = hashlib.sha256() if kind == "sha256" else hashlib.sha1(f"blob {_size(path)}\0".encode())
    with path.open("rb") as file:
        hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest() == expected.lower()


def _linked(tag: str | None) -> str | None:
    """The checksum in a Hugging Face tag, which is the SHA-256 for large files."""
    found = re.fullmatch(r'"?([0-9a-f]{64})"?', tag or "")
    return None if found is None else f"sha256:{found[1]}"


def _part(place: Path) -> Path:
    return place.with_name(place.name + ".part")


def _note(place: Path) -> Path:
    """Path of the file with the server's tag of the file being downloaded."""
    return place.with_name(place.name + ".part.tag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _discard(place: Path) -> None:
    _part(place).unlink(missing_ok=True)
    _note(place).unlink(missing_ok=True)
