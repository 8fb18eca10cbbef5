"""`selfloop check RECIPE`"""

import json
from pathlib import Path

import click

from selfloop.cli import commands_of_plugins
from selfloop.cli.options import FilePath, accept_license, as_json, complete_recipe, overrides
from selfloop.text.units import plural


@click.command("check")
@click.argument("recipe", type=FilePath(path_type=Path), shell_complete=complete_recipe)
@overrides
@accept_license
@as_json
def command(recipe: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Report every mistake in RECIPE, with line numbers, without loading a model.

    RECIPE is a .yaml file, or the name of one that comes with selfloop. Without a mistake it prints
    how many questions a run would ask. --json prints the recipe with all its defaults.

    \b
    Examples:
      selfloop check my.yaml
      selfloop check quickstart --set rounds=5 --json
    """
    from selfloop.api.recipes import loaded_recipe

    loaded = loaded_recipe(recipe, overrides)
    catalog = loaded.catalog
    for plugin, reason in catalog.broken.items():
        click.echo(
            f"warning: plugin {plugin} could not be used and is left out: {reason}", err=True
        )
    for name, reason in commands_of_plugins(catalog)[1].items():
        click.echo(f"warning: {name} is left out: {reason}", err=True)
    for clash in catalog.clashes():
        click.echo(f"warning: {clash}", err=True)
    if as_json:
        click.echo(json.dumps(loaded.recipe.model_dump(mode="json", by_alias=True), indent=2))
        return
    rounds = loaded.recipe.rounds
    questions = rounds * loaded.recipe.ask.questions
    click.echo(f"{recipe} can run: {plural(rounds, 'round')}, {questions} questions at most.")
