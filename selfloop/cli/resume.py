"""`selfloop resume RUN`"""

from pathlib import Path

import click

from selfloop.cli.options import accept_license, as_json, quiet, run_argument, run_folder, runs_dir


@click.command("resume")
@run_argument
@runs_dir
@accept_license
@quiet
@as_json
def command(run: str, runs: Path, quiet: bool, as_json: bool) -> None:
    """Go on with RUN (a folder, or a name in --runs) where it was stopped. Nothing is generated
    twice.

    A run that is done is left as it is, and its summary printed again.

    \b
    Example:
      selfloop resume quickstart
    """
    from selfloop.cli.summary import summed_up
    from selfloop.runner import resume

    folder = run_folder(run, runs)
    summed_up(lambda: resume(folder, quiet=quiet or as_json), as_json=as_json, quiet=quiet)
