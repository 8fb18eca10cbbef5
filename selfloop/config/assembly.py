"""From a recipe and the plugins to the objects of one run.

Every mistake that can be seen without a model is reported before one loads.
"""

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from selfloop.config.components import ComponentSpec, ComponentUse, backend_capabilities, inner_spec
from selfloop.config.options import options_model
from selfloop.config.prompts import Prompts
from selfloop.config.recipe import LoadedRecipe
from selfloop.config.yaml_source import Loc
from selfloop.errors import DiskFullError, PluginError, RecipeError, SelfloopError
from selfloop.events import ComponentFailed, Event
from selfloop.guard import Failed, capture, safe_message, stops_the_run
from selfloop.protocols import (
    Backend,
    Component,
    Critic,
    Detector,
    FewShotSelector,
    Observer,
    QuestionSource,
    Scorer,
    Tuner,
)
from selfloop.records import Adapter, AdapterProof, Failure, ModelState
from selfloop.registry import signatures
from selfloop.registry.isolation import attributed_output, observer_output
from selfloop.storage.recorder import Recorder
from selfloop.storage.store import Store

P = TypeVar("P")
S = TypeVar("S", bound=ComponentSpec)


@dataclass(frozen=True)
class NamedComponent(Generic[P]):
    """A built component and the name it goes by.

    `weight` is a source's, `min_score` a scorer's, and `reads` a detector's: the model that it asks
    and reads.
    """

    name: str
    part: P
    weight: float = 1.0
    min_score: float | None = None
    reads: ModelState = "base"


class Observers:
    """Passes events on to all observers.

    An observer that raises gets no more events, but it is closed. Its failure goes to the others.
    """

    def __init__(self, observers: list[NamedComponent[Observer]]) -> None:
        self._observers = observers  # those that get events
        self._open = observers  # those that are still to be closed
        self.failures: list[Failure] = []

    def emit(self, event: Event) -> None:
        """Pass an event to every observer.

        Raises DiskFullError where one has no room for its file: a resumed run writes it.
        """
        for named in list(self._observers):
            # it may have been left out meanwhile, for raising at another's `ComponentFailed`
            if named in self._observers:
                self._guarded(named, lambda observer: observer.on_event(event))

    def close(self) -> None:
        """Let every observer finish."""
        still_open, self._open, self._observers = self._open, [], []
        for named in still_open:
            # the run has ended, or is being stopped for that very reason
            with suppress(DiskFullError):
                self._guarded(named, lambda observer: observer.close())

    def _guarded(self, named: NamedComponent[Observer], call: Callable[[Observer], None]) -> None:
        result = capture("observe", named.name, partial(_call_observer, named, call))
        if isinstance(result, Failed):
            self._observers = [other for other in self._observers if other is not named]
            self.failures.append(result.failure)
            # the others may show it; one that breaks at this event is left out in the same way
            self.emit(ComponentFailed(0, result.failure))


def _call_observer(named: NamedComponent[Observer], call: Callable[[Observer], None]) -> None:
    """Call an observer, which may write to the standard output."""
    with observer_output(named.name):
        call(named.part)


@dataclass(frozen=True)
class Pipeline:
    """The objects of one run, as the steps use them."""

    backend: Recorder
    sources: list[NamedComponent[QuestionSource]]
    scorers: list[NamedComponent[Scorer]]
    detectors: list[NamedComponent[Detector]]
    critic: NamedComponent[Critic] | None
    few_shot: NamedComponent[FewShotSelector] | None
    tuner: NamedComponent[Tuner] | None
    observers: Observers
    prompts: Prompts
    folder: Path
    plugins: dict[str, str]

    def at_home(self, adapter: Adapter) -> Adapter:
        """Return the adapter with its path relative to the run's folder, if it lies there.

        So a run can be moved.
        """
        path, home = Path(adapter.path).resolve(), self.folder.resolve()
        if not path.is_relative_to(home):
            return adapter
        return replace(adapter, path=str(path.relative_to(home)))

    def load_adapter(self, adapter: Adapter | None) -> AdapterProof:
        """Load an adapter of this run, or the bare model."""
        if adapter is not None:
            adapter = replace(adapter, path=str(self.folder / adapter.path))
        return self.backend.load_adapter(adapter)

    def close(self) -> None:
        """Close the observers and free the model. Failures of this go into `observers.failures`."""
        self.observers.close()
        result = capture("close", self.backend.name, self.backend.close)
        if isinstance(result, Failed):
            self.observers.failures.append(result.failure)


