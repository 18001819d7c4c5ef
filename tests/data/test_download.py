"""Downloads against a server on loopback that breaks, stalls, lies and redirects."""

import hashlib
import json
import runpy
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from dmseg.data.download import fetch, git_checksums
from dmseg.errors import UserError

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
GIT = f"git:{hashlib.sha1(f'blob {len(CONTENT)}'.encode() + bytes(1) + CONTENT).hexdigest()}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        site = self.server.site
        site.requests.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        if self.path in site.redirects:
            self.send_response(302)
            self.send_header("Location", site.redirects[self.path])
            self.send_header("X-Linked-Etag", f'"{SHA256[7:]}"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.path not in site.files:
            self.send_error(404)
            return
        if site.statuses:
            self.send_error(site.statuses.pop(0))
            return
        self._send(site.files[self.path], site)

    def _send(self, content, site):
        start = 0
        wanted = self.headers.get("Range")
        if wanted and site.ranges and self.headers.get("If-Range") in (None, site.tag):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("ETag", site.tag)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        piece = site.pieces.pop(0) if site.pieces else len(content)
        self.wfile.write(content[start : start + piece])
        self.wfile.flush()
        if start + piece < len(content):
            time.sleep(site.stall)
            self.close_connection = True


class Site:
    def __init__(self, server):
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        self.files = {"/file": CONTENT}
        self.redirects, self.requests, self.pieces, self.statuses = {}, [], [], []
        self.tag, self.ranges, self.stall = '"one"', True, 0.0


@pytest.fixture
def site():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.site = Site(server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server.site
    server.shutdown()
    server.server_close()


def get(site, place, checksum=SHA256, **options):
    return fetch(f"{site.url}/file", place, checksum, **{"timeout": 0.5, "attempts": 3, **options})


def starts(site):
    return [int((wanted or "bytes=0-")[6:-1]) for _, wanted, _ in site.requests]


@pytest.mark.parametrize("checksum", [None, SHA256, GIT])
def test_a_file_arrives_once_whole_and_without_leftovers(tmp_path, site, checksum):
    assert get(site, tmp_path / "a/file", checksum)
    assert (tmp_path / "a/file").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]
    assert not get(site, tmp_path / "a/file", checksum)
    assert len(site.requests) == 1


def test_broken_connections_are_gone_on_with(tmp_path, site):
    site.pieces = [100_000, 50_000, 1]
    assert get(site, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert starts(site) == [0, 100_000, 150_000, 150_001]


def test_a_stalling_connection_counts_as_broken(tmp_path, site):
    site.pieces, site.stall = [200_000], 5.0
    begun = time.monotonic()
    assert get(site, tmp_path / "file")
    assert time.monotonic() - begun < 4
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_later_call_goes_on(tmp_path, site):
    site.pieces = [100_000, 0, 0, 0, 0]
    with pytest.raises(
        UserError, match=r"/file cannot be downloaded \(100000 of 300000 bytes arrived\); run the command again"
    ):
        get(site, tmp_path / "file")
    assert not (tmp_path / "file").exists()
    site.pieces, site.requests = [], []
    assert get(site, tmp_path / "file")
    assert starts(site) == [100_000]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_is_begun_anew(tmp_path, site):
    site.pieces = [100_000, 0, 0, 0]
    with pytest.raises(UserError):
        get(site, tmp_path / "file")
    site.files["/file"], site.tag, site.pieces = CONTENT[::-1], '"two"', []
    assert get(site, tmp_path / "file", None)
    assert (tmp_path / "file").read_bytes() == CONTENT[::-1]


def test_a_server_without_ranges_is_begun_anew(tmp_path, site):
    site.ranges, site.pieces = False, [100_000]
    assert get(site, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_busy_servers_are_asked_again_and_refusals_are_not(tmp_path, site):
    site.statuses = [503, 429]
    assert get(site, tmp_path / "file")
    with pytest.raises(UserError, match=r"/none was refused \(404"):
        fetch(f"{site.url}/none", tmp_path / "none")
    assert len(site.requests) == 4


def test_a_wrong_checksum_never_gets_the_name(tmp_path, site):
    with pytest.raises(UserError, match="wrong checksum"):
        get(site, tmp_path / "file", f"sha256:{'0' * 64}")
    assert list(tmp_path.iterdir()) == []
    assert starts(site) == [0, 0]


def test_a_damaged_part_is_found_by_the_checksum(tmp_path, site):
    (tmp_path / "file.part").write_bytes(b"x" * 1000)
    assert get(site, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert starts(site) == [1000, 0]


@pytest.mark.parametrize("surplus", [0, 5])
def test_a_part_that_is_whole_is_not_got_again_and_a_longer_one_is(tmp_path, site, surplus):
    (tmp_path / "file.part").write_bytes(CONTENT + bytes(surplus))
    assert get(site, tmp_path / "file", None)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert starts(site) == ([300_000] if surplus == 0 else [300_005, 0])


def test_the_checksum_that_comes_with_a_redirect_is_checked(tmp_path, site):
    site.redirects["/file"] = f"{site.url}/elsewhere"
    site.files["/elsewhere"] = CONTENT
    assert get(site, tmp_path / "file", None)
    site.files["/elsewhere"] = CONTENT[::-1]
    with pytest.raises(UserError, match="wrong checksum"):
        get(site, tmp_path / "other", None)


def test_kits_is_downloaded_into_the_adapters_layout(tmp_path, site):
    tree = []
    for number in range(3):
        site.files[f"/data/case_{number:05d}/segmentation.nii.gz"] = CONTENT[number:]
        site.files[f"/images/case_{number:05d}.nii.gz"] = CONTENT[: -1 - number]
        blob = CONTENT[number:]
        sha = hashlib.sha1(f"blob {len(blob)}".encode() + bytes(1) + blob).hexdigest()
        tree.append({"path": f"data/case_{number:05d}/segmentation.nii.gz", "type": "blob", "sha": sha})
    site.files["/tree"] = json.dumps({"tree": [*tree, {"path": "data", "type": "tree", "sha": "0"}]}).encode()
    assert len(git_checksums(f"{site.url}/tree")) == 3
    del site.files["/images/case_00001.nii.gz"]
    main = runpy.run_path(str(Path(__file__).parents[2] / "scripts/download_kits.py"))["main"]
    words = [str(tmp_path), "--last", "2", "--timeout", "0.5", "--labels-url", f"{site.url}/data"]
    words += ["--images-url", f"{site.url}/images", "--checksums-url", f"{site.url}/tree"]
    assert main(words) == 1
    assert len(list(tmp_path.rglob("*.nii.gz"))) == 5
    site.files["/images/case_00001.nii.gz"] = CONTENT
    site.requests.clear()
    assert main(words) == 0
    assert [path for path, _, _ in site.requests] == ["/tree", "/images/case_00001.nii.gz"]
    assert (tmp_path / "case_00002/segmentation.nii.gz").read_bytes() == CONTENT[2:]
    site.files["/data/case_00000/segmentation.nii.gz"] = b"something else"
    (tmp_path / "case_00000/segmentation.nii.gz").unlink()
    assert main([*words, "--labels-only"]) == 1
