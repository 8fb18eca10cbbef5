"""The pages of `selfloop view`: read-only, on the loopback address, with nothing that a model wrote run as code."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from selfloop_plugins.report.page import render

from selfloop.errors import MissingExtra, RecipeError, SelfloopError, StoreError
from selfloop.text.display import printable

from .library import HITS, Library

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

HOST = "127.0.0.1"
HEADERS = {
    # a page's own policy stands in the page, with its script's hash; this holds for whatever else
    # is answered
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
DECISIONS = ("belief", "undecided", "declined", "failed", "dropped")


def serve(root: Path, port: int, *, show: bool) -> None:
    """Serve the runs in `root` until Ctrl-C.

    Raises MissingExtra, and SelfloopError for a port that is taken.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtra("uvicorn", "view", "selfloop view") from error
    if not root.is_dir():
        raise StoreError(
            f"no folder {root}. Make a run with `selfloop run RECIPE`, or say where they are."
        )
    listening = _listening(port)
    url = f"http://{HOST}:{listening.getsockname()[1]}/"
    click.echo(f"{url}  ({printable(str(root))}; Ctrl-C ends it)")
    if show and click.launch(url):
        click.echo("no browser could be started here: open the address in one", err=True)
    server = uvicorn.Server(
        uvicorn.Config(application(Library(root)), log_level="warning", lifespan="off")
    )
    server.run([listening])


def _listening(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((HOST, port))
    except OSError as error:
        made.close()
        raise RecipeError(
            f"cannot listen on {HOST}:{port}: {error.strerror}. Take another with --port; 0 is "
            "any free one."
        ) from error
    made.listen()
    return made


def application(library: Library) -> "Starlette":
    """Return the web application over a library."""
    try:
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from starlette.responses import HTMLResponse, JSONResponse
        from starlette.routing import Route
    except ImportError as error:
        raise MissingExtra("starlette", "view", "selfloop view") from error

    def wrong(text: str, status: int) -> "Response":
        return HTMLResponse(render("wrong.html", "none.js", "view", text=text), status, HEADERS)

    def answered(about: Callable[[str], "Response"]) -> "Callable[[Request], Response]":
        """Return what answers a request about one run: a page that says so if it is none, or cannot be read."""

        def answer(request: "Request") -> "Response":
            name = request.path_params["name"]
            if name not in library.names():
                return wrong(f"There is no run {name} here.", 404)
            try:
                return about(name)
            except SelfloopError as error:
                return wrong(str(error), 500)

        return answer

    def run(name: str) -> "Response":
        return HTMLResponse(library.page(name), headers=HEADERS)

    def now(name: str) -> "Response":
        return JSONResponse(library.now(name), headers=HEADERS)

    def runs(request: "Request") -> "Response":
        text, decision = (
            request.query_params.get("text", ""),
            request.query_params.get("decision", ""),
        )
        searched = bool(text or decision in DECISIONS)
        hits = library.search(text, decision) if searched else []
        filled = {
            "text": text,
            "decision": decision,
            "kinds": DECISIONS,
            "searched": searched,
            "most": HITS,
        }
        made = render("runs.html", "none.js", "view", runs=library.listed(), hits=hits, **filled)
        return HTMLResponse(made, headers=HEADERS)

    async def lost(request: "Request", error: Exception) -> "Response":
        return wrong("There is no such page here.", 404)

    return Starlette(
        routes=[
            Route("/", runs),
            Route("/run/{name}", answered(run)),
            Route("/run/{name}/now", answered(now)),
        ],
        # a page elsewhere that has its own name point here must not read the runs
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])],
        exception_handlers={404: lost},
    )
