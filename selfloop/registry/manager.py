"""Finds plugins, calls their hooks, and keeps their components in a `Catalog` that a recipe picks
from by name.

Built-in plugins come from the table in `builtin`, those of other packages from the entry-point
group `selfloop`, and a recipe may name single `.py` files. Each hook is called plugin by plugin and
not through pluggy's multicall, where one that raises stops the rest and nobody learns which it was.
"""

import importlib.util
import inspect
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache, partial
from importlib import import_module
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, get_args

import pluggy

from selfloop._version import __version__
from selfloop.errors import PluginError, RecipeError, did_you_mean
from selfloop.records import ModelState
from selfloop.registry import builtin
from selfloop.registry.hookspecs import PLUGIN_API, PROJECT, Hooks
from selfloop.registry.isolation import imports_of_plugins, unchanged_process
from selfloop.registry.signatures import mistakes_of_class

if TYPE_CHECKING:
    import click

    from selfloop.protocols import Component

HOOKS = {
    "backend": "selfloop_backends",
    "source": "selfloop_question_sources",
    "scorer": "selfloop_scorers",
    "detector": "selfloop_detectors",
    "critic": "selfloop_critics",
    "few_shot": "selfloop_few_shot",
    "tuner": "selfloop_tuners",
    "observer": "selfloop_observers",
}
COMMANDS_HOOK = "selfloop_commands"
API_NAME = "SELFLOOP_PLUGIN_API"  # the name by which a module says its version of the plugin API
MAX_MESSAGE = 500  # characters of a plugin's own message that are quoted
# how like a hook's name (0 to 1, difflib) an undecorated function's is to be taken for a hook
MIN_SIMILARITY = 0.8


@dataclass(frozen=True)
class Provided:
    """A component and the plugin it comes from.

    `origin` is the plugin with its package: `doubt (selfloop-doubt 1.0)`.
    """

    component: "Component"
    plugin: str
    origin: str = ""


@dataclass
class Catalog:
    """The installed components by kind and name, the commands by plugin, and the plugins that could
    not be used.

    `plugins` has the package and version of each plugin, or the path of its file. The commands of
    selfloop's own plugins come first.
    """

    # by kind and name; a list of more than one is a clash of names
    components: dict[str, dict[str, list[Provided]]] = field(
        default_factory=lambda: {kind: {} for kind in HOOKS}
    )
    commands: list[tuple[str, "click.Command"]] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    plugins: dict[str, str] = field(default_factory=dict)

    def find(self, kind: str, name: str) -> "Component":
        """Return the one component of that kind and name.

        Raises RecipeError if it is not installed, PluginError if two plugins offer it.
        """
        by_name = self.components[kind]
        if name not in by_name:
            # it may be the component of a plugin that could not be imported
            lost = "".join(
                f" (The plugin {p} could not be used: {why})" for p, why in self.broken.items()
            )
            installed = ", ".join(sorted(by_name)) or "none"
            raise RecipeError(
                f"no {kind} named {name!r}.{did_you_mean(name, by_name)} Installed: "
                f"{installed}.{lost}"
            )
        offers = by_name[name]
        if len(offers) > 1:
            raise PluginError(_clash_message(kind, name, offers))
        return offers[0].component

    def plugin_of(self, kind: str, name: str) -> str:
        """Return the name of the plugin that a component comes from."""
        return self.components[kind][name][0].plugin

    def clashes(self) -> list[str]:
        """Return a message for each name that two plugins use for components of one kind."""
        messages = []
        for kind, by_name in self.components.items():
            for name, offers in by_name.items():
                if len(offers) > 1:
                    messages.append(_clash_message(kind, name, offers))
        return messages

    def commands_beside(
        self, core: Mapping[str, str]
    ) -> tuple[dict[str, "click.Command"], dict[str, str]]:
        """Return the commands of plugins by name, and which are left out and why.

        The commands `core` stay whatever plugins offer. After them, those of selfloop's own plugins
        stay, for these come first in `commands`.
        """
        commands: dict[str, click.Command] = {}
        owners = dict.fromkeys(core, PROJECT)
        left_out: dict[str, str] = {}
        for plugin, command in self.commands:
            name = str(command.name)
            if name in owners:
                why = (
                    f"{owners[name]} has a command of that name, which stays. Rename this one, or "
                    f"uninstall {self.plugins[plugin]}."
                )
                left_out[f"{plugin}'s command {name}"] = why
            else:
                owners[name] = f"{plugin} ({self.plugins[plugin]})"
                commands[name] = command
        return commands, left_out

    def __iter__(self) -> Iterator[tuple[str, Provided]]:
        for kind, by_name in self.components.items():
            for offers in by_name.values():
                for offer in offers:
                    yield kind, offer


