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
    """Say everything that is wrong with RECIPE, without loading a model.

    RECIPE is a .yaml file, or the name of one that comes with selfloop. Each mistake is listed with
    its line; where there is none, how much would be asked. With --json the recipe is printed with
    all its defaults.

    \b
    Examples:
      selfloop check my.yaml
      selfloop check quickstart --set rounds=5 --json
    """
    from selfloop.cli.bundled import recipe_file
    from selfloop.config.assembly import check
    from selfloop.config.recipe import read

    file, base = recipe_file(recipe)
    loaded = read(file, overrides, base)
    check(loaded)
    for plugin, why in loaded.catalog.broken.items():
        click.echo(f"warning: plugin {plugin} could not be used and is left out: {why}", err=True)
    for name, why in commands_of_plugins(loaded.catalog)[1].items():
        click.echo(f"warning: {name} is left out: {why}", err=True)
    for clash in loaded.catalog.clashes():
        click.echo(f"warning: {clash}", err=True)
    if as_json:
        click.echo(json.dumps(loaded.recipe.model_dump(mode="json"), indent=2))
        return
    asked = loaded.recipe.rounds * loaded.recipe.ask.questions
    click.echo(
        f"{recipe} can run: {plural(loaded.recipe.rounds, 'round')}, {asked} questions at most."
    )
