"""The one table of selfloop's own plugins: rooms of `selfloop_plugins`, each of which is walked
for its modules.

To add a component is to add its module to the room of its kind. A module or folder whose name
starts with an underscore is a helper of its room and offers nothing. Plugins of other packages
register by the entry-point group `selfloop`.
"""

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

PACKAGE = "selfloop_plugins"

# Every module of these rooms is a plugin.
ROOMS = (
    "backends",
    "sources",
    "scorers",
    "detectors",
    "critics",
    "few_shot",
    "tuners",
    "observers",
    "commands",
)
# The only one of them with commands: `selfloop --help` does without the others.
COMMAND_ROOM = "commands"
# These are plugins themselves: a command or an observer, with all that it needs.
SINGLE = ("export", "export.dataset", "models.command", "report", "scaffold", "view")


def modules() -> Iterator[str]:
    """Yield the full name of each built-in plugin, in the order of the table."""
    for room in ROOMS:
        package = import_module(f"{PACKAGE}.{room}")
        for module in iter_modules(package.__path__):
            if not module.name.startswith("_"):
                yield f"{PACKAGE}.{room}.{module.name}"
    for name in SINGLE:
        yield f"{PACKAGE}.{name}"


def library() -> ModuleType:
    """Return the module with the library's functions that built-in plugins implement."""
    return import_module(f"{PACKAGE}.library")


def plugin_name(module: str) -> str:
    """Return the name that a built-in plugin goes by: `jsonl`, `export`, `models`."""
    place = module.removeprefix(f"{PACKAGE}.").removesuffix(".command")
    return place.rpartition(".")[2]


def may_have_commands(module: str) -> bool:
    """Return whether a built-in plugin can offer commands, seen from where it stands."""
    place = module.removeprefix(f"{PACKAGE}.")
    return place in SINGLE or place.startswith(f"{COMMAND_ROOM}.")