def _clash_message(kind: str, name: str, offers: list[Provided]) -> str:
    origins = " and ".join(offer.origin for offer in offers)
    return (
        f"two plugins offer a {kind} named {name!r}: {origins}. Uninstall one of them, or rename "
        "its component."
    )


def load(files: tuple[Path, ...] = (), *, commands_only: bool = False) -> Catalog:
    """Return everything that plugins offer: the built-in ones, those of other packages, and
    `files`.

    With `commands_only` the built-in plugins that cannot have commands are not imported: that is a
    quarter of the time that `selfloop --help` takes.

    An installed plugin that is broken is left out and noted in `broken`; a file that the recipe
    names raises PluginError, for the run cannot be right without it.
    """
    catalog = Catalog()
    own_package = f"{PROJECT} {__version__}"
    taken_names = set[str]()
    with imports_of_plugins() as interrupted:
        for module in builtin.modules():
            name = builtin.plugin_name(module)
            taken_names.add(name)
            if commands_only and not builtin.may_have_commands(module):
                continue
            importing = partial(import_module, module)
            _add_installed(catalog, name, importing, own_package, interrupted)
        for entry in sorted(entry_points(group=PROJECT), key=_by_name):
            package = _package(entry.dist) or entry.value
            name = entry.name if entry.name not in taken_names else f"{entry.name} of {package}"
            taken_names.add(name)
            _add_installed(catalog, name, entry.load, package, interrupted)
        for path in files:
            file_module = import_file(path, interrupted)
            add = partial(_add_plugin, catalog, path.name, file_module, str(path))
            _attribute_errors(path.name, "could not be used", add, interrupted)
    return catalog


def _add_installed(
    catalog: Catalog,
    name: str,
    importing: Callable[[], Any],
    package: str,
    interrupted: Callable[[], bool],
) -> None:
    """Add an installed plugin to the catalogue, or note there why it is left out."""
    try:
        module = _attribute_errors(name, "could not be imported", importing, interrupted)
        add = partial(_add_plugin, catalog, name, module, package)
        _attribute_errors(name, "could not be used", add, interrupted)
    except PluginError as error:
        why = str(error).rstrip(".")
        catalog.broken[name] = f"{why}. It comes from {package}."


def _by_name(entry: EntryPoint) -> tuple[str, str]:
    return entry.name, _package(entry.dist)


# each look into a distribution reads its file again, and many plugins come in one
@lru_cache(maxsize=16)
def _package(dist: Distribution | None) -> str:
    return f"{dist.name} {dist.version}" if dist else ""


