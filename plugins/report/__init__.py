"""`selfloop report` and `selfloop compare`, and the observer `report`: runs as HTML pages.

In reading order:

run_summary.py   all that a report shows of a run, read from its folder
topics.py        the topics of its questions
figures.py       the figures; figure_style.py their style, as SVG in a page or as files
questions.py     every question as data for the page's script
page.py          the page of one run
comparison.py    several runs side by side
observer.py      the report that a run keeps up to date
_packages.py     the packages of the extra `report`
page/            templates, style and script

Only the commands and the hook are here, so that listing plugins imports no plotting library.
"""

from collections.abc import Sequence
from pathlib import Path

import click
from selfloop_plugins._shared.output import force_option, has_mark, refuse_taken

from selfloop import Component, hookimpl
from selfloop.cli.options import FilePath, as_json, complete_run, run_argument, run_folder, runs_dir
from selfloop.text.display import printable

from ._packages import require_packages
from .observer import Reporter

_open = click.option("--open", "show", is_flag=True, help="Show the page in the browser.")


@click.command("report")
@run_argument
@click.option(
    "--out",
    type=FilePath(dir_okay=False, path_type=Path),
    help="The page; by default RUN/report.html.",
)
@click.option(
    "--pictures",
    type=FilePath(file_okay=False, path_type=Path),
    help="Write each picture here too.",
)
@click.option(
    "--format",
    "suffix",
    type=click.Choice(["svg", "png"]),
    default="svg",
    show_default=True,
    help="Of these.",
)
@_open
@force_option
@runs_dir
def report(
    run: str,
    out: Path | None,
    pictures: Path | None,
    suffix: str,
    show: bool,
    force: bool,
    runs: Path,
) -> None:
    """Write a run as one HTML page, and say where it is.

    RUN is a folder, or a name in --runs.
    The page needs no network and may be sent to anybody. It can be made while the run goes on.
    Needs the extra `report`.

    \b
    Examples:
      selfloop report quickstart --open
      selfloop report quickstart --pictures pictures --format png
    """
    from selfloop.storage.run_folder import REPORT

    from .page import is_report, write_page
    from .run_summary import read_summary

    require_packages("selfloop report")
    folder = run_folder(run, runs)
    page = out or folder / REPORT
    refuse_taken(page, "report", force=force, ours=is_report)
    summary = read_summary(folder)
    if pictures:
        from .figures import figure_paths, is_figure

        for path in figure_paths(pictures, suffix):
            refuse_taken(
                path, "picture of a report", force=force, ours=is_figure, option="--pictures"
            )
    path = write_page(summary, page)
    if pictures:
        from .figures import save_all

        for figure in save_all(summary, pictures, suffix):
            click.echo(printable(str(figure)))
    _announce(path, show)


@click.command("compare")
@click.argument("names", metavar="RUN RUN...", nargs=-1, required=True, shell_complete=complete_run)
@click.option(
    "--out",
    type=FilePath(dir_okay=False, path_type=Path),
    help="Write the comparison as an HTML page too.",
)
@_open
@force_option
@runs_dir
@as_json
def compare(
    names: Sequence[str], out: Path | None, show: bool, force: bool, runs: Path, as_json: bool
) -> None:
    """Put two or more runs side by side.

    Shows the decisions and the cost of each, and where they differ on questions that more than one
    of them was asked. The page needs the extra `report`. RUN is a folder, or a name in --runs.

    \b
    Example:
      selfloop compare quickstart quickstart-2 --out comparison.html --open
    """
    from . import comparison
    from .run_summary import read_summary

    if len(names) < 2:
        raise click.UsageError("give two runs or more; `selfloop show RUN` is about one")
    page = out or (Path("comparison.html") if show else None)
    if page:
        require_packages("selfloop compare --out")
        refuse_taken(page, "comparison", force=force, ours=lambda path: has_mark(path, "compare"))
    summaries = [read_summary(run_folder(name, runs)) for name in names]
    compared = comparison.compare_runs(summaries)
    comparison.print_comparison(compared, as_json=as_json)
    if page:
        _announce(comparison.write_comparison(compared, page), show, quiet=as_json)


def _announce(path: Path, show: bool, *, quiet: bool = False) -> None:
    """Print where the page is, and show it in the browser."""
    if not quiet:
        click.echo(printable(str(path)))
    if show and click.launch(str(path.resolve())):
        click.echo("no browser could be started here: open the file in one", err=True)


@hookimpl
def selfloop_commands() -> list[click.Command]:
    """Offer `report` and `compare`."""
    return [report, compare]


@hookimpl
def selfloop_observers() -> list[Component]:
    """Offer `report`."""
    return [
        Component(
            "report",
            Reporter,
            doc="writes the run as an HTML page into its folder, after each round",
            local=True,
        )
    ]
