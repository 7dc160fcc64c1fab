"""The server: answers with the hub's page at once, imports gradio after that, builds a demo when its page is first asked for.

Every demo is a gradio application of its own below `/demo/NAME/`; they share the work folder, the limits and the line of
jobs (`mixtura_demos.shared`). The files of a session go when its page is closed, everything goes when the server ends.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn

from mixtura.errors import MixturaError
from mixtura_demos import hub
from mixtura_demos.guard import LOOPBACK, App, Guard, Receive, Scope, Send, answer
from mixtura_demos.shared import work
from mixtura_demos.shared.limits import LIMITS

if TYPE_CHECKING:
    import gradio as gr

Say = Callable[[str], None]
PORT = 7860
TRIED_PORTS = 20
ASSETS = {"/hub.css": "text/css", "/hub.js": "text/javascript"}
LAST_ASSET = "/hub.js"
PATIENCE = 2.0
"""Seconds until gradio is imported although nobody has opened the page."""
QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SSR_MODE": "False",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_RUN_HISTORY": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
}


class Demo:
    """One demo: built when first asked for, tried again after a failure. Lives in the server's event loop."""

    def __init__(self, entry: hub.Entry, run: Path | None) -> None:
        self.entry, self.run = entry, run
        self._app: App | None = None
        self._opening = asyncio.Lock()
        self._closing = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request below the demo's path."""
        try:
            app = await self._opened()
        except hub.BrokenDemo as error:
            await answer(send, 500, hub.error_page(self.entry.title, str(error)), "text/html")
            return
        await app(scope, receive, send)

    async def _opened(self) -> App:
        async with self._opening:
            if self._app is None:
                app = await asyncio.to_thread(self._build)
                ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._keeper = asyncio.create_task(self._keep(app, ready))
                await ready
                self._app = app
            return self._app

    def _build(self) -> Any:
        """The demo as an application that is mounted at its path."""
        import fastapi
        import gradio as gr

        from mixtura_demos.shared import look, uploads

        uploads.bound_pillow()
        blocks = hub.build(self.entry, self.run)
        _prepare(blocks)
        parent = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        path = f"/demo/{self.entry.slug}"
        gr.mount_gradio_app(
            parent,
            blocks,
            path,
            root_path=path,  # else handlers outside of the queue give their files addresses without it
            app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
            max_file_size=LIMITS.bytes,
            theme=look.theme(),
            css=look.CSS,
            head=look.HEAD,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            mcp_server=False,
        )
        # a mounted demo counts as not launched, and gradio then checks no paths that clients send
        blocks.has_launched = blocks.is_running = True
        return parent

    async def _keep(self, app: Any, ready: asyncio.Future[None]) -> None:
        """Hold the application's lifespan open, in one task from beginning to end."""
        try:
            async with app.router.lifespan_context(app):
                ready.set_result(None)
                await self._closing.wait()
        except Exception as error:
            if not ready.done():
                ready.set_exception(hub.BrokenDemo(f"'{self.entry.name}' can't be started: {error}"))

    async def close(self) -> None:
        """End the application's background tasks."""
        self._closing.set()
        if self._keeper is not None:
            await self._keeper


def _prepare(blocks: gr.Blocks) -> None:
    """What the hub sets for every demo: its queue, and that a session's jobs and files end with its page."""
    import gradio as gr

    from mixtura_demos.shared import jobs

    def leave(request: gr.Request) -> None:
        jobs.stop_session(request.session_hash or "")
        work.end_session(request.session_hash or "")

    # gradio reads the annotation at run time, where this module's names alone are known
    leave.__annotations__["request"] = gr.Request
    with blocks:
        blocks.unload(leave)
    for event in blocks.fns.values():
        event.api_visibility = "private"
    blocks.queue(max_size=32, api_open=False, default_concurrency_limit=8)


