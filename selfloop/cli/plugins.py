"""`selfloop plugins`"""

import json
from collections.abc import Iterator, Sequence
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
    "detector",
    "critic",
    "few_shot",
    "tuner",
    "observer",
    "command",
)
# The pages that describe built-in components with figures; docs/recipe.md lists all of them.
PAGES = {
    "source": "docs/asking.md",
    "scorer": "docs/asking.md",
    "few_shot": "docs/asking.md",
    "detector": "docs/detectors.md",
    "critic": "docs/critique.md",
    "tuner": "docs/tuning.md",
    "command": "docs/cli.md",
}
MIN_COLUMNS = 72  # a terminal of fewer columns has the name on a line of its own
INDENT = " " * 13  # below a component's name
MAX_DOC = 200  # characters of a command's description

Row = dict[str, Any]


@click.command("plugins")
@click.argument("names", nargs=-1, shell_complete=complete_component)
@click.option("--kind", type=click.Choice(KINDS), help="Show only components of this kind.")
@as_json
def command(names: tuple[str, ...], kind: str | None, as_json: bool) -> None:
    """List the installed components with their options and needs. NAMES picks some of them.

    Each has the plugin it comes from, its options with types and defaults, the capabilities it
    needs of the backend, the extra to install, and the paper.

    \b
    Examples:
      selfloop plugins --kind detector
      selfloop plugins llama_cpp hf
    """
    from selfloop.registry.manager import load

    catalog = load()
    rows = [*_component_rows(catalog), *_command_rows(catalog)]
    if kind is not None:
        rows = [row for row in rows if row["kind"] == kind]
    _refuse_unknown(names, rows, kind, catalog)
    clashes = catalog.clashes()
    if names:
        rows = _named_rows(rows, names)
    if as_json:
        listing = {"components": rows, "broken": catalog.broken, "clashes": clashes}
        click.echo(json.dumps(listing, indent=2))
        return
    for row in rows:
        _print_component(row)
    for plugin, reason in catalog.broken.items():
        click.echo(f"broken       {plugin}: {reason}", err=True)
    for clash in clashes:
        click.echo(f"broken       {clash}", err=True)


def _component_rows(catalog: "Catalog") -> Iterator[Row]:
    from selfloop.errors import PluginError

    for kind, offer in catalog:
        try:
            yield _component_row(kind, offer.plugin, catalog.plugins[offer.plugin], offer.component)
        except PluginError as error:
            # Its options cannot be read; the others are listed all the same.
            catalog.broken[f"{offer.plugin}'s {offer.component.name}"] = str(error)


def _component_row(kind: str, plugin: str, version: str, component: "Component") -> Row:
    from selfloop.cli.extras import missing
    from selfloop.config.options import describe_options

    package = _package(version)
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


def _command_rows(catalog: "Catalog") -> Iterator[Row]:
    commands, left_out = commands_of_plugins(catalog)
    catalog.broken |= left_out
    for plugin, added in catalog.commands:
        name, version = str(added.name), catalog.plugins[plugin]
        if commands.get(name) is not added:  # its name was taken
            continue
        yield {
            "kind": "command",
            "name": name,
            "doc": short_help(added, MAX_DOC).rstrip("."),
            "plugin": plugin,
            "version": version,
            "docs": _page("command", _package(version)),
        }


def _package(version: str) -> str:
    """Return the name of a package out of its name and version."""
    return version.partition(" ")[0]


def _page(kind: str, package: str) -> str:
    if package != "selfloop":
        return ""
    return PAGES.get(kind, "docs/recipe.md")


def _named_rows(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """Return the components that one of the names means."""
    named = []
    for row in rows:
        if any(_is_named(row, name, rows) for name in names):
            named.append(row)
    return named


def _is_named(row: Row, name: str, rows: Sequence[Row]) -> bool:
    """Return whether a component has this name, or its plugin has and no component."""
    if row["name"] == name:
        return True
    return row["plugin"] == name and all(other["name"] != name for other in rows)


def _refuse_unknown(
    names: Sequence[str], rows: Sequence[Row], kind: str | None, catalog: "Catalog"
) -> None:
    """Raise RecipeError for a name that no component, command or plugin has."""
    from selfloop.errors import RecipeError, did_you_mean

    installed = sorted({row["name"] for row in rows})
    advice = f"Installed: {', '.join(installed)}" if kind else "All of them: selfloop plugins"
    # The name that was sought may be of a plugin that could not be imported.
    broken = ""
    for plugin, reason in catalog.broken.items():
        broken += f" (The plugin {plugin} could not be used: {reason})"
    for name in names:
        if not any(_is_named(row, name, rows) for row in rows):
            subject = f"no {kind or 'component, command or plugin'} named {name!r}"
            raise RecipeError(f"{subject}.{did_you_mean(name, installed)} {advice}.{broken}")


def _print_component(row: Row) -> None:
    if terminal_width() >= MIN_COLUMNS:
        title = printable(f"{row['name']}: {row['doc']}")
        print_wrapped(title, first=f"{row['kind']:12} ", more=INDENT)
        lines, indent = list(_details(row)), INDENT
    else:
        print_wrapped(printable(f"{row['kind']} {row['name']}"), more=INDENT)
        lines, indent = [row["doc"], *_details(row)], "  "
    for line in lines:
        print_wrapped(printable(line), first=indent, more=f"{indent}  ")


def _details(row: Row) -> Iterator[str]:
    """Yield the details of a component, a line each."""
    paper = f", {row['paper']}" if row.get("paper") else ""
    yield f"from {row['plugin']} ({row['version']}){paper}"
    if row.get("needs"):
        yield f"needs {', '.join(row['needs'])}"
    if row.get("gives"):
        yield f"gives {', '.join(row['gives'])}"
    if row.get("wraps"):
        yield f"wraps another {row['kind']}: option {row['wraps']}"
    if row.get("extra"):
        yield f"extra {row['extra']}: {_extra(row)}"
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
    install = pip(row["extra"], _package(row["version"]))
    return f"{', '.join(row['missing'])} missing. Do: {install}"
