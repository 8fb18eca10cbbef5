"""Options and arguments that several commands share, and what a shell completes them to."""

import os
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from selfloop import progress
from selfloop.errors import StoreError, did_you_mean
from selfloop.registry.isolation import output_for_programs
from selfloop.storage.run_folder import runs_in

SHOWN = 8  # runs that a message names
# of `selfloop.storage.store`, which takes too long to import each time somebody presses Tab


class FilePath(click.Path):
    """A path, in which `~` is the user's home.

    An empty one is a variable that was not set, and not this folder.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path. Raises click's BadParameter."""
        if value == "":
            self.fail("it is empty", param, ctx)
        if "\0" in os.fspath(value):
            self.fail("no path has a NUL", param, ctx)
        # of a shell that does not know it behind --option=
        is_home = os.fspath(value).startswith("~/")
        return super().convert(
            os.fspath(Path(value).expanduser()) if is_home else value, param, ctx
        )


runs_dir = click.option(
    "--runs",
    type=FilePath(file_okay=False, path_type=Path),
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
    help="Change a value of the recipe, as in --set backend.n_ctx=4096. VALUE is a number, true, false, null, YAML in "
    "quotes or brackets, and otherwise text as typed. May be given more than once.",
)
question_column = click.option(
    "--question-column",
    default="",
    metavar="NAME",
    help="The column of the questions, if it is not found by itself.",
)
answers_column = click.option(
    "--answers-column",
    default="",
    metavar="NAME",
    help="The column of the gold answers. A dotted name leads into a mapping: answers.text.",
)
skip_broken = click.option(
    "--skip-broken",
    is_flag=True,
    help="Leave out lines that cannot be read, and say how many there are.",
)


def _silence(ctx: click.Context, parameter: click.Parameter, value: bool) -> bool:
    if value:
        ctx.with_resource(progress.shown_by(None))
    return value


quiet = click.option(
    "--quiet",
    is_flag=True,
    callback=_silence,
    help="Print only where the run lies, and whether something failed.",
)


def _for_programs(ctx: click.Context, parameter: click.Parameter, value: bool) -> bool:
    """Keep the standard output of the command clean of what plugins, C code and child processes print."""
    if value and not ctx.resilient_parsing:
        ctx.with_resource(output_for_programs())
    return value


as_json = click.option(
    "--json", "as_json", is_flag=True, callback=_for_programs, help="Print JSON, for programs."
)


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
    """Return the run that `name` means: a path, or a folder of `runs`.

    Raises StoreError where it is neither.
    """
    found = next((folder for folder in (Path(name), runs / name) if folder.is_dir()), None)
    if found is not None:
        return found
    there = _runs(runs)
    shown = ", ".join(there[:SHOWN]) + (
        f" and {len(there) - SHOWN} more" if len(there) > SHOWN else ""
    )
    none = (
        "Give the folder of a run, as `selfloop run` printed it, or say by --runs where runs are."
    )
    advice = f"Runs in {runs}: {shown}." if there else none
    raise StoreError(f"no run in {runs / name}.{did_you_mean(name, there)} {advice}")


def _runs(runs: Path) -> list[str]:
    try:
        return sorted(folder.name for folder in runs_in(runs))
    except OSError:
        return []


def complete_run(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the names of the runs in --runs, or else the folders that the shell finds."""
    runs = Path(ctx.params.get("runs") or os.environ.get("SELFLOOP_RUNS") or "runs")
    return [
        CompletionItem(incomplete, type="dir"),
        *_starting(_runs(runs), incomplete),
    ]  # first, for bash begins anew at it


def complete_recipe(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the recipes that come with selfloop, or else the files that the shell finds."""
    from selfloop.cli.bundled import names

    return [CompletionItem(incomplete, type="file"), *_starting(names(), incomplete)]


def complete_asked(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return what a model may be given as: a run, or a recipe."""
    runs = complete_run(ctx, parameter, incomplete)[1:]
    return [*complete_recipe(ctx, parameter, incomplete), *runs]


def complete_component(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the names of the installed components and commands, of one kind with --kind."""
    from selfloop.registry.manager import load

    catalog, kind = load(), ctx.params.get("kind")
    found = {offer.component.name for own, offer in catalog if kind in (None, own)}
    if kind in (None, "command"):
        found |= {str(command.name) for _, command in catalog.commands}
    return _starting(sorted(found), incomplete)


def _starting(names: list[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


run_argument = click.argument("run", shell_complete=complete_run)