class Hub:
    """The whole application: the hub's page, its two assets, and the demos."""

    def __init__(self, entries: list[hub.Entry], run: Path | None) -> None:
        self.entries, self.run = entries, run
        self.page = hub.page(entries)
        self.demos = {entry.slug: Demo(entry, run) for entry in entries}
        self._is_warming = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._route(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path == "/":
            await answer(send, 200, self.page, "text/html")
        elif path in ASSETS:
            await answer(send, 200, (hub.HERE / path[1:]).read_text(), ASSETS[path])
            if path == LAST_ASSET:
                self._warm_up()
        elif path == "/demos":
            await answer(send, 200, json.dumps(hub.facts(self.entries)), "application/json")
        elif demo := self.demos.get(path.removeprefix("/demo/").partition("/")[0] if path.startswith("/demo/") else ""):
            await demo(scope, receive, send)
        else:
            await answer(send, 404, "There is nothing here; the hub is at /.")

    async def _live(self, receive: Receive, send: Send) -> None:
        """Startup and shutdown."""
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                asyncio.get_running_loop().call_later(PATIENCE, self._warm_up)
                await send({"type": "lifespan.startup.complete"})
            else:
                for demo in self.demos.values():
                    await demo.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def _warm_up(self) -> None:
        """Import gradio while the user looks at the hub's page, once, and not before that page is drawn."""
        if not self._is_warming:
            self._is_warming = True
            threading.Thread(target=_import_gradio, daemon=True).start()


def _import_gradio() -> None:
    """What fails here is told by the demo that needs it."""
    try:
        import gradio  # noqa: F401
    except ImportError:
        return


def bind(host: str, port: int | None) -> socket.socket:
    """A listening socket: `port`, or the first free one from 7860 on. Raises MixturaError."""
    last: OSError | None = None
    for number in [port] if port is not None else range(PORT, PORT + TRIED_PORTS):
        try:
            family, *_, address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
            listening = socket.socket(family, socket.SOCK_STREAM)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listening.bind(address)
                listening.listen(128)  # who comes early waits until the server is there
            except OSError:
                listening.close()
                raise
            return listening
        except (OSError, OverflowError) as error:
            last = error if isinstance(error, OSError) else OSError(str(error))
    where = f"port {port}" if port is not None else f"ports {PORT} to {PORT + TRIED_PORTS - 1}"
    raise MixturaError(f"can't listen on {host}, {where} ({last}); give another --port (0: any free one) or --host")


def make_app(only: str | None, run: Path | None, host: str) -> Guard:
    """The application as it is served."""
    os.environ.update(QUIET)
    work.root()  # before gradio is imported, which else makes a folder of its own
    is_local = host in LOOPBACK
    return Guard(Hub(hub.entries(only), run), LIMITS.bytes, LOOPBACK if is_local else None)


def serve(only: str | None, run: Path | None, host: str, port: int | None, say: Say) -> None:
    """Serve the hub, or the demo called `only`, until stopped. Raises MixturaError."""
    app = make_app(only, run, host)
    listening = bind(host, port)
    shown = f"[{host}]" if ":" in host else host
    if host not in LOOPBACK:
        say(f"warning: {host} lets other machines in; whoever reaches it can use the demos, there is no password")
    say(f"demos at http://{shown}:{listening.getsockname()[1]}/ (end with Ctrl+C)")
    try:
        make_server(app).run(sockets=[listening])
    finally:
        end()


class Server(uvicorn.Server):
    """uvicorn, silent about the requests of open pages that its end cuts off."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close connections; what still runs after the grace is cancelled."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        await super().shutdown(sockets)


def make_server(app: App) -> Server:
    """The server as we use it: one process, no access log, open pages don't hold up the end."""
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, ws="none", timeout_graceful_shutdown=2, lifespan="on"
    )
    return Server(config)


def end() -> None:
    """Cancel what runs and remove what was written."""
    if "mixtura_demos.shared.jobs" in sys.modules:  # else no demo was opened
        sys.modules["mixtura_demos.shared.jobs"].stop_all()
    work.remove_all()
