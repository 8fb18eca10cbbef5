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
    """Judge and decide RUN (a folder, or a name in --runs) again, as --set says, in a run of its
    own.

    Nothing is generated anew: the model is opened only if a verifier asks for what is not stored.
    Printed is the new run's summary; RUN stays as it is.

    \b
    Examples:
      selfloop rescore quickstart --set decide.belief=0.8
      selfloop rescore quickstart --set 'verifiers=[agreement, cocoa]'
    """
    from selfloop.cli.summary import summed_up
    from selfloop.evaluation.rescoring import rescore

    folder = run_folder(run, runs)
    summed_up(lambda: rescore(folder, overrides, runs), as_json=as_json)
