"""Speaks to a demo as a program does that was not written by us: raw requests, forged values."""

from __future__ import annotations

import http.client
import json
import secrets
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, urlsplit


class Client:
    """A session of its own with one demo of a server."""

    def __init__(self, url: str, slug: str) -> None:
        self.address, self.base = urlsplit(url).netloc, f"/demo/{slug}"
        self.session = secrets.token_hex(5)

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        """Status and body of the answer; `path` starts at the demo, `//` at the server."""
        connection = http.client.HTTPConnection(self.address, timeout=120)
        place = path[1:] if path.startswith("//") else self.base + path
        try:
            connection.request(method, place, body, {key.replace("_", "-"): value for key, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def config(self) -> dict[str, Any]:
        """What the page is built from."""
        found: dict[str, Any] = json.loads(self.request("GET", "/config")[1])
        return found

    def press(self, button: str, data: list[Any]) -> dict[str, Any]:
        """Press a button with any values; returns the last message: `success`, `output`."""
        status, answer = self._post("/gradio_api/queue/join", button, data)
        if status != 200:
            return {"success": False, "status": status, "output": {"error": answer.decode()}}
        return next(message for message in self.messages() if message["msg"] == "process_completed")

    def press_at_once(self, button: str, data: list[Any]) -> list[Any]:
        """Press a button whose handler needs no queue; returns its outputs."""
        status, answer = self._post("/gradio_api/run/predict", button, data)
        assert status == 200, answer
        outputs: list[Any] = json.loads(answer)["data"]
        return outputs

    def _post(self, place: str, button: str, data: list[Any]) -> tuple[int, bytes]:
        config = self.config()
        ids = [part["id"] for part in config["components"] if part["props"].get("value") == button]
        index = next(d["id"] for d in config["dependencies"] if any(t[0] in ids for t in d["targets"]))
        body = json.dumps({"data": data, "fn_index": index, "session_hash": self.session, "trigger_id": ids[0]})
        return self.request("POST", place, body, Content_Type="application/json")

    def messages(self) -> Iterator[dict[str, Any]]:
        """What the server tells this session."""
        connection = http.client.HTTPConnection(self.address, timeout=120)
        connection.request("GET", f"{self.base}/gradio_api/queue/data?session_hash={self.session}")
        answer = connection.getresponse()
        try:
            while line := answer.readline():
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])
        finally:
            connection.close()

    def upload(self, name: str, content: bytes | Iterable[bytes]) -> tuple[int, str]:
        """Status, and the path that the server gave the file (or its complaint)."""
        head = (
            f'--line\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        parts = [content] if isinstance(content, bytes) else content
        body = (part for group in ([head], parts, [b"\r\n--line--\r\n"]) for part in group)
        status, answer = self.request("POST", "/gradio_api/upload", body, Content_Type="multipart/form-data; boundary=line")
        return status, json.loads(answer)[0] if status == 200 else answer.decode()

    def file(self, path: str) -> int:
        """Status of an attempt to be served a file."""
        return self.request("GET", f"/gradio_api/file={quote(path)}")[0]


def as_file(path: str) -> dict[str, Any]:
    """A file field's value as the page would send it."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": path.rpartition("/")[2]}
