"""A Hugging Face Hub on loopback: creates repositories, takes commits with LFS uploads, gives files back.

It speaks as much of the protocol as huggingface_hub needs for `create_repo`, `model_info`, `upload_folder` and
`snapshot_download`, checks the token and the hashes of what is uploaded, and can be told to fail.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

TOKEN = "hf_test"
_MODEL = r"/api/models/(?P<repo>[^/]+/[^/]+)"


@dataclass
class Repository:
    private: bool
    commits: list[dict[str, bytes]] = field(default_factory=list)
    """Files after each commit."""

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1] if self.commits else {}

    @property
    def sha(self) -> str:
        return hashlib.sha1(str(len(self.commits)).encode()).hexdigest()


class HubServer:
    """Attributes: repositories by id; `requests` as (method, path); `fail` maps a step to the status it answers."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.fail: dict[str, int] = {}
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.address = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        path, body = self._begin()
        if not self._authorised():
            return self._json({"error": "Invalid username or password."}, 401)
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if match := re.fullmatch(rf"{_MODEL}/preupload/main", path):
            files = [self._preupload(file) for file in json.loads(body)["files"]]
            return self._json({"files": files})
        if re.fullmatch(r"/[^/]+/[^/]+\.git/info/lfs/objects/batch", path):
            return self._json({"transfer": "basic", "objects": [self._lfs(one) for one in json.loads(body)["objects"]]})
        if match := re.fullmatch(rf"{_MODEL}/commit/main", path):
            return self._commit(match["repo"], body)
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        return self._json({"error": f"no {path}"}, 404)

    def do_PUT(self) -> None:
        path, body = self._begin()
        if self._failing("upload"):
            return
        oid = path.removeprefix("/lfs/")
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.blobs[oid] = body
        self._json({})

    def do_GET(self) -> None:
        path, _ = self._begin()
        match = re.fullmatch(rf"{_MODEL}(?:/(?:revision|tree)/(?P<revision>[^/]+))?", path)
        repository = self._repository(match["repo"]) if match else None
        if match is None:
            return self._serve(path)
        if repository is None or match["revision"] not in (None, "main", repository.sha):
            return self._missing("RepoNotFound" if repository is None else "RevisionNotFound")
        if "/tree/" in path:
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in repository.files.items()
            ]
            return self._json(entries)
        siblings = [{"rfilename": name} for name in repository.files]
        return self._json(
            {"id": match["repo"], "sha": repository.sha, "private": repository.private, "siblings": siblings}
        )

    def do_HEAD(self) -> None:
        path, _ = self._begin()
        self._serve(path)

    def _begin(self) -> tuple[str, bytes]:
        length = self.headers.get("Content-Length")
        if length is not None:
            body = self.rfile.read(int(length))
        else:
            body = self._chunks() if self.headers.get("Transfer-Encoding") == "chunked" else b""
        path = urlsplit(self.path).path
        self.hub.requests.append((self.command, path))
        return path, body

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _authorised(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repository(self, name: str) -> Repository | None:
        repository = self.hub.repositories.get(name)
        return None if repository and repository.private and not self._authorised() else repository

    def _create(self, request: dict[str, Any]) -> None:
        if self._failing("create"):
            return
        name = f"{request.get('organization') or 'me'}/{request['name']}"
        known = name in self.hub.repositories
        private = bool(request.get("private")) or request.get("visibility") == "private"
        self.hub.repositories.setdefault(name, Repository(private=private))
        self._json({"url": f"{self.hub.address}/{name}", "id": name, "name": name}, 409 if known else 200)

    def _preupload(self, file: dict[str, Any]) -> dict[str, Any]:
        large = file["path"].endswith(".safetensors")
        return {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": None}

    def _lfs(self, one: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = {"oid": one["oid"], "size": one["size"], "authenticated": True}
        if one["oid"] not in self.hub.blobs:  # what is there already is not asked for again
            answer["actions"] = {"upload": {"href": f"{self.hub.address}/lfs/{one['oid']}", "header": {}}}
        return answer

    def _commit(self, name: str, body: bytes) -> None:
        if self._failing("commit"):
            return
        repository = self.hub.repositories[name]
        files = dict(repository.files)
        for line in map(json.loads, body.decode().splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
        repository.commits.append(files)
        url = f"{self.hub.address}/{name}/commit/{repository.sha}"
        self._json({"success": True, "commitOid": repository.sha, "commitUrl": url, "hookOutput": ""})

    def _serve(self, path: str) -> None:
        match = re.fullmatch(r"/(?P<repo>[^/]+/[^/]+)/resolve/[^/]+/(?P<file>.+)", path)
        repository = self._repository(match["repo"]) if match else None
        if match is None or repository is None:
            return self._missing("RepoNotFound")
        data = repository.files.get(match["file"])
        if data is None:
            return self._missing("EntryNotFound")
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", repository.sha)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def _failing(self, step: str) -> bool:
        status = self.hub.fail.get(step)
        if status:
            self._json({"error": f"{step} is out of order"}, status)
        return bool(status)

    def _missing(self, code: str) -> None:
        self._json({"error": code}, 404, {"X-Error-Code": code})

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        for key, text in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(key, text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
