"""What stands before every request: who may ask, how much may be sent, and that nothing outside is fetched.

gradio has limits of its own (size of an upload, folders that are served); these hold for every demo, whatever it does.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
FORM_EXTRA = 64 * 1024
JSON_BYTES = 8 * 2**20
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'; base-uri 'self'"
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}


class TooLarge(Exception):
    """More was sent than is taken."""


class Guard:
    """An ASGI application around another one; `hosts` are the names this server answers to (None: any)."""

    def __init__(self, app: App, upload_bytes: int, hosts: tuple[str, ...] | None) -> None:
        self.app, self.upload_bytes, self.hosts = app, upload_bytes, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with an error, or pass on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await answer(send, *refusal)
            return
        is_upload = scope["path"].rstrip("/").endswith("/upload")
        limit = self.upload_bytes + FORM_EXTRA if is_upload else JSON_BYTES
        receive, send = _bounded(receive, limit), _with_headers(send)
        try:
            if scope["method"] == "POST" and not is_upload:
                receive = await _checked(receive)
            await self.app(scope, receive, send)
        except TooLarge:
            await answer(send, 413, too_large(limit))
        except Outside as error:
            await answer(send, 400, str(error))

    def _refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        """Status and text of an error that the head of the request shows."""
        host = _host(headers.get(b"host", b"").decode("latin-1"))
        if self.hosts is not None and host not in self.hosts:
            return 403, f"This server answers to {', '.join(self.hosts)} only."
        path = unquote(scope["path"])
        if "/gradio_api/proxy=" in path or "://" in path.partition("/gradio_api/file=")[2]:
            return 403, "This server fetches nothing from elsewhere."
        length = headers.get(b"content-length", b"0")
        is_upload = path.rstrip("/").endswith("/upload")
        limit = self.upload_bytes + FORM_EXTRA if is_upload else JSON_BYTES
        if not length.isdigit() or int(length) > limit:
            return 413, too_large(limit)
        return None


class Outside(Exception):
    """A request names a file that lies on another server."""


def too_large(limit: int) -> str:
    """The sentence that refuses what is too large."""
    return f"This is larger than {limit // 2**20} MiB; give a smaller file."


def _host(text: str) -> str:
    """`[::1]:7860`, `localhost:7860` without the port."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.rpartition(":")[0] if ":" in text else text


def _bounded(receive: Receive, limit: int) -> Receive:
    """Counts what comes in; nothing past the limit is read."""
    seen = 0

    async def counting() -> MutableMapping[str, Any]:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise TooLarge
        return message

    return counting


async def _checked(receive: Receive) -> Receive:
    """Read a small JSON body, refuse files elsewhere in it, and hand it on as it came."""
    messages: list[MutableMapping[str, Any]] = []
    while True:
        messages.append(await receive())
        if messages[-1]["type"] != "http.request" or not messages[-1].get("more_body"):
            break
    body = b"".join(message.get("body", b"") for message in messages)
    try:
        content = json.loads(body) if body else None
    except ValueError:
        content = None
    _look_for_elsewhere(content)

    async def replay() -> MutableMapping[str, Any]:
        return messages.pop(0) if messages else await receive()

    return replay


def _look_for_elsewhere(content: Any) -> None:
    """Raise Outside for {"path": "http://…"} anywhere: gradio would fetch it."""
    waiting = [content]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            path = item.get("path")
            if isinstance(path, str) and "://" in path:
                raise Outside("Files must be uploaded; this server fetches nothing from elsewhere.")
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def _with_headers(send: Send) -> Send:
    async def adding(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*message.get("headers", []), *extra]}
        await send(message)

    return adding


async def answer(send: Send, status: int, text: str, kind: str = "text/plain") -> None:
    """A whole response."""
    body = text.encode()
    headers = [(b"content-type", f"{kind}; charset=utf-8".encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
