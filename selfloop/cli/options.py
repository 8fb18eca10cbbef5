"""Options and arguments that several commands share, with their completions in a shell."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from selfloop import progress
from selfloop.api.run_folders import run_folder, run_names
from selfloop.registry.isolation import output_for_programs

__all__ = [
    "FilePath",
    "accept_license",
    "as_json",
    "column_options",
    "complete_asked",
    "complete_component",
    "complete_recipe",
    "complete_run",
    "overrides",
    "quiet",
    "run_argument",
    "run_folder",
    "runs_dir",
]

Decorator = TypeVar("Decorator", bound=Callable[..., Any])


class FilePath(click.Path):
    """A path in which `~` is the user's home.

    An empty text is refused: it is a variable of a script that was not set, not this folder.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path. Raises click's BadParameter."""
        if value == "":
            self.fail("it is empty", param, ctx)
        if "\0" in os.fspath(value):
            self.fail("no path has a NUL", param, ctx)
        # No shell expands the ~ of --option=~/folder, so it is expanded here.
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
    help="Change a value of the recipe, as in --set backend.n_ctx=4096. VALUE is a number, true, "
    "false, null, YAML in quotes or brackets, and otherwise text as typed. May be repeated.",
)


def column_options(*also: str) -> Callable[[Decorator], Decorator]:
    """Return a decorator that adds the options for the columns of a file of questions.

    They are --question-column, --answers-column and --skip-broken. `also` may be "answer", for
    --answer-column.
    """
    options = [
        click.option(
            "--question-column",
            default="",
            metavar="NAME",
            help="The column of the questions, if it is not found by itself.",
        ),
        click.option(
            "--answers-column",
            default="",
            metavar="NAME",
            help="The column of the gold answers. A dotted name leads into a mapping: "
            "answers.text.",
        ),
    ]
    if "answer" in also:
        options.append(
            click.option(
                "--answer-column",
                default="",
                metavar="NAME",
                help="The column of the answers to score.",
            )
        )
    options.append(
        click.option(
            "--skip-broken",
            is_flag=True,
            help="Leave out lines that cannot be read, and report their number.",
        )
    )

    def decorated(function: Decorator) -> Decorator:
        # click lists options from the last decorator that was applied to the first
        for option in reversed(options):
            function = option(function)
        return function

    return decorated


# Callbacks of options. They change the context of the whole command, so that no command has to.


def _silence(ctx: click.Context, parameter: click.Parameter, value: bool) -> bool:
    if value:
        ctx.with_resource(progress.shown_by(None))
    return value


quiet = click.option(
    "--quiet",
    is_flag=True,
    callback=_silence,
    help="Print only the run's path and any failures.",
)


def _for_programs(ctx: click.Context, parameter: click.Parameter, value: bool) -> bool:
    """Send the output of plugins, C code and child processes to standard error.

    A program that reads the command's JSON must find nothing else on the standard output.
    """
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


def complete_run(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the names of the runs in --runs, or else the folders that the shell finds."""
    runs = Path(ctx.params.get("runs") or os.environ.get("SELFLOOP_RUNS") or "runs")
    # The folders come first: bash forgets the items before them.
    return [CompletionItem(incomplete, type="dir"), *_starting(run_names(runs), incomplete)]


def complete_recipe(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the recipes that come with selfloop, or else the files that the shell finds."""
    from selfloop.config.bundled import names

    return [CompletionItem(incomplete, type="file"), *_starting(names(), incomplete)]


def complete_asked(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the recipes and runs that can stand for a model."""
    runs = complete_run(ctx, parameter, incomplete)[1:]
    return [*complete_recipe(ctx, parameter, incomplete), *runs]


def complete_component(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the names of the installed components and commands, of one kind with --kind."""
    from selfloop.registry.manager import load

    catalog, wanted = load(), ctx.params.get("kind")
    names = {offer.component.name for kind, offer in catalog if wanted in (None, kind)}
    if wanted in (None, "command"):
        names |= {str(command.name) for _, command in catalog.commands}
    return _starting(sorted(names), incomplete)


def _starting(names: list[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


run_argument = click.argument("run", shell_complete=complete_run)
