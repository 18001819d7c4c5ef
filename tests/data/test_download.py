"""The download of KiTS19 from a server on loopback that breaks connections, redirects and changes files."""

import hashlib
import json
import runpy
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

CONTENT = np.random.default_rng(0).bytes(300_000)
HUB = "/datasets/neheller/KiTS-Challenge-Imaging/resolve/main/images"


class Handler(BaseHTTPRequestHandler):
    """Answers as GitHub does for segmentations, and as Hugging Face does for images."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        site = self.server.site
        site.requests.append((self.command, self.path, self.headers.get("Range")))
        content = site.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{site.checksums.get(self.path) or hashlib.sha256(content).hexdigest()}"')
        self.end_headers()
        if self.command == "GET":
            piece = site.pieces.pop(0) if site.pieces else len(content)
            self.wfile.write(content[start : start + piece])
            self.close_connection = start + piece < len(content)


class Site:
    def __init__(self, server):
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        self.files, self.checksums, self.requests, self.pieces = {}, {}, [], []
        for number in range(3):
            self.files[f"/data/case_{number:05d}/segmentation.nii.gz"] = CONTENT[number:]
            self.files[f"{HUB}/case_{number:05d}.nii.gz"] = CONTENT[: -1 - number]
        labels = {path: content for path, content in self.files.items() if path.startswith("/data")}
        tree = [{"path": path[1:], "type": "blob", "sha": git_blob(content)} for path, content in labels.items()]
        self.files["/tree"] = json.dumps({"tree": [*tree, {"path": "data", "type": "tree", "sha": "0"}]}).encode()

    def paths(self):
        return [path for command, path, _ in self.requests if command == "GET"]


def git_blob(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.site = Site(server)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server.site
    server.shutdown()
    server.server_close()


def download(site, folder, *words):
    main = runpy.run_path(str(Path(__file__).parents[2] / "scripts/download_kits.py"))["main"]
    urls = ["--labels-url", f"{site.url}/data", "--checksums-url", f"{site.url}/tree", "--endpoint", site.url]
    return main([str(folder), "--last", "2", *urls, *words])


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


EXPECTED = {f"case_{number:05d}/segmentation.nii.gz": CONTENT[number:] for number in range(3)} | {
    f"case_{number:05d}/imaging.nii.gz": CONTENT[: -1 - number] for number in range(3)
}


def test_files_arrive_in_the_adapters_layout_and_are_not_downloaded_again(tmp_path, site):
    assert download(site, tmp_path) == 0
    assert files(tmp_path) == EXPECTED
    site.requests.clear()
    assert download(site, tmp_path) == 0
    assert site.paths() == ["/tree"]


def test_labels_alone(tmp_path, site):
    assert download(site, tmp_path, "--labels-only") == 0
    assert files(tmp_path) == {name: content for name, content in EXPECTED.items() if "segmentation" in name}


def test_a_missing_file_does_not_stop_the_others(tmp_path, site, caplog):
    hidden = site.files.pop(f"{HUB}/case_00001.nii.gz")
    assert download(site, tmp_path) == 1
    assert "1 cases are incomplete, first case_00001; run the command again to continue" in caplog.text
    assert len(files(tmp_path)) == 5
    site.files[f"{HUB}/case_00001.nii.gz"] = hidden
    site.requests.clear()
    assert download(site, tmp_path) == 0
    assert site.paths() == ["/tree", f"{HUB}/case_00001.nii.gz"]
    assert files(tmp_path) == EXPECTED


def test_broken_connections_are_resumed(tmp_path, site, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)
    assert download(site, tmp_path, "--labels-only") == 0
    site.pieces = [len(site.files["/tree"]), 100_000, 50_000]
    site.requests.clear()
    assert download(site, tmp_path) == 0
    assert files(tmp_path) == EXPECTED
    first = [wanted for command, path, wanted in site.requests if path.endswith("0.nii.gz") and command == "GET"]
    assert [wanted and wanted.rstrip("-") for wanted in first[1:]] == ["bytes=100000", "bytes=150000"]


@pytest.mark.parametrize("name", ["segmentation", "imaging"])
def test_a_file_with_a_wrong_checksum_is_refused(tmp_path, site, caplog, name):
    if name == "segmentation":
        site.files["/data/case_00000/segmentation.nii.gz"] = CONTENT[::-1]
    else:
        site.checksums[f"{HUB}/case_00000.nii.gz"] = "0" * 64
    assert download(site, tmp_path) == 1
    assert "case_00000.nii.gz has a wrong checksum" in caplog.text.replace("/segmentation", "")
    assert not (tmp_path / f"case_00000/{name}.nii.gz").exists()


def test_segmentations_are_not_checked_without_a_list(tmp_path, site, caplog):
    del site.files["/tree"]
    assert download(site, tmp_path, "--labels-only") == 0
    assert "the segmentations are not checked" in caplog.text
