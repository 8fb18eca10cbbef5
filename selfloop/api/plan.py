"""`selfloop.plan`: how long a recipe takes on this machine, and how much memory, before it runs."""

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from selfloop import system
from selfloop.api.recipes import Changes, RecipeLike, loaded_recipe
from selfloop.config.assembly import build_component
from selfloop.config.components import TunerSpec
from selfloop.config.recipe import LoadedRecipe, Recipe
from selfloop.errors import NothingAnsweredError, SelfloopError, StoppedError
from selfloop.failed_steps import nothing_answered, unanswered
from selfloop.forecast.estimate import Forecast, forecast
from selfloop.protocols import CAPABILITIES
from selfloop.records import Attempt
from selfloop.text.units import size

BUDGET_S = 10.0  # to measure for, unless the caller says otherwise


@dataclass(frozen=True)
class Capability:
    """A capability of backends: whether the recipe's has it, and which components need it."""

    name: str
    is_given: bool
    needed_by: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """Return the capability as data for JSON."""
        return {
            "capability": self.name,
            "given": self.is_given,
            "needed_by": list(self.needed_by),
        }


@dataclass(frozen=True)
class Plan:
    """The forecast of a run: seconds, bytes of memory and disk, capabilities and warnings.

    `free_disk` are the bytes free where the runs are.
    """

    recipe: Recipe = field(repr=False)
    forecast: Forecast = field(repr=False)
    capabilities: tuple[Capability, ...]
    warnings: tuple[str, ...]
    free_disk: int = field(repr=False)

    @property
    def seconds(self) -> float:
        """How long the run will take."""
        return self.forecast.seconds

    @property
    def memory(self) -> int | None:
        """The bytes of memory that the run needs at most; None where the system does not tell."""
        return self.forecast.memory

    @property
    def disk(self) -> int:
        """The bytes that the run's folder will take."""
        return self.forecast.disk

    def __repr__(self) -> str:
        return (
            f"Plan({self.recipe.name!r}, seconds={self.seconds:.1f}, memory={self.memory}, "
            f"disk={self.disk}, warnings={list(self.warnings)})"
        )

    def plain(self) -> dict[str, Any]:
        """Return the plan as data for JSON."""
        estimate, sample = self.forecast, self.forecast.sample
        model = asdict(estimate.model) | {"capabilities": sorted(estimate.model.capabilities)}
        return {
            "seconds": estimate.seconds,
            "loading": estimate.loading,
            "steps": [asdict(part) for part in estimate.parts],
            "memory": estimate.memory,
            "disk": estimate.disk,
            "model": model,
            "sample": {
                "questions": sample.questions,
                "rounds": sample.rounds,
                "asked": sample.asked,
                "seconds": sample.seconds,
            },
            "capabilities": [capability.plain() for capability in self.capabilities],
            "warnings": list(self.warnings),
        }


def plan(
    recipe: RecipeLike,
    changes: Changes = (),
    *,
    seconds: float = BUDGET_S,
    runs: Path | str = "runs",
) -> Plan:
    """Forecast a run of a recipe: load its model, and play a round or two of a few questions.

    The measurement takes about `seconds`, and nothing of it is kept. `runs` is the folder whose
    disk the run would use.

    Raises SelfloopError for a recipe that cannot run, NothingAnsweredError where every question of
    the sample failed.
    """
    return plan_loaded(loaded_recipe(recipe, changes), seconds, Path(runs))


def plan_loaded(loaded: LoadedRecipe, seconds: float, runs: Path) -> Plan:
    """Forecast a run of a recipe that is loaded already; see `plan`."""
    try:
        estimate = forecast(loaded, seconds)
    except KeyboardInterrupt:
        raise StoppedError("stopped; nothing was kept.") from None
    _refuse_unanswered(estimate)
    free_disk = shutil.disk_usage(_existing(runs)).free
    return Plan(
        loaded.recipe,
        estimate,
        tuple(_capabilities(loaded, estimate)),
        tuple(_warnings(loaded, estimate, free_disk)),
        free_disk,
    )


def _refuse_unanswered(estimate: Forecast) -> None:
    """Raise NothingAnsweredError where every question of the sample failed.

    Errors take next to no time, so such a forecast would be far too short.
    """
    asked = list(_asked(estimate))
    if asked and all(map(unanswered, asked)):
        raise NothingAnsweredError(
            f"{nothing_answered(asked)} There is nothing to measure: correct that first.", Path()
        )


def _asked(estimate: Forecast) -> Iterator[Attempt]:
    for ended in estimate.sample.ended:
        for attempt in ended.attempts:
            if attempt.decision != "dropped":
                yield attempt


def _capabilities(loaded: LoadedRecipe, estimate: Forecast) -> Iterator[Capability]:
    needed_by: dict[str, list[str]] = {}  # capability -> the components that need it
    for use in loaded.uses():
        if use.kind == "backend":
            continue
        needs = use.component.needs
        if use.kind == "tuner":
            needs = needs | {"adapters"}  # a tuner's result must be loaded
        for capability in needs:
            needed_by.setdefault(capability, []).append(use.spec.kind)
    # The known capabilities first, then those that only a plugin knows.
    for name in dict.fromkeys([*CAPABILITIES, *needed_by]):
        is_given = name in estimate.model.capabilities
        if name == "chat":  # the model's own template decides, not the backend
            is_given = estimate.model.chat
        yield Capability(name, is_given, tuple(needed_by.get(name, ())))


def _warnings(loaded: LoadedRecipe, estimate: Forecast, free_disk: int) -> Iterator[str]:
    free_memory = system.free_memory()
    if estimate.memory and estimate.memory > free_memory:
        yield (
            f"the run takes {size(estimate.memory)} of memory, and {size(free_memory)} are free "
            "now. Use a smaller model."
        )
    if estimate.disk > free_disk:
        yield (
            f"the run takes {size(estimate.disk)} of disk, and {size(free_disk)} are free. Choose "
            "another with --runs."
        )
    if not estimate.sample.asked:
        yield (
            "not one question of the sample could be asked: the forecast leaves out all steps "
            "after asking."
        )
    for trouble in estimate.sample.troubles:
        yield f"in the sample something failed: {trouble}"
    for use in loaded.uses():
        if use.kind == "backend" and use.component.advise is not None:
            yield from use.component.advise(estimate.model)
    tuner = loaded.recipe.tuner
    if tuner:
        yield from _tuner_warnings(loaded, tuner)


def _tuner_warnings(loaded: LoadedRecipe, tuner: TunerSpec) -> Iterator[str]:
    # Building it finds missing packages; tuning itself is not tried.
    try:
        with TemporaryDirectory() as folder:
            build_component(loaded, "tuner", tuner, Path(folder))
    except SelfloopError as error:
        yield f"the run will not begin: {error}"
    yield (
        "the tune's time is a rough guess. Its memory is not in the forecast: training takes "
        "several times as much."
    )


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    for path in (folder, *folder.resolve().parents):
        if path.is_dir():
            return path
    return Path()
