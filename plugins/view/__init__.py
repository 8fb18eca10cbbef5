"""`selfloop view`: a local web page over all runs.

library.py  the runs in a folder: listed, searched, how far each is
server.py   the pages, for this machine's own browser alone

Only the command is here, so that listing plugins imports no server.
"""

from pathlib import Path

import click

from selfloop import hookimpl
from selfloop.cli.options import FilePath, runs_dir

PORT = 8765


@click.command("view")
@click.argument("folder", metavar="[RUNS]", required=False, type=FilePath(path_type=Path))
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=PORT,
    show_default=True,
    help="0 takes any free one.",
)
@click.option("--open", "show", is_flag=True, help="Show the page in the browser.")
@runs_dir
def view(folder: Path | None, port: int, show: bool, runs: Path) -> None:
    """Show all runs on a local page in the browser.

    Search all runs in RUNS (by default --runs), follow a question through the rounds, watch a run
    at work. The page is for this machine alone, and changes nothing. Ctrl-C ends it. Needs the
    extra `view`.

    \b
    Example:
      selfloop view --open
    """
    from .server import serve

    serve(folder or runs, port, show=show)


@hookimpl
def selfloop_commands() -> list[click.Command]:
    """Offer `view`."""
    return [view]
