"""Recipe + plugins -> the objects of one run.

What can be known to be wrong is said before a model loads.
"""

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from selfloop.config.components import ComponentUse, Spec, backend_capabilities, inner_spec
from selfloop.config.options import options_model
from selfloop.config.prompts import Prompts
from selfloop.config.recipe import ONES, Loaded
from selfloop.config.yaml_source import Loc
from selfloop.errors import DiskFullError, PluginError, RecipeError, SelfloopError
from selfloop.events import Event, Trouble
from selfloop.guard import Broken, guarded, said, stops_the_run
from selfloop.protocols import (
    Backend,
    Component,
    Critic,
    Demonstrator,
    Observer,
    QuestionSource,
    Scorer,
    Tuner,
    Verifier,
)
from selfloop.records import Adapter, AdapterProof, Failure
from selfloop.registry import signatures
from selfloop.registry.isolation import attributed_output, observer_output
from selfloop.storage.recorder import Recorder
from selfloop.storage.store import Store

P = TypeVar("P")
S = TypeVar("S", bound=Spec)


@dataclass(frozen=True)
class Named(Generic[P]):
    """A built component and the name it goes by; `share` is a source's, `minimum` a scorer's."""

    name: str
    part: P
    share: float = 1.0
    minimum: float | None = None


class Observers:
    """Passes events on.

    An observer that raises is noted, told to the others, and told nothing more but to close.
    """

    def __init__(self, observers: list[Named[Observer]]) -> None:
        self._observers = self._open = observers
        self.failures: list[Failure] = []

    def __call__(self, event: Event) -> None:
        """Tell every observer.

        Raises DiskFullError where one has no room for its file: a resumed run writes it.
        """
        for named in list(self._observers):
            # it may have been left out meanwhile, for raising at another's Trouble
            if named in self._observers:
                self._guarded(named, lambda observer: observer.notice(event))

    def close(self) -> None:
        """Let every observer finish."""
        still_open, self._open, self._observers = self._open, [], []
        for named in still_open:
            # the run has ended, or is being stopped for that very reason
            with suppress(DiskFullError):
                self._guarded(named, lambda observer: observer.close())

    def _guarded(self, named: Named[Observer], call: Callable[[Observer], None]) -> None:
        lost = guarded("observe", named.name, lambda: _showing(named, call))
        if isinstance(lost, Broken):
            self._observers = [other for other in self._observers if other is not named]
            self.failures.append(lost.failure)
            self(Trouble(0, lost.failure))


def _showing(named: Named[Observer], call: Callable[[Observer], None]) -> None:
    """Tell an observer, which may write to the standard output."""
    with observer_output(named.name):
        call(named.part)


@dataclass(frozen=True)
class Parts:
    """The objects of one run, as the steps use them."""

    backend: Recorder
    sources: list[Named[QuestionSource]]
    scorers: list[Named[Scorer]]
    verifiers: list[Named[Verifier]]
    critic: Named[Critic] | None
    demonstrator: Named[Demonstrator] | None
    tuner: Named[Tuner] | None
    notice: Observers
    prompts: Prompts
    folder: Path
    plugins: dict[str, str]

    def at_home(self, adapter: Adapter) -> Adapter:
        """Return the adapter with its path relative to the run's folder, if it lies there: runs may be moved."""
        path, home = Path(adapter.path).resolve(), self.folder.resolve()
        return (
            replace(adapter, path=str(path.relative_to(home)))
            if path.is_relative_to(home)
            else adapter
        )

    def load_adapter(self, adapter: Adapter | None) -> AdapterProof:
        """Load an adapter of this run, or the bare model."""
        return self.backend.load_adapter(
            adapter and replace(adapter, path=str(self.folder / adapter.path))
        )

    def close(self) -> None:
        """End the observers and free the model; what goes wrong here is left in `notice.failures`."""
        self.notice.close()
        lost = guarded("close", self.backend.name, self.backend.close)
        if isinstance(lost, Broken):
            self.notice.failures.append(lost.failure)


def check(loaded: Loaded) -> None:
    """Raise for what the recipe asks of its components that cannot be, without loading a model."""
    mistakes = _missing_capabilities(loaded)
    try:
        prompts(loaded)
    except RecipeError as error:
        mistakes.append((("prompts",), str(error)))
    loaded.complain(mistakes)
    for use in loaded.uses():
        if use.component.check is not None:
            options = options_of(use.component, use.spec, loaded.base)
            _attributed(use.kind, use.component, use.component.check, options)


def _missing_capabilities(loaded: Loaded) -> list[tuple[Loc, str]]:
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
            own = {"adapters"} if use.kind == "tuner" else set[str]()
            mistakes += _lacks(use, own, backend, use.loc, loaded)
    return mistakes


def _lacks(
    use: ComponentUse, more: set[str], backend: Spec, loc: Loc, loaded: Loaded
) -> Iterator[tuple[Loc, str]]:
    """Yield the capabilities that a component needs (and `more`) and `backend` lacks, as mistakes."""
    gives = backend_capabilities(backend, loaded.catalog)
    for capability in sorted((use.component.needs | more) - gives):
        known = ", ".join(sorted(gives)) or "none"
        lacks = f"which the backend {backend.kind} lacks. It has: {known}."
        yield loc, f"the {use.kind} {use.spec.kind} needs {capability}, {lacks}"


