"""`selfloop export` and `selfloop rollback`: taking a run's tuned model along, and going back to an
earlier one.

merge.py    an adapter into the weights: a GGUF file, or a folder of transformers
targets.py  the files of each `--to`, written whole or not at all
check.py    the written file asked the run's held-out questions, in llama-cpp-python alone
card.py     the card beside it, where that is a folder

Only the commands are here, so that listing plugins imports neither torch nor numpy.
"""

import json
from pathlib import Path

import click

from selfloop import hookimpl
from selfloop.cli.options import FilePath, as_json, run_argument, run_folder, runs_dir

# literals, so that --help imports neither torch nor numpy
MAX_QUESTIONS = 100  # the next moves a rate by .01
TARGETS = ("adapter", "gguf", "hf", "ollama")
# as llama.cpp calls them; merge.py has their numbers
TYPES = ("f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_1", "q4_0")


@click.command("export")
@run_argument
@click.option("--to", type=click.Choice(TARGETS), required=True, help="The form to write.")
@click.option(
    "--out", type=FilePath(path_type=Path), help="Where; by default RUN-TO in this folder."
)
@click.option(
    "--type",
    "kind",
    type=click.Choice(TYPES),
    help="The weights' format in a GGUF; by default the base's.",
)
@click.option(
    "--round", "number", type=int, help="The adapter of this round; by default the one in effect."
)
@click.option(
    "--questions",
    type=click.IntRange(min=0),
    default=MAX_QUESTIONS,
    show_default=True,
    help="Held-out questions that the written file is asked, at most; 0 to write it unmeasured.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Replace an earlier export, and write a file that answers otherwise than the run's model.",
)
@runs_dir
@as_json
def export(
    run: str,
    to: str,
    out: Path | None,
    kind: str | None,
    number: int | None,
    questions: int,
    force: bool,
    runs: Path,
    as_json: bool,
) -> None:
    """Write the tuned model of RUN, to be used without selfloop.

    adapter: the LoRA alone, for peft and for llama.cpp. gguf: one file, base and adapter in one.
    hf: the same as a folder of transformers. ollama: a folder with that GGUF and a Modelfile; of a
    base packed in four bits, base and adapter apart unless --type is given. RUN is a folder, or a
    name in --runs, of a recipe with a tuner.

    The written file is asked the run's held-out questions, in llama-cpp-python alone. One that
    keeps or declines more than 5 % otherwise than base and adapter is refused.

    \b
    Examples:
      selfloop export honest-gemma --to ollama --type q8_0
      selfloop export runs/honest-gemma --to adapter --round 3 --out my-adapter
    """
    from .targets import write_export

    if kind and to not in ("gguf", "ollama"):
        raise click.UsageError(
            f"--type is for --to gguf and ollama; --to {to} keeps the weights as they are"
        )
    written = write_export(
        run_folder(run, runs),
        to,
        out,
        kind=kind,
        number=number,
        force=force,
        questions=questions,
    )
    number = written.adapter.round
    if as_json:
        content = {"path": str(written.path), "to": to, "round": number}
        click.echo(json.dumps(content | {"check": written.check.plain()}))
        return
    click.echo(f"Written, with the adapter of round {number}: {written.path}")
    for line in (*written.check.lines(), *written.notes):
        click.echo(line)


@click.command("rollback")
@run_argument
@click.option(
    "--to",
    "number",
    type=click.IntRange(min=0),
    required=True,
    metavar="ROUND",
    help="The round whose adapter is to be in effect; 0 is the base.",
)
@runs_dir
@as_json
def rollback(run: str, number: int, runs: Path, as_json: bool) -> None:
    """Let RUN go on with the adapter that ROUND made, until it makes a new one. Nothing is deleted.

    RUN is a folder, or a name in --runs, of a recipe with a tuner. `selfloop ask RUN` and `selfloop
    export RUN` use the adapter in effect.

    \b
    Example:
      selfloop rollback honest-gemma --to 0
    """
    from .targets import roll_back

    adapter = roll_back(run_folder(run, runs), number)
    if as_json:
        click.echo(json.dumps({"round": number, "adapter": adapter.path if adapter else None}))
        return
    active = f"the adapter of round {adapter.round}, {adapter.path}" if adapter else "the base"
    click.echo(f"In effect: {active}")


@hookimpl
def selfloop_commands() -> list[click.Command]:
    """Offer the commands."""
    return [export, rollback]
