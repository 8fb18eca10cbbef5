"""A package with a plugin of any kind: a module, tests that pass, a README and a recipe."""

import keyword
import re
from importlib.util import find_spec
from pathlib import Path
from shlex import quote

import click

from selfloop.cli import COMMANDS
from selfloop.errors import SelfloopError
from selfloop.registry import manager
from selfloop.text.display import printable

from .writing import rendered, write_all

MAX_NAME = 60  # characters of a wrong name that a message shows
HOOKS = manager.HOOKS | {"command": manager.COMMANDS_HOOK}


def write_package(name: str, kind: str, out: Path | None) -> None:
    """Write the package and print the next commands.

    Raises SelfloopError for a name that is no Python identifier, or is taken.
    """
    _refuse_invalid_name(name)
    _refuse_used_name(name)
    # pip accepts no package whose name begins or ends with -
    package, module = f"selfloop-{name.strip('_').replace('_', '-')}", f"selfloop_{name}"
    folder = out or Path(package)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SelfloopError(
            f"{folder} is there already, and stays as it is. Give another folder with --out."
        )
    values = {
        "name": name,
        "kind": kind,
        "package": package,
        "module": module,
        # with its kind, for Verdict alone would hide selfloop's, and None is no name
        "cls": "".join(part.capitalize() for part in [*name.split("_"), kind]),
        "hook": HOOKS[kind],
    }
    files = {
        "pyproject.toml": "plugin-pyproject.toml",
        "README.md": "plugin-README.md",
        "recipe.yaml": "plugin-recipe.yaml",
        f"{module}.py": f"plugin-{kind}.py",
        f"tests/test_{name}.py": f"plugin-{kind}-test.py",
    }
    write_all({folder / file: rendered(template, **values) for file, template in files.items()})
    quoted = printable(quote(str(folder)))
    click.echo(f"written: {quoted}, with the {kind} {name} in {module}.py")
    click.echo(f"  its tests:   python -m pytest {quoted}")
    click.echo(f"  install it:  pip install -e {quoted}")
    click.echo(f"  then:        selfloop plugins {name}; selfloop run {quoted}/recipe.yaml")


def _refuse_invalid_name(name: str) -> None:
    if name.strip("_").isidentifier() and name.isascii() and not keyword.iskeyword(name):
        return
    plain = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")
    advice = f", as in {plain!r}" if plain.isidentifier() and not keyword.iskeyword(plain) else ""
    raise SelfloopError(
        f"a plugin cannot be called {printable(name, MAX_NAME)!r}, for its name is also that of a "
        f"Python module: use letters, digits and '_'{advice}."
    )


def _refuse_used_name(name: str) -> None:
    """Raise for a name that a component, a command, a plugin or a module has already."""
    catalog = manager.load()
    owners = [(kind, offer.plugin) for kind, offer in catalog if offer.component.name == name]
    owners += [("command", plugin) for plugin, command in catalog.commands if command.name == name]
    owners += [("plugin", name)] if name in catalog.plugins or name in catalog.broken else []
    if owners:
        kind, plugin = owners[0]
        version = catalog.plugins.get(plugin, "broken")
        raise SelfloopError(
            f"a {kind} named {name!r} is installed already, by the plugin {plugin} ({version}). "
            "Choose another name."
        )
    if name in COMMANDS:
        raise SelfloopError(f"selfloop has a command {name}. Choose another name.")
    # `import selfloop_NAME` must find the new module, and no other
    if find_spec(f"selfloop_{name}"):
        raise SelfloopError(f"there is a module selfloop_{name} already. Choose another name.")
