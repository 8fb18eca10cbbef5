"""Recipe + plugins -> the objects of one run. What can be known to be wrong is said before a model loads."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from selfloop.errors import PluginError, RecipeError, SelfloopError
from selfloop.events import Event, Trouble
from selfloop.prompts import Prompts
from selfloop.protocols import Backend, Component, Observer, QuestionSource, Scorer, Tuner, Verifier
from selfloop.options import options_model
from selfloop.recipe import Loaded, Spec
from selfloop.recorder import Recorder
from selfloop.records import Failure
from selfloop.store import Store
from selfloop.yaml_source import Loc

P = TypeVar("P")


@dataclass(frozen=True)
class Named(Generic[P]):
    """A built component and the name it goes by; `share` is a source's, `minimum` a scorer's."""

    name: str
    part: P
    share: float = 1.0
    minimum: float | None = None


class Observers:
    """Passes events on. An observer that raises is noted, told to the others, and left out from then on."""

    def __init__(self, observers: list[Named[Observer]]) -> None:
        self._observers = observers
        self.failures: list[Failure] = []

    def __call__(self, event: Event) -> None:
        """Tell every observer."""
        self._each(lambda observer: observer.notice(event))

    def close(self) -> None:
        """Let every observer finish."""
        self._each(lambda observer: observer.close())
        self._observers = []

    def _each(self, call: Callable[[Observer], None]) -> None:
        for named in list(self._observers):
            try:
                call(named.part)
            except Exception as error:  # noqa: BLE001  an observer may raise anything; the run goes on
                self._observers.remove(named)
                failure = Failure("observe", named.name, type(error).__name__, str(error)[:500])
                self.failures.append(failure)
                self(Trouble(0, failure))


@dataclass(frozen=True)
class Parts:
    """The objects of one run, as the steps use them."""

    backend: Recorder
    sources: list[Named[QuestionSource]]
    scorers: list[Named[Scorer]]
    verifiers: list[Named[Verifier]]
    tuner: Named[Tuner] | None
    notice: Observers
    prompts: Prompts
    folder: Path
    plugins: dict[str, str]

    def close(self) -> None:
        """End the observers and free the model."""
        self.notice.close()
        self.backend.close()


def check(loaded: Loaded) -> None:
    """Raise for what the recipe asks of its components that cannot be, without loading a model."""
    recipe, catalog = loaded.recipe, loaded.catalog
    backend = catalog.find("backend", recipe.backend.kind)
    mistakes: list[tuple[Loc, str]] = []
    wanted = {"tuner": frozenset({"adapters"})}
    for kind, loc, spec in recipe.specs():
        needs = catalog.find(kind, spec.kind).needs | wanted.get(kind, frozenset())
        for capability in sorted(needs - backend.gives) if kind != "backend" else ():
            gives = ", ".join(sorted(backend.gives)) or "none"
            mistakes.append(
                (
                    loc,
                    f"the {kind} {spec.kind} needs {capability}, which the backend {backend.name} lacks. It has: {gives}.",
                )
            )
    try:
        prompts(loaded)
    except RecipeError as error:
        mistakes.append((("prompts",), str(error)))
    loaded.complain(mistakes)
    if backend.check is not None:
        _attributed("backend", backend, backend.check, _options(backend, recipe.backend, loaded.base))


def prompts(loaded: Loaded) -> Prompts:
    """Return the built-in prompts, the plugins' own, and the recipe's in their place."""
    folders = {offer.component.prompts for _, offer in loaded.catalog if offer.component.prompts}
    found = Prompts(sorted(folders))
    for name, file in loaded.recipe.prompts.items():
        found.replace(name, loaded.base / file)
    return found


def assemble(loaded: Loaded, folder: Path, store: Store) -> Parts:
    """Build everything, the model last. Raises PluginError for a component that cannot be built."""
    recipe = loaded.recipe

    def build(kind: str, spec: Spec) -> Any:
        component = loaded.catalog.find(kind, spec.kind)
        return _attributed(kind, component, component.build, _options(component, spec, loaded.base, folder))

    sources = [Named(s.kind, build("source", s), share=s.share) for s in recipe.ask.sources]
    scorers = [Named(s.kind, build("scorer", s), minimum=s.minimum) for s in recipe.ask.scorers]
    verifiers = [Named(s.kind, build("verifier", s)) for s in recipe.verifiers]
    tuner = Named(recipe.tuner.kind, build("tuner", recipe.tuner)) if recipe.tuner else None
    notice = Observers([Named(s.kind, build("observer", s)) for s in recipe.observers])
    try:
        backend: Backend = build("backend", recipe.backend)
        recorder = Recorder(backend, store, notice)
    except BaseException:
        notice.close()
        raise
    return Parts(recorder, sources, scorers, verifiers, tuner, notice, prompts(loaded), folder, loaded.catalog.plugins)


def _options(component: Component, spec: Spec, base: Path, folder: Path | None = None) -> dict[str, Any]:
    """Return the spec's options as `build` takes them, of the types its signature says.

    Paths are relative to the recipe, at `base`; so is an option `model`, if such a file is there.
    """
    model = options_model(component.build).model_validate_json(spec.model_dump_json(include=set(spec.options)))
    options = {name: _placed(name, getattr(model, name), base) for name in model.model_fields_set}
    if folder and "folder" in inspect.signature(component.build).parameters:
        options["folder"] = folder
    return options


def _placed(name: str, value: Any, base: Path) -> Any:
    if isinstance(value, Path):
        return base / value
    return str(base / value) if name == "model" and (base / str(value)).is_file() else value


def _attributed(kind: str, component: Component, call: Callable[..., Any], options: dict[str, Any]) -> Any:
    try:
        return call(**options)
    except SelfloopError:
        raise
    except Exception as error:
        raise PluginError(f"the {kind} {component.name} cannot be built: {type(error).__name__}: {error}") from error
