"""Requirements of an evaluation's figures: a minimum or a maximum for a figure by its name.

Figures are named as `eval.json` names them, with dots, and the usual ones by a short name too.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfloop.errors import BelowRequiredError, RecipeError, did_you_mean

LOWER_IS_BETTER = frozenset(
    ("aurc", "ece", "brier", "wrong", "over_refusal", "aed", "failed", "without_gold")
)
INTERVAL_ENDS = (".value", ".low", ".high")  # of the name of a figure that has an interval
# Parts of a name that the short name leaves out: the run's own decisions and its confidence are
# the usual subject.
OWNERS = ("confidence.", "policies.run.", "detectors.")


@dataclass(frozen=True)
class Requirement:
    """A bound on a figure: its minimum, or with `is_maximum` its maximum."""

    name: str
    value: float
    is_maximum: bool = False

    def is_met(self, figure: float | None) -> bool:
        """Return whether a figure meets the bound. An undefined one (None, NaN) never does."""
        if figure is None or math.isnan(figure):
            return False
        return figure <= self.value if self.is_maximum else figure >= self.value

    def shortfall(self, figure: float | None) -> str:
        """Return the message for a figure that does not meet the bound."""
        is_undefined = figure is None or math.isnan(figure)
        value = "undefined" if is_undefined else f"{figure:.4g}"
        if self.is_maximum:
            return f"{self.name} is {value}, but --fail-over asks for at most {self.value:g}."
        return f"{self.name} is {value}, but --fail-under asks for at least {self.value:g}."


def figures(report: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the numbers of `eval.json` by their dotted names, the usual ones by short names too.

    A figure with an interval has its value under its own name, and the ends as `NAME.low` and
    `NAME.high`.
    """
    by_name = {"_".join(name.split()): value for name, value in _numbers(report)}
    by_short_name = {short_name(name): value for name, value in by_name.items()}
    coverage: dict[str, float | None] = {}
    if "policies.run.declined" in by_name:
        declined = by_name["policies.run.declined"]
        coverage["coverage"] = None if declined is None else 1 - declined
    return by_short_name | by_name | coverage


def short_name(name: str) -> str:
    """Return the short name of a figure of the accuracy, the run's decisions or its confidence."""
    name = name.replace(".metrics.", ".").replace("accuracy.chosen", "accuracy")
    for owner in OWNERS:
        name = name.removeprefix(owner)
    return name


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float | None]]:
    """Yield each number below a value, with the dotted way to it."""
    if isinstance(value, Mapping):
        if "value" in value:  # an estimate: {value, low, high}
            yield name, value["value"]
        for key, part in value.items():
            yield from _numbers(part, f"{name}.{key}" if name else str(key))
    elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        yield name, value


def figure_names(detectors: Iterable[str]) -> set[str]:
    """Return the names of the figures that an evaluation with these detectors will have."""
    from selfloop.evaluation.evaluate import evaluate

    empty = evaluate([]).plain()
    by_detector = dict.fromkeys(detectors, empty["confidence"])
    return set(figures(empty | {"detectors": by_detector}))


def refuse_unknown(requirements: Sequence[Requirement], names: Collection[str]) -> None:
    """Raise RecipeError for a requirement of a figure whose name is not one of `names`."""
    for requirement in requirements:
        if requirement.name not in names:
            usual = ", ".join(sorted(name for name in names if _is_usual(name)))
            raise RecipeError(
                f"there is no figure {requirement.name}.{did_you_mean(requirement.name, names)} "
                f"Known: {usual}, NAME.low and NAME.high (the ends of an interval), and all other "
                "numbers of eval.json."
            )


def _is_usual(name: str) -> bool:
    is_short = short_name(name) == name and not name.endswith(INTERVAL_ENDS)
    return is_short and not name.startswith("policies.")


def refuse_short(requirements: Sequence[Requirement], values: Mapping[str, float | None]) -> None:
    """Raise BelowRequiredError, with a line for every requirement that is not met."""
    missed = [bound for bound in requirements if not bound.is_met(values[bound.name])]
    if missed:
        raise BelowRequiredError("\n".join(bound.shortfall(values[bound.name]) for bound in missed))