def import_file(path: Path, interrupted: Callable[[], bool] = bool) -> ModuleType:
    """Import one `.py` file as a plugin."""
    # a module of a name of its own: `json.py` must not stand in for Python's
    spec = importlib.util.spec_from_file_location(f"selfloop_file_plugin_{path.stem}", path)
    if path.suffix != ".py" or not path.is_file() or spec is None or spec.loader is None:
        raise PluginError(f"plugin {path}: no such .py file. Paths are relative to the recipe.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # before it runs: dataclasses and pickle look there
    running = partial(spec.loader.exec_module, module)
    _attribute_errors(path.name, "could not be imported", running, interrupted)
    return module


def _attribute_errors(
    plugin: str, failure: str, call: Callable[[], Any], interrupted: Callable[[], bool] = bool
) -> Any:
    """Return the result of `call`. Whatever it raises becomes a PluginError, except Ctrl-C.

    `failure` is the message's verb: `could not be imported`. `interrupted` returns whether the user
    pressed Ctrl-C: without that, a plugin that raises KeyboardInterrupt is just broken.
    """
    try:
        with unchanged_process(plugin):
            return call()
    except BaseException as error:
        ctrl_c = isinstance(error, KeyboardInterrupt) and interrupted()
        named = isinstance(error, PluginError) and str(error).startswith(f"plugin {plugin}")
        if ctrl_c or named:
            raise
        raise PluginError(
            f"plugin {plugin} {failure}: {type(error).__name__}: {_safe_message(error)}"
        ) from error


def _safe_message(error: BaseException) -> str:
    try:
        return str(error)[:MAX_MESSAGE]
    except Exception:  # noqa: BLE001  a `__str__` may raise too
        return "(its message cannot be read)"


def _add_plugin(catalog: Catalog, name: str, plugin: Any, version: str) -> None:
    """Add the components and commands of a plugin.

    It is registered with a manager of its own, so that every complaint is about it.
    """
    # A newer API may have other hooks: its version is the first thing to complain about.
    fault = _api_fault(getattr(plugin, API_NAME, 1))
    if fault:
        raise PluginError(f"plugin {name}: {API_NAME} {fault}")
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Hooks)
    register = partial(manager.register, plugin, name=name)
    _attribute_errors(name, "does not fit the hooks", register)
    hooks = [hook for hook in dir(Hooks) if hook.startswith(f"{PROJECT}_")]
    _refuse_misspelt(name, plugin, manager, hooks)
    offers = {kind: _call_hook(name, manager, hook) for kind, hook in HOOKS.items()}
    commands = _call_hook(name, manager, COMMANDS_HOOK)
    # Every hook has answered, and every component is looked at before one is added: a plugin is
    # taken whole or not at all.
    origin = name if name.endswith(version) else f"{name} ({version})"
    for kind, components in offers.items():
        _refuse_twice(name, HOOKS[kind], [component.name for component in components])
        for component in components:
            _refuse_wrong_calls(name, kind, component)
    for kind, components in offers.items():
        for component in components:
            catalog.components[kind].setdefault(component.name, []).append(
                Provided(component, name, origin)
            )
    catalog.commands += [(name, command) for command in commands]
    catalog.plugins[name] = version


def _api_fault(version: Any) -> str:
    """Return the fault of the API version that a plugin was written for, or an empty string."""
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        return (
            f"is {version!r:.40}, not a whole number from 1 on. Write the version as in "
            f"{API_NAME} = 1."
        )
    if version > PLUGIN_API:
        return (
            f"is {version}, and selfloop {__version__} has the plugin API {PLUGIN_API}. Update "
            "selfloop: pip install --upgrade selfloop"
        )
    return ""


def _refuse_wrong_calls(plugin: str, kind: str, component: "Component") -> None:
    """Raise for a class with a method that a run could not call, before a model is loaded."""
    faults = mistakes_of_class(kind, component.build)
    if faults:
        raise PluginError(f"plugin {plugin}: the {kind} {component.name} {'. It '.join(faults)}.")


