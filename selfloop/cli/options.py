"""Options that several commands share."""

import os
from pathlib import Path

import click

runs_dir = click.option(
    "--runs",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs"),
    show_default=True,
    envvar="SELFLOOP_RUNS",
    help="The folder that holds the runs.",
)
overrides = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a value of the recipe, as in --set backend.n_ctx=4096. May be given more than once.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def _accept(ctx: click.Context, parameter: click.Parameter, value: bool) -> bool:
    if value:
        os.environ["SELFLOOP_ACCEPT_LICENSE"] = "1"
    return value


accept_license = click.option(
    "--accept-license",
    is_flag=True,
    expose_value=False,
    callback=_accept,
    help="Accept the terms of the model that the recipe names (asked once; kept in the cache).",
)


def run_folder(name: str, runs: Path) -> Path:
    """Return the run that `name` means: a path, or a folder of `runs`."""
    given = Path(name)
    return given if given.is_dir() else runs / name
