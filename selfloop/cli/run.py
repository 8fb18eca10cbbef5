"""`selfloop run RECIPE`"""

from pathlib import Path

import click

from selfloop.cli.launched import work_beside_run
from selfloop.cli.options import (
    FilePath,
    accept_license,
    as_json,
    complete_recipe,
    overrides,
    quiet,
    runs_dir,
)


@click.command("run")
@click.argument("recipe", type=FilePath(path_type=Path), shell_complete=complete_recipe)
@overrides
@runs_dir
@accept_license
@quiet
@as_json
def command(
    recipe: Path, overrides: tuple[str, ...], runs: Path, quiet: bool, as_json: bool
) -> int | None:
    """Run RECIPE in a new folder of --runs, and print a summary at its end.

    RECIPE is a .yaml file, or the name of one that comes with selfloop (`selfloop recipes` lists
    them). Everything is stored in the run's folder: stop the run with Ctrl-C, continue it with
    `selfloop resume`, inspect it with `selfloop show`.

    \b
    Examples:
      selfloop run quickstart
      selfloop run my.yaml --set rounds=3 --set backend.model=model.gguf
    """
    from selfloop.api.runs import run
    from selfloop.cli.summary import print_summary_of

    if (exit_code := work_beside_run()) is not None:
        return exit_code
    print_summary_of(
        lambda: run(recipe, overrides, runs=runs, quiet=quiet or as_json).folder,
        as_json=as_json,
        quiet=quiet,
    )
    return None