def _refuse_twice(plugin: str, hook: str, names: list[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise PluginError(
                f"plugin {plugin}: {hook} lists two Components named {name!r}. Rename one of them."
            )


def _refuse_misspelt(
    name: str, plugin: Any, manager: pluggy.PluginManager, hooks: list[str]
) -> None:
    """Raise for a hook that nobody would ever call: misspelt, or without its decorator."""
    decorated = {caller.name for caller in manager.get_hookcallers(plugin) or []}
    for hook in sorted(decorated - set(hooks)):
        raise PluginError(
            f"plugin {name}: there is no hook {hook}.{did_you_mean(hook, hooks)} Hooks: "
            f"{', '.join(hooks)}."
        )
    for attribute in sorted(set(dir(plugin)) - decorated):
        # only a name close to a hook's is meant as one: helpers may begin with `selfloop_` too
        if not attribute.startswith(f"{PROJECT}_") or not callable(getattr(plugin, attribute)):
            continue
        if get_close_matches(attribute, hooks, n=1, cutoff=MIN_SIMILARITY):
            raise PluginError(
                f"plugin {name}: {attribute} is not decorated with selfloop.hookimpl, so it would "
                "never be called."
            )


def _call_hook(name: str, manager: pluggy.PluginManager, hook: str) -> list[Any]:
    """Return the components (or click commands) that one plugin's hook lists.

    Raises PluginError if the hook raises, or lists anything else.
    """
    offers: list[Any] = []
    # at most one: the plugin is alone in its manager
    for implementation in getattr(manager.hook, hook).get_hookimpls():
        listed = _attribute_errors(name, f"raised in {hook}", implementation.function)
        if not isinstance(listed, list | tuple):
            raise PluginError(
                f"plugin {name}: {hook} must return a list, not {type(listed).__name__}."
            )
        offers += listed
    # by the class's name, for click must not be imported here just to look at it
    wanted = "Command" if hook == COMMANDS_HOOK else "Component"
    for offer in offers:
        if wanted not in {base.__name__ for base in type(offer).__mro__}:
            raise PluginError(
                f"plugin {name}: {hook} must list {wanted}s, but one of them is a "
                f"{type(offer).__name__}."
            )
        fault = _field_fault(offer) if wanted == "Component" else ""
        if fault:
            raise PluginError(
                f"plugin {name}: {hook} lists a Component {offer.name!r} whose {fault}."
            )
    return offers


def _field_fault(component: "Component") -> str:
    """Return the fault of a component's fields, as the end of a sentence, or an empty string."""
    if (
        not isinstance(component.name, str)
        or not component.name.strip()
        or not component.name.isprintable()
    ):
        return "name is not text"
    api_fault = _api_fault(component.api)
    if api_fault:
        return f"api {api_fault.rstrip('.')}"
    texts = (component.doc, component.paper, component.extra, component.wraps, component.docs)
    if not all(isinstance(text, str) for text in texts):
        return "doc, paper, extra, wraps and docs must be text"
    if not callable(component.build):
        return f"build is a {type(component.build).__name__}, not a class or function"
    if component.wraps and not _takes(component.build, component.wraps):
        return (
            f"wraps is {component.wraps!r}, which its build does not take. Name one of its options"
        )
    if not all(isinstance(words, frozenset | set) for words in (component.needs, component.gives)):
        return "needs and gives must be sets of words, as in frozenset({'logprobs'})"
    if not isinstance(component.writes, frozenset | set):
        return "writes must be a set of options, as in frozenset({'out'})"
    for name in ("check", "estimate", "advise"):
        function = getattr(component, name)
        if function is not None and not callable(function):
            return f"{name} is a {type(function).__name__}, not a function"
    if component.prompts is not None and not isinstance(component.prompts, Path):
        return f"prompts is a {type(component.prompts).__name__}, not a Path"
    return _treatment_fault(component)


def _treatment_fault(component: "Component") -> str:
    """Return the fault of the fields by which selfloop treats a component, or an empty string."""
    if not isinstance(component.local, bool) or not isinstance(component.interactive, bool):
        return "local and interactive must be True or False"
    if component.reads not in get_args(ModelState):
        return "reads must be 'base' or 'tuned'"
    return ""


def _takes(build: Callable[..., Any], name: str) -> bool:
    """Return whether `build` has that parameter; True for an unreadable one, refused later."""
    try:
        return name in inspect.signature(build).parameters
    except (TypeError, ValueError):
        return True
