"""`selfloop plugins`"""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from selfloop.cli import commands_of_plugins, short_help
from selfloop.cli.options import as_json, complete_component
from selfloop.cli.tables import print_wrapped, terminal_width
from selfloop.text.display import printable

if TYPE_CHECKING:
    from selfloop.protocols import Component
    from selfloop.registry.manager import Catalog

KINDS = (
    "backend",
    "source",
    "scorer",
    "verifier",
    "critic",
    "demonstrator",
    "tuner",
    "observer",
    "command",
)
# where the built-in ones are described, with figures; all of them are in docs/recipe.md
PAGES = {
    "source": "docs/asking.md",
    "scorer": "docs/asking.md",
    "demonstrator": "docs/asking.md",
    "verifier": "docs/detectors.md",
    "critic": "docs/critique.md",
    "tuner": "docs/tuning.md",
    "command": "docs/cli.md",
}
NARROW = 72  # a terminal of fewer columns has the name on a line of its own

Row = dict[str, Any]


@click.command("plugins")
@click.argument("names", nargs=-1, shell_complete=complete_component)
@click.option("--kind", type=click.Choice(KINDS), help="Only components of this kind.")
@as_json
def command(names: tuple[str, ...], kind: str | None, as_json: bool) -> None:
    """List what is installed: components, their options, and what they need. NAMES picks some of
    them.

    For each it says which plugin it comes from, its options with types and defaults, what the
    backend must give, the extra that must be installed, and the paper.

    \b
    Examples:
      selfloop plugins --kind verifier
      selfloop plugins llama_cpp hf
    """
    from selfloop.registry.manager import load

    catalog = load()
    rows = [
        row for row in (*_components(catalog), *_commands(catalog)) if kind in (None, row["kind"])
    ]
    _refuse_unknown(names, rows, kind, catalog)
    clashes = catalog.clashes()
    picked = [row for row in rows if not names or any(_is(row, name, rows) for name in names)]
    if as_json:
        click.echo(
            json.dumps(
                {"components": picked, "broken": catalog.broken, "clashes": clashes}, indent=2
            )
        )
        return
    for row in picked:
        _print(row)
    for plugin, why in catalog.broken.items():
        click.echo(f"broken       {plugin}: {why}", err=True)
    for clash in clashes:
        click.echo(f"broken       {clash}", err=True)


def _components(catalog: "Catalog") -> Iterator[Row]:
    from selfloop.errors import PluginError

    for kind, offer in catalog:
        try:
            yield _row(kind, offer.plugin, catalog.plugins[offer.plugin], offer.component)
        except PluginError as error:
            catalog.broken[f"{offer.plugin}'s {offer.component.name}"] = str(error)


def _row(kind: str, plugin: str, version: str, component: "Component") -> Row:
    from selfloop.cli.extras import missing
    from selfloop.config.options import describe_options

    package = version.partition(" ")[0]
    return {
        "kind": kind,
        "name": component.name,
        "doc": component.doc,
        "plugin": plugin,
        "version": version,
        "paper": component.paper,
        "needs": sorted(component.needs),
        "gives": sorted(component.gives),
        "extra": component.extra,
        "missing": missing(component.extra, package),
        "wraps": component.wraps,
        "options": describe_options(component.build, component.wraps),
        "docs": component.docs or _page(kind, package),
    }


def _page(kind: str, package: str) -> str:
    return PAGES.get(kind, "docs/recipe.md") if package == "selfloop" else ""


def _commands(catalog: "Catalog") -> Iterator[Row]:
    commands, left_out = commands_of_plugins(catalog)
    catalog.broken |= left_out
    for plugin, added in catalog.commands:
        name, version = str(added.name), catalog.plugins[plugin]
        if commands.get(name) is not added:
            continue
        doc, page = (
            short_help(added, 200).rstrip("."),
            _page("command", version.partition(" ")[0]),
        )
        yield {
            "kind": "command",
            "name": name,
            "doc": doc,
            "plugin": plugin,
            "version": version,
            "docs": page,
        }


def _is(row: Row, name: str, rows: list[Row]) -> bool:
    """Return whether a name means this one: its own, or that of its plugin where nothing else is called so."""
    return row["name"] == name or (
        row["plugin"] == name and all(other["name"] != name for other in rows)
    )


def _refuse_unknown(
    names: tuple[str, ...], rows: list[Row], kind: str | None, catalog: "Catalog"
) -> None:
    from selfloop.errors import RecipeError, did_you_mean

    there = sorted({row["name"] for row in rows})
    installed = f"Installed: {', '.join(there)}" if kind else "All of them: selfloop plugins"
    lost = "".join(
        f" (The plugin {p} could not be used: {why})" for p, why in catalog.broken.items()
    )
    for name in names:
        if not any(_is(row, name, rows) for row in rows):
            what = f"no {kind or 'component, command or plugin'} named {name!r}"
            raise RecipeError(f"{what}.{did_you_mean(name, there)} {installed}.{lost}")


def _print(row: Row) -> None:
    if terminal_width() >= NARROW:
        print_wrapped(
            printable(f"{row['name']}: {row['doc']}"), first=f"{row['kind']:12} ", more=" " * 13
        )
        lines, indent = list(_told(row)), " " * 13
    else:
        print_wrapped(printable(f"{row['kind']} {row['name']}"), more=" " * 13)
        lines, indent = [row["doc"], *_told(row)], "  "
    for line in lines:
        print_wrapped(printable(line), first=indent, more=f"{indent}  ")


def _told(row: Row) -> Iterator[str]:
    """Yield what there is to say of a component, a line each."""
    paper = f", {row['paper']}" if row.get("paper") else ""
    yield f"from {row['plugin']} ({row['version']}){paper}"
    if row.get("needs"):
        yield f"needs {', '.join(row['needs'])}"
    if row.get("gives"):
        yield f"gives {', '.join(row['gives'])}"
    if row.get("extra"):
        yield f"extra {row['extra']}: {_extra(row)}"
    if row.get("wraps"):
        yield f"wraps another {row['kind']}: option {row['wraps']}"
    for option in row.get("options", ()):
        yield f"option {option['name']}: {option['type']}{option['default'] or ' (required)'}"
    if row["kind"] == "command":
        yield f"help: selfloop {row['name']} --help"
    elif row["docs"]:
        yield f"more in {row['docs']}"


def _extra(row: Row) -> str:
    from selfloop.cli.extras import pip

    if not row["missing"]:
        return "installed"
    return f"{', '.join(row['missing'])} missing. Do: {pip(row['extra'], row['version'].partition(' ')[0])}"
