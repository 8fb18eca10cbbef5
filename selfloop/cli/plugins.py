"""`selfloop plugins`"""

import json
from typing import Any

import click

from selfloop.cli import COMMANDS
from selfloop.cli.options import as_json


@click.command("plugins")
@click.argument("names", nargs=-1)
@as_json
def command(names: tuple[str, ...], as_json: bool) -> None:
    """List the installed components with their options; NAMES picks some of them."""
    from selfloop.errors import PluginError
    from selfloop.manager import load

    catalog = load()
    rows = []
    for kind, offer in catalog:
        try:
            rows.append(_row(kind, offer.plugin, catalog.plugins[offer.plugin], offer.component))
        except PluginError as error:
            catalog.broken[f"{offer.plugin}'s {offer.component.name}"] = str(error)
    owners = dict.fromkeys(COMMANDS, "selfloop")
    for plugin, added in catalog.commands:
        if (owner := owners.setdefault(str(added.name), plugin)) != plugin:
            catalog.broken[f"{plugin}'s command {added.name}"] = f"it is hidden by {owner}'s command of that name."
    rows = [row for row in rows if not names or row["name"] in names]
    if as_json:
        click.echo(json.dumps({"components": rows, "broken": catalog.broken}, indent=2))
        return
    for row in rows:
        click.echo(f"{row['kind']:12} {row['name']}: {row['doc']}")
        paper = f", {row['paper']}" if row["paper"] else ""
        click.echo(f"             from {row['plugin']} ({row['version']}){paper}")
        if row["needs"]:
            click.echo(f"             needs {', '.join(row['needs'])}")
        for option in row["options"]:
            click.echo(f"             {option['name']}: {option['type']}{option['default']}")
    for plugin, why in catalog.broken.items():
        click.echo(f"broken       {plugin}: {why}", err=True)


def _row(kind: str, plugin: str, version: str, component: Any) -> dict[str, Any]:
    from selfloop.options import describe_options

    return {
        "kind": kind,
        "name": component.name,
        "doc": component.doc,
        "plugin": plugin,
        "version": version,
        "paper": component.paper,
        "needs": sorted(component.needs),
        "gives": sorted(component.gives),
        "options": describe_options(component.build),
    }