def check(loaded: LoadedRecipe) -> None:
    """Raise for a demand of the recipe that its components cannot meet, without loading a model."""
    mistakes = _missing_capabilities(loaded)
    try:
        prompts(loaded)
    except RecipeError as error:
        mistakes.append((("prompts",), str(error)))
    loaded.complain(mistakes)
    for use in loaded.uses():
        if use.component.check is not None:
            options = options_of(use.component, use.spec, loaded.base)
            _call_component(use.kind, use.component, use.component.check, options)


def _missing_capabilities(loaded: LoadedRecipe) -> list[tuple[Loc, str]]:
    """Return a mistake for each capability that a component needs and the backend lacks."""
    backend = loaded.recipe.backend
    mistakes: list[tuple[Loc, str]] = []
    for use in loaded.uses():
        if use.kind == "backend":
            # A backend needs nothing of itself, but of the one that it wraps.
            inner = inner_spec(use.component, use.spec)
            if inner is not None:
                place = (*use.loc, use.component.wraps)
                mistakes += _lacks(use, set(), inner, place, loaded)
        else:
            always_needed = {"adapters"} if use.kind == "tuner" else set[str]()
            mistakes += _lacks(use, always_needed, backend, use.loc, loaded)
    return mistakes


def _lacks(
    use: ComponentUse, more: set[str], backend: ComponentSpec, loc: Loc, loaded: LoadedRecipe
) -> Iterator[tuple[Loc, str]]:
    """Yield a mistake for each capability that a component needs, or in `more`, and lacks."""
    gives = backend_capabilities(backend, loaded.catalog)
    for capability in sorted((use.component.needs | more) - gives):
        known = ", ".join(sorted(gives)) or "none"
        lacks = f"which the backend {backend.kind} lacks. It has: {known}."
        yield loc, f"the {use.kind} {use.spec.kind} needs {capability}, {lacks}"


def prompts(loaded: LoadedRecipe) -> Prompts:
    """Return the built-in prompts, the plugins' own, and the recipe's in their place."""
    folders = {use.component.prompts for use in loaded.uses() if use.component.prompts}
    collection = Prompts(sorted(folders))
    for name, file in loaded.recipe.prompts.items():
        collection.replace(name, loaded.base / file)
    return collection


def assemble(
    loaded: LoadedRecipe, folder: Path, store: Store, backend: Backend | None = None
) -> Pipeline:
    """Build every component of a recipe, the backend last: that may load a model.

    With `backend` none is built.

    Raises PluginError for a component that cannot be built.
    """
    recipe = loaded.recipe

    def build(kind: str, spec: ComponentSpec) -> Any:
        return build_component(loaded, kind, spec, folder)

    def build_optional(kind: str, spec: ComponentSpec | None) -> NamedComponent[Any] | None:
        return None if spec is None else NamedComponent(spec.kind, build(kind, spec))

    sources = [
        NamedComponent(name, build("source", spec), weight=spec.weight)
        for name, spec in numbered(recipe.ask.sources)
    ]
    scorers = [
        NamedComponent(name, build("scorer", spec), min_score=spec.min_score)
        for name, spec in numbered(recipe.ask.scorers)
    ]
    detectors: list[NamedComponent[Detector]] = []
    for name, spec in numbered(recipe.detectors):
        reads = spec.with_ or loaded.catalog.find("detector", spec.kind).reads
        detectors.append(NamedComponent(name, build("detector", spec), reads=reads))
    critic = build_optional("critic", recipe.critique)
    selector = build_optional("few_shot", recipe.few_shot)
    tuner = build_optional("tuner", recipe.tuner)
    # These may open files, which are closed if the backend cannot be built.
    observers = Observers(
        [NamedComponent(spec.kind, build("observer", spec)) for spec in recipe.observers]
    )
    try:
        backend = backend or build("backend", recipe.backend)
        recorder = Recorder(backend, store, observers.emit, recipe.backend.kind)
    except BaseException:
        observers.close()
        raise
    return Pipeline(
        recorder,
        sources,
        scorers,
        detectors,
        critic=critic,
        few_shot=selector,
        tuner=tuner,
        observers=observers,
        prompts=prompts(loaded),
        folder=folder,
        plugins=loaded.catalog.plugins,
    )


