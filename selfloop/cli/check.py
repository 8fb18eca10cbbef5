"""`selfloop check RECIPE`"""

import json
from pathlib import Path

import click

from selfloop.cli.options import accept_license, as_json, overrides


@click.command("check")
@click.argument("recipe", type=click.Path(path_type=Path))
@overrides
@accept_license
@as_json
def command(recipe: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Say everything that is wrong with RECIPE, without loading a model."""
    from selfloop.assemble import check
    from selfloop.recipe import read

    loaded = read(recipe, overrides)
    check(loaded)
    if as_json:
        click.echo(json.dumps(loaded.recipe.model_dump(mode="json"), indent=2))
        return
    for plugin, why in loaded.catalog.broken.items():
        click.echo(f"warning: plugin {plugin} could not be used and is left out: {why}", err=True)
    asked = loaded.recipe.rounds * loaded.recipe.ask.questions
    click.echo(f"{recipe} can run: {loaded.recipe.rounds} rounds, {asked} questions at most.")
