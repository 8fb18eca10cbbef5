"""`selfloop plugins`"""

import json
from typing import Any

import click

from selfloop.cli.options import as_json


@click.command("plugins")
@click.argument("names", nargs=-1)
@as_json
def command(names: tuple[str, ...], as_json: bool) -> None:
    """List the installed components with their options; NAMES picks some of them."""
    from selfloop.manager import load

    catalog = load()
    rows = [_row(kind, o.plugin, catalog.plugins[o.plugin], o.component) for kind, o in catalog]
    rows = [row for row in rows if not names or row["name"] in names]
    if as_json:
        click.echo(json.dumps({"components": rows, "broken": catalog.broken}, indent=2))
        return
    for row in rows:
        click.echo(f"{row['kind']:9} {row['name']}: {row['doc']}")
        click.echo(f"          from {row['plugin']} ({row['version']})" + (f", {row['paper']}" if row["paper"] else ""))
        if row["needs"]:
            click.echo(f"          needs {', '.join(row['needs'])}")
        for option in row["options"]:
            click.echo(f"          {option['name']}: {option['type']}{option['default']}")
    for plugin, why in catalog.broken.items():
        click.echo(f"broken    {plugin}: {why}", err=True)


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
