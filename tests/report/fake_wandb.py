"""A server on this machine that answers wandb's requests as far as sending a run needs, and can die at any of them."""

import gzip
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeServer:
    """Listens on a free port of the loopback device.

    Args:
        survives: number of requests after which it dies; None to live.
        hangs: whether it then stays silent instead of closing its port.
        status: status of all of its answers.
        knows: whether it knows the login.
    """

    def __init__(self, survives=None, hangs=False, status=200, knows=True):
        self.asked, self.upserts, self.history = [], [], {}
        self.survives, self.hangs, self.dead = survives, hangs, threading.Event()
        self.keys, self.knows = [], knows
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                self.answer("get", {})

            def do_PUT(self):
                self.body()
                self.answer("put", {})

            def do_POST(self):
                body = self.body()
                if self.path.endswith("/graphql"):
                    asked = json.loads(body)
                    named = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
                    name, variables = named[1] if named else "", asked.get("variables") or {}
                    self.answer(name, {"data": server.reply(name, variables)})
                    return
                if self.path.endswith("/file_stream"):
                    server.streamed(self.path.split("/")[-2], json.loads(body))
                    self.answer("file_stream", {"exitcode": None, "limits": {}})
                else:
                    self.answer("post", {})

            def body(self):
                data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

            def answer(self, name, node):
                server.asked.append(name)
                server.keys.append(self.headers.get("Authorization"))
                if server.survives is not None and len(server.asked) > server.survives:
                    server.die()
                if server.dead.is_set():
                    server.stopped.wait(30 if server.hangs else 0)
                    self.close_connection = True
                    return
                data = json.dumps(node).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass

        self.stopped = threading.Event()
        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def die(self):
        """Answers nothing any more; closes the port unless it hangs."""
        self.dead.set()
        if not self.hangs:
            threading.Thread(target=self.close, daemon=True).start()

    def close(self):
        self.stopped.set()
        self.http.shutdown()
        self.http.server_close()

    def streamed(self, run_id, node):
        """Keeps rows of the history by their offset, as wandb's server does."""
        part = node.get("files", {}).get("wandb-history.jsonl")
        if part:
            rows = self.history.setdefault(run_id, {})
            rows |= {part["offset"] + index: json.loads(line) for index, line in enumerate(part["content"])}

    def reply(self, name, variables):
        if name == "UpsertBucket":
            self.upserts.append(variables)
            project = {"id": "p", "name": variables.get("project"), "entity": {"id": "e", "name": "me"}}
            bucket = {"id": "r", "name": variables["name"], "displayName": "d", "config": "{}", "project": project}
            return {"upsertBucket": {"bucket": bucket | {"sweepName": None, "historyLineCount": 0}, "inserted": True}}
        if name == "CreateRunFiles":
            files = [{"name": item, "uploadUrl": f"{self.url}/up/{item}"} for item in variables["files"]]
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
        if name == "CreateArtifact":
            latest = {"latestArtifact": {"id": "a", "versionIndex": 0}}
            return {"createArtifact": {"artifact": {"id": "a", "state": "COMMITTED", "artifactSequence": latest}}}
        if name == "Viewer" and not self.knows:
            return {"viewer": None}
        if name == "Viewer":
            return {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}
        return {}
