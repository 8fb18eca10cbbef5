"""`selfloop resume RUN`"""

from pathlib import Path

import click

from selfloop.cli.launched import work_beside_run
from selfloop.cli.options import accept_license, as_json, quiet, run_argument, run_folder, runs_dir


@click.command("resume")
@run_argument
@runs_dir
@accept_license
@quiet
@as_json
def command(run: str, runs: Path, quiet: bool, as_json: bool) -> int | None:
    """Continue RUN (a folder, or a name in --runs) where it was stopped.

    Nothing is generated twice. A run that is done stays as it is; its summary is printed again.

    \b
    Example:
      selfloop resume quickstart
    """
    from selfloop.api.runs import Run
    from selfloop.cli.summary import print_summary_of

    if (exit_code := work_beside_run()) is not None:
        return exit_code
    stopped = Run(run_folder(run, runs))
    print_summary_of(
        lambda: stopped.resume(quiet=quiet or as_json).folder, as_json=as_json, quiet=quiet
    )
    return None
