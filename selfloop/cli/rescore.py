"""`selfloop rescore RUN`"""

from pathlib import Path

import click

from selfloop.cli.options import as_json, overrides, run_argument, run_folder, runs_dir


@click.command("rescore")
@run_argument
@overrides
@runs_dir
@as_json
def command(run: str, overrides: tuple[str, ...], runs: Path, as_json: bool) -> None:
    """Judge the stored answers of RUN again, with the detectors and thresholds of --set.

    RUN is a folder, or a name in --runs; it stays as it is. The result is a new run, whose summary
    is printed. Nothing is generated: the model is opened only if a detector needs something that is
    not stored.

    \b
    Examples:
      selfloop rescore quickstart --set decide.belief=0.8
      selfloop rescore quickstart --set 'detectors=[agreement, cocoa]'
    """
    from selfloop.api.runs import rescore
    from selfloop.cli.summary import print_summary_of

    folder = run_folder(run, runs)
    print_summary_of(lambda: rescore(folder, overrides, runs=runs).folder, as_json=as_json)
