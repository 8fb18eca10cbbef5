"""Where to begin: `selfloop new recipe`, `selfloop new plugin`, and `selfloop recipes`, those that
come with selfloop.

recipe.py   a recipe by two questions
plugin.py   a package with a plugin of any kind, its tests and a recipe
listing.py  the recipes that come with selfloop, and their needs
writing.py  templates filled in, and files that never replace others

Only the commands are here, so that nothing is imported before one is called.
"""

from pathlib import Path

import click

from selfloop import hookimpl
from selfloop.cli.options import FilePath, as_json, complete_recipe

# the purposes of a new recipe, as a person is asked
PURPOSES = {
    "knowledge": "measure the model's knowledge",
    "questions": "answer your own question file",
    "decline": "teach it to decline questions that it cannot answer",
}
# one template each, `templates/plugin-KIND.py.j2`, and one for its tests
KINDS = (
    "detector",
    "source",
    "scorer",
    "critic",
    "few_shot",
    "tuner",
    "observer",
    "backend",
    "command",
)


@click.group("new")
def new() -> None:
    """Write a recipe or a plugin of your own to begin with.

    \b
    Examples:
      selfloop new recipe
      selfloop new plugin brief --kind detector
    """


@new.command("recipe", short_help="A commented recipe, by two questions.")
@click.argument("path", type=FilePath(dir_okay=False, path_type=Path), default=Path("recipe.yaml"))
@click.option(
    "--model",
    metavar="MODEL",
    help="A name, a .gguf file, a folder or hub name for transformers, or scripted.",
)
@click.option(
    "--for", "purpose", type=click.Choice(list(PURPOSES)), help="The purpose of the recipe."
)
@click.option(
    "--questions",
    type=FilePath(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Your question file, for --for questions; without it one with examples is written beside "
    "PATH.",
)
def recipe(path: Path, model: str | None, purpose: str | None, questions: Path | None) -> None:
    """Write a commented recipe to PATH (recipe.yaml, if not given), ready to run.

    It asks for the model, and for the purpose of the recipe: to measure the model's knowledge, to
    answer your own question file, or to teach the model to decline questions that it cannot answer.
    With --model and --for it asks nothing. An existing file is never replaced.

    \b
    Examples:
      selfloop new recipe
      selfloop new recipe mine.yaml --model smollm2-135m-instruct --for knowledge
    """
    from .recipe import write_recipe

    write_recipe(path, model, purpose, questions)


@new.command("plugin", short_help="An installable package with a plugin, its tests and a recipe.")
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    required=True,
    help="The kind of component that the plugin offers.",
)
@click.option(
    "--out",
    type=FilePath(path_type=Path),
    metavar="FOLDER",
    help="The folder to write it into; by default selfloop-NAME in this one.",
)
def plugin(name: str, kind: str, out: Path | None) -> None:
    """Write an installable package with a plugin called NAME: a module, tests that pass, a README
    and a recipe.

    NAME is its name in recipes: a Python identifier that no installed component has. The tests are
    selfloop's own for the kind; edit the module, and keep them passing.

    \b
    Examples:
      selfloop new plugin brief --kind detector
      selfloop new plugin stars --kind source --out work/stars
    """
    from .plugin import write_package

    write_package(name, kind, out)


@click.command("recipes")
@click.argument("name", required=False, shell_complete=complete_recipe)
@click.option(
    "--out",
    type=FilePath(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the recipe NAME to FILE, to be edited.",
)
@as_json
def recipes(name: str | None, out: Path | None, as_json: bool) -> None:
    """List the recipes that come with selfloop: the purpose, the model and the extras of each.

    With NAME print that recipe, or write it to a file with --out. They run by name: selfloop run
    NAME.

    \b
    Examples:
      selfloop recipes
      selfloop recipes quickstart --out mine.yaml
    """
    from .listing import copy, show

    # click cannot say that an option needs an argument, or excludes it
    if name is None and out is not None:
        raise click.UsageError("--out is for one recipe: give its NAME too.")
    if name is not None and as_json:
        raise click.UsageError("--json is for the list: leave NAME out.")
    if name is None:
        show(as_json)
    else:
        copy(name, out)


@hookimpl
def selfloop_commands() -> list[click.Command]:
    """Offer the commands."""
    return [new, recipes]
