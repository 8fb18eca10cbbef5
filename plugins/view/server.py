"""The pages of `selfloop view`: read-only, and on the loopback address.

Nothing that a model wrote runs as code: templates escape it, and a policy forbids other scripts.
"""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from selfloop_plugins.report._packages import require_packages
from selfloop_plugins.report.page import render_page

from selfloop.errors import MissingExtraError, RecipeError, SelfloopError, StoreError
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
# in the order of the search form
DECISIONS = ("belief", "undecided", "declined", "failed", "dropped")


def serve(root: Path, port: int, *, show: bool) -> None:
    """Serve the runs in `root` until Ctrl-C.

    Raises MissingExtraError without the packages of the extras `view` and `report`, StoreError for
    a folder that does not exist, RecipeError for a port that is taken.
    """
    require_packages("selfloop view")
    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtraError("uvicorn", "view", "selfloop view") from error
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
    """Return a socket that listens on a port of the loopback address, 0 for any free one."""
    # bound here and not by uvicorn: so a port that is taken is one clear error, and the address is
    # known before the server starts
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        raise RecipeError(
            f"cannot listen on {HOST}:{port}: {error.strerror}. Take another with --port; 0 is "
            "any free one."
        ) from error
    listening.listen()
    return listening


def application(library: Library) -> "Starlette":
    """Return the web application over a library. Raises MissingExtraError without starlette."""
    try:
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from starlette.responses import HTMLResponse, JSONResponse
        from starlette.routing import Route
    except ImportError as error:
        raise MissingExtraError("starlette", "view", "selfloop view") from error

    def error_page(text: str, status: int) -> "Response":
        return HTMLResponse(
            render_page("wrong.html", "none.js", "view", text=text), status, HEADERS
        )

    def for_run(respond: Callable[[str], "Response"]) -> "Callable[[Request], Response]":
        """Return a handler of requests about one run, by a function of its name.

        It answers with an error page for a run that does not exist, or cannot be read.
        """

        def handle(request: "Request") -> "Response":
            name = request.path_params["name"]
            # only names of the list: a path such as ".." is not one
            if name not in library.names():
                return error_page(f"There is no run {name} here.", 404)
            try:
                return respond(name)
            except SelfloopError as error:
                return error_page(str(error), 500)

        return handle

    def run_page(name: str) -> "Response":
        return HTMLResponse(library.page(name), headers=HEADERS)

    def now(name: str) -> "Response":
        return JSONResponse(library.now(name), headers=HEADERS)

    def runs(request: "Request") -> "Response":
        text = request.query_params.get("text", "")
        decision = request.query_params.get("decision", "")
        is_search = bool(text or decision in DECISIONS)
        page = render_page(
            "runs.html",
            "none.js",
            "view",
            runs=library.listed(),
            hits=library.search(text, decision) if is_search else [],
            text=text,
            decision=decision,
            kinds=DECISIONS,
            searched=is_search,
            most=HITS,
        )
        return HTMLResponse(page, headers=HEADERS)

    async def not_found(request: "Request", error: Exception) -> "Response":
        return error_page("There is no such page here.", 404)

    return Starlette(
        routes=[
            Route("/", runs),
            Route("/run/{name}", for_run(run_page)),
            Route("/run/{name}/now", for_run(now)),
        ],
        # a page elsewhere that has its own name point here must not read the runs
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])],
        exception_handlers={404: not_found},
    )
