"""The recipes that come with selfloop, and their needs."""

import json
import re
from pathlib import Path
from shlex import quote
from typing import Any

import click

from selfloop.cli.extras import missing, pip
from selfloop.config.bundled import beside, bundled, names
from selfloop.config.recipe import read
from selfloop.errors import StoreError
from selfloop.text.display import printable

from .writing import write_all


def show(as_json: bool) -> None:
    """Print all of them, with their needs."""
    rows = [_recipe_row(name) for name in names()]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        click.secho(row["name"], bold=True)
        click.echo(f"  {row['about']}")
        extras = ", ".join(row["extras"])
        click.echo(f"  model {printable(row['model'])}; extras {extras}{_missing_note(row)}")
    click.echo(
        "\nRun one: selfloop run NAME. Copy one to edit it: selfloop recipes NAME --out FILE"
    )


def copy(name: str, out: Path | None) -> None:
    """Print a recipe, or write it to a new file, under that file's name."""
    path = bundled(name)
    text = path.read_text(encoding="utf-8")
    if out is None:
        click.echo(text, nl=False)
        return
    if out.is_dir():
        raise StoreError(
            f"{out} is a folder. Give the file to write, as in --out {out / path.name}"
        )
    command = f"selfloop run {printable(quote(str(out)))}"
    files = {out: text.replace(f"selfloop run {name}", command, 1)}  # the line that it opens with
    # question files and the like that the recipe reads
    for file in beside(path):
        files[out.parent / file.name] = file.read_text(encoding="utf-8")
    write_all(files)
    click.echo(f"written: {printable(str(out))}\nRun it: {command}")


def _recipe_row(name: str) -> dict[str, Any]:
    """Return the purpose and the needs of a recipe, as a row of the list."""
    path = bundled(name)
    loaded = read(path)
    extras = sorted({use.component.extra for use in loaded.uses() if use.component.extra})
    command, about = _head(path.read_text(encoding="utf-8"))
    return {
        "name": name,
        "about": about,
        "command": command,
        "model": str(loaded.recipe.backend.options.get("model", "none")),
        "extras": extras,
        "missing": [extra for extra in extras if missing(extra)],
    }


def _head(text: str) -> tuple[str, str]:
    """Return the command that a recipe opens with, and the first sentence of its description."""
    # the comment at its top: the command, then the description
    lines = [line.removeprefix("#").strip() for line in text.split("\n\n")[0].splitlines()]
    return lines[0], re.split(r"(?<=[.?]) ", " ".join(lines[1:]).strip())[0].rstrip(".")


def _missing_note(row: dict[str, Any]) -> str:
    return "".join(f" (not installed: {pip(extra)})" for extra in row["missing"])