def prompts(loaded: Loaded) -> Prompts:
    """Return the built-in prompts, the plugins' own, and the recipe's in their place."""
    folders = {use.component.prompts for use in loaded.uses() if use.component.prompts}
    prompts = Prompts(sorted(folders))
    for name, file in loaded.recipe.prompts.items():
        prompts.replace(name, loaded.base / file)
    return prompts


def assemble(loaded: Loaded, folder: Path, store: Store, backend: Backend | None = None) -> Parts:
    """Build everything, the model last, or take `backend`.

    Raises PluginError for what cannot be built.
    """
    recipe = loaded.recipe

    def build(kind: str, spec: Spec) -> Any:
        return built(loaded, kind, spec, folder)

    sources = [Named(n, build("source", s), share=s.share) for n, s in numbered(recipe.ask.sources)]
    scorers = [
        Named(n, build("scorer", s), minimum=s.minimum) for n, s in numbered(recipe.ask.scorers)
    ]
    verifiers = [Named(n, build("verifier", s)) for n, s in numbered(recipe.verifiers)]
    ones = {
        k: Named(s.kind, build(k, s)) for k, _, s in recipe.specs() if k in ONES and k != "backend"
    }
    notice = Observers([Named(s.kind, build("observer", s)) for s in recipe.observers])
    try:
        recorder = Recorder(
            backend or build("backend", recipe.backend), store, notice, recipe.backend.kind
        )
    except BaseException:
        notice.close()
        raise
    return Parts(
        recorder,
        sources,
        scorers,
        verifiers,
        critic=ones.get("critic"),
        demonstrator=ones.get("demonstrator"),
        tuner=ones.get("tuner"),
        notice=notice,
        prompts=prompts(loaded),
        folder=folder,
        plugins=loaded.catalog.plugins,
    )


def built(loaded: Loaded, kind: str, spec: Spec, folder: Path) -> Any:
    """Build one component of a recipe, after the component that it wraps. Raises PluginError."""
    component = loaded.catalog.find(kind, spec.kind)
    options = options_of(component, spec, loaded.base, folder)
    wrapped = inner_spec(component, spec)
    if wrapped is None:
        part = _attributed(kind, component, component.build, options)
        return _require_methods(kind, component, part)
    inner = built(loaded, kind, wrapped, folder)
    try:
        options[component.wraps] = inner
        part = _attributed(kind, component, component.build, options)
        return _require_methods(kind, component, part)
    except BaseException:
        # Nobody else holds the inner component, which may be a model of many gigabytes.
        if callable(close := getattr(inner, "close", None)):
            guarded("close", wrapped.kind, close)
        raise


def numbered(specs: Sequence[S]) -> Iterator[tuple[str, S]]:
    """Yield each spec with a name of its own: `file`, `file-2`, ...

    where one kind is used more than once.
    """
    used: Counter[str] = Counter()
    for spec in specs:
        used[spec.kind] += 1
        yield spec.kind if used[spec.kind] == 1 else f"{spec.kind}-{used[spec.kind]}", spec


def options_of(
    component: Component, spec: Spec, base: Path, folder: Path | None = None
) -> dict[str, Any]:
    """Return the spec's options as `build` takes them, of the types its signature says.

    Paths are relative to the recipe, at `base`; so is an option `model`, if such a file is there.
    The component that this one wraps is not among them: it has options of its own.
    """
    model = options_model(component.build, component.wraps).model_validate_json(
        spec.model_dump_json(include=set(spec.options))
    )
    names = model.model_fields_set - {component.wraps}
    options = {name: _placed(name, getattr(model, name), base) for name in names}
    if folder and "folder" in inspect.signature(component.build).parameters:
        options["folder"] = folder
    return options


def _placed(name: str, value: Any, base: Path) -> Any:
    if isinstance(value, Path):
        return base / value
    if isinstance(value, list | tuple):
        return type(value)(_placed("", item, base) for item in value)
    if isinstance(value, dict):
        return {key: _placed("", item, base) for key, item in value.items()}
    return str(base / value) if name == "model" and (base / str(value)).is_file() else value


def _attributed(
    kind: str, component: Component, call: Callable[..., Any], options: dict[str, Any]
) -> Any:
    output = observer_output if kind == "observer" else attributed_output
    try:
        with output(component.name):
            return call(**options)
    except BaseException as error:
        if isinstance(error, SelfloopError) or stops_the_run(error):
            raise
        why = f"{type(error).__name__}: {said(error)}"
        raise PluginError(f"the {kind} {component.name} cannot be built: {why}") from error


def _require_methods(kind: str, component: Component, part: Any) -> Any:
    """Return `part` if a run can call it; raise PluginError for missing methods and wrong signatures."""
    faults = signatures.mistakes(kind, part, component.gives)
    if faults:
        raise PluginError(
            f"the {kind} {component.name} built a {type(part).__name__}, which "
            f"{'. It '.join(faults)}."
        )
    return part
