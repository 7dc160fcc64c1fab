"""What stands before every request: who may ask, how much may be sent, and that nothing outside is fetched.

gradio has limits of its own (size of an upload, folders that are served); these hold for every demo, whatever it does.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

from mixtura_demos.names import HostileName, NameReader
from mixtura_demos.shared import work

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
JSON_BYTES = 8 * 2**20
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'; base-uri 'self'"
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}
EXTRA = [(name.encode(), value.encode()) for name, value in HEADERS.items()]


class TooLarge(Exception):
    """More was sent than is taken."""


class Outside(Exception):
    """A request names a file that lies on another server."""


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
        limit = self.upload_bytes if is_upload else JSON_BYTES
        names = NameReader(headers.get(b"content-type", b"")) if is_upload else None
        exchange = Exchange(receive, send, limit, names)
        try:
            checked = exchange.receive if is_upload or scope["method"] != "POST" else await _checked(exchange.receive)
            await self.app(scope, checked, exchange.send)
        except (TooLarge, Outside, HostileName) as error:
            await exchange.refuse(error)
        except Exception:
            if exchange.refused is None:
                raise  # else the application only passes on what we raised into it

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
        limit = self.upload_bytes if is_upload else JSON_BYTES
        if not length.isdigit() or int(length) > limit:
            return 413, too_large(limit)
        return None


def too_large(limit: int) -> str:
    """The sentence that refuses what is too large."""
    return f"This is larger than {limit // 2**20} MiB; give a smaller file."


def _host(text: str) -> str:
    """`[::1]:7860`, `localhost:7860` without the port."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.rpartition(":")[0] if ":" in text else text


class Exchange:
    """One request and its response: counts what comes in, reads nothing past the limit, adds headers to what goes out."""

    def __init__(self, receive: Receive, send: Send, limit: int, names: NameReader | None) -> None:
        self._receive, self._send, self._limit, self._names = receive, send, limit, names
        self._seen = 0
        self._answered = b""
        self._started = False
        self.refused: Exception | None = None

    async def receive(self) -> MutableMapping[str, Any]:
        """The next part of the request. Raises TooLarge, HostileName."""
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        if self._seen > self._limit:
            await self.refuse(TooLarge(too_large(self._limit)))
            raise TooLarge
        try:
            if self._names is not None:
                self._names.read(message.get("body", b""))
        except HostileName as error:
            await self.refuse(error)
            raise
        return message

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """The next part of the response; nothing of the application's once the request was refused."""
        if self.refused is not None:
            return
        if message["type"] == "http.response.start":
            self._started = True
            message = {**message, "headers": [*message.get("headers", []), *EXTRA]}
        elif self._names is not None:
            self._note_uploads(message)
        await self._send(message)

    def _note_uploads(self, message: MutableMapping[str, Any]) -> None:
        """An upload is answered with the places of its files: they go when no session uses them any more."""
        self._answered += message.get("body", b"")
        if not message.get("more_body"):
            places = _json(self._answered)
            for place in places if isinstance(places, list) else []:
                work.note_upload(str(place))

    async def refuse(self, error: Exception) -> None:
        """Answer with the error, unless an answer has begun."""
        if self.refused is None and not self._started:
            await answer(self._send, 413 if isinstance(error, TooLarge) else 400, str(error))
        self.refused = self.refused or error


async def _checked(receive: Receive) -> Receive:
    """Read a small JSON body, refuse files elsewhere in it, and hand it on as it came."""
    messages: list[MutableMapping[str, Any]] = []
    while True:
        messages.append(await receive())
        if messages[-1]["type"] != "http.request" or not messages[-1].get("more_body"):
            break
    content = _json(b"".join(message.get("body", b"") for message in messages))
    _look_through(content, str(content.get("session_hash", "")) if isinstance(content, dict) else "")

    async def replay() -> MutableMapping[str, Any]:
        return messages.pop(0) if messages else await receive()

    return replay


def _json(body: bytes) -> Any:
    """What the JSON says; None for what is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _look_through(content: Any, session: str) -> None:
    """Raise Outside for {"path": "http://…"} anywhere: gradio would fetch it. Other paths count as used by the session."""
    waiting = [content]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            path = item.get("path")
            if isinstance(path, str):
                if "://" in path:
                    raise Outside("Files must be uploaded; this server fetches nothing from elsewhere.")
                work.note_use(session, path)
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


async def answer(send: Send, status: int, text: str, kind: str = "text/plain") -> None:
    """A whole response."""
    body = text.encode()
    kinds = [(b"content-type", f"{kind}; charset=utf-8".encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": kinds})
    await send({"type": "http.response.body", "body": body})
