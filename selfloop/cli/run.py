"""`selfloop run RECIPE`"""

from pathlib import Path

import click

from selfloop.cli.options import accept_license, as_json, overrides, runs_dir


@click.command("run")
@click.argument("recipe", type=click.Path(path_type=Path))
@overrides
@runs_dir
@accept_license
@as_json
def command(recipe: Path, overrides: tuple[str, ...], runs: Path, as_json: bool) -> None:
    """Run RECIPE in a new folder of --runs, and print a summary at its end."""
    from selfloop.cli.summary import print_summary
    from selfloop.runner import run

    print_summary(run(recipe, overrides, runs, quiet=as_json), as_json=as_json)