def build_component(loaded: LoadedRecipe, kind: str, spec: ComponentSpec, folder: Path) -> Any:
    """Build one component of a recipe, after the component that it wraps. Raises PluginError."""
    component = loaded.catalog.find(kind, spec.kind)
    options = options_of(component, spec, loaded.base, folder)
    wrapped = inner_spec(component, spec)
    if wrapped is None:
        part = _call_component(kind, component, component.build, options)
        return _require_methods(kind, component, part)
    inner = build_component(loaded, kind, wrapped, folder)
    try:
        options[component.wraps] = inner
        part = _call_component(kind, component, component.build, options)
        return _require_methods(kind, component, part)
    except BaseException:
        # Nobody else holds the inner component, which may be a model of many gigabytes.
        close = getattr(inner, "close", None)
        if callable(close):
            capture("close", wrapped.kind, close)
        raise


def numbered(specs: Sequence[S]) -> Iterator[tuple[str, S]]:
    """Yield each spec with a unique name: `file`, and `file-2` for the second of that kind."""
    used: Counter[str] = Counter()
    for spec in specs:
        used[spec.kind] += 1
        yield spec.kind if used[spec.kind] == 1 else f"{spec.kind}-{used[spec.kind]}", spec


def options_of(
    component: Component, spec: ComponentSpec, base: Path, folder: Path | None = None
) -> dict[str, Any]:
    """Return the spec's options as `build` takes them, converted to the types in its signature.

    Paths are relative to the recipe, at `base`; so is an option `model`, if such a file is there.
    The component that this one wraps is not among them: it has options of its own.
    """
    model = options_model(component.build, component.wraps).model_validate_json(
        spec.model_dump_json(include=set(spec.options))
    )
    names = model.model_fields_set - {component.wraps}
    options = {name: _with_base(getattr(model, name), base) for name in names}
    # a model is a file here, or else a name that the backend knows
    if isinstance(options.get("model"), str) and (base / options["model"]).is_file():
        options["model"] = str(base / options["model"])
    if folder and "folder" in inspect.signature(component.build).parameters:
        options["folder"] = folder
    return options


def _with_base(value: Any, base: Path) -> Any:
    """Return an option's value with every path in it below `base`; an absolute one stays."""
    if isinstance(value, Path):
        return base / value
    if isinstance(value, list | tuple):
        return type(value)(_with_base(item, base) for item in value)
    if isinstance(value, dict):
        return {key: _with_base(item, base) for key, item in value.items()}
    return value


def _call_component(
    kind: str, component: Component, call: Callable[..., Any], options: dict[str, Any]
) -> Any:
    output = observer_output if kind == "observer" else attributed_output
    try:
        with output(component.name):
            return call(**options)
    except BaseException as error:
        if isinstance(error, SelfloopError) or stops_the_run(error):
            raise
        why = f"{type(error).__name__}: {safe_message(error)}"
        raise PluginError(f"the {kind} {component.name} cannot be built: {why}") from error


def _require_methods(kind: str, component: Component, part: Any) -> Any:
    """Return `part` if a run can call it.

    Raises PluginError for missing methods and wrong signatures.
    """
    faults = signatures.mistakes(kind, part, component.gives)
    if faults:
        raise PluginError(
            f"the {kind} {component.name} built a {type(part).__name__}, which "
            f"{'. It '.join(faults)}."
        )
    return part
