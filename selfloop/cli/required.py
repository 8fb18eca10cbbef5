"""What a user requires of the figures of `eval`: `--fail-under METRIC=VALUE` and `--fail-over METRIC=VALUE`."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from selfloop.cli.closed_book import Answering
from selfloop.errors import BelowRequired, RecipeError, did_you_mean

BETTER_LOW = {"aurc", "ece", "brier", "wrong", "over_refusal", "aed", "failed", "without_gold"}
ENDS = (".value", ".low", ".high")  # of the names of a figure that has an interval

fail_under = click.option(
    "--fail-under",
    multiple=True,
    metavar="METRIC=VALUE",
    help="End with exit code 11 if METRIC, as eval.json names it, is below VALUE. May be given more than once.",
)
fail_over = click.option(
    "--fail-over",
    multiple=True,
    metavar="METRIC=VALUE",
    help="The same for what is better low, as in --fail-over ece=0.1 or failed=0.",
)


@dataclass(frozen=True)
class Requirement:
    """A figure's name, and the least it has to be; with `most` it is the most that it may be."""

    name: str
    value: float
    most: bool = False

    def met(self, figure: float | None) -> bool:
        """Return whether a figure reaches it. One that cannot be told (None, NaN) never does."""
        if figure is None or math.isnan(figure):
            return False
        return figure <= self.value if self.most else figure >= self.value

    def shortfall(self, figure: float | None) -> str:
        """Return by which figure it is not met."""
        shown = "not to be told" if figure is None or math.isnan(figure) else f"{figure:.4g}"
        if self.most:
            return f"{self.name} is {shown}, but --fail-over asks for at most {self.value:g}."
        return f"{self.name} is {shown}, but --fail-under asks for at least {self.value:g}."


def required(under: Sequence[str], over: Sequence[str]) -> list[Requirement]:
    """Return what the options say.

    Raises UsageError for what is no METRIC=VALUE, or a bound of the wrong kind.
    """
    least = [_parsed(text, most=False) for text in under]
    return least + [_parsed(text, most=True) for text in over]


def _parsed(text: str, *, most: bool) -> Requirement:
    option = "--fail-over" if most else "--fail-under"
    name, equals, number = text.partition("=")
    name = "_".join(name.split())
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not equals or not name or not math.isfinite(value):
        raise click.UsageError(
            f"{option} {text}: write METRIC=NUMBER, as in {option} accuracy=0.6."
        )
    last = next((name.removesuffix(end) for end in ENDS if name.endswith(end)), name).rpartition(
        "."
    )[2]
    if not most and last in BETTER_LOW:
        raise click.UsageError(
            f"{option} {text}: {last} is better low. Give the most it may be: --fail-over {text}"
        )
    return Requirement(name, value, most)


def figures(report: Mapping[str, Any]) -> dict[str, float | None]:
    """Return each number of `eval.json` by its dotted name, and the usual ones by a short name too.

    A figure with an interval has its value under its own name, and the ends as `NAME.low` and
    `NAME.high`.
    """
    found = {"_".join(name.split()): value for name, value in _numbers(report)}
    declined = found.get("policies.run.declined")
    coverage = {"coverage": None if declined is None else 1 - declined}
    short = {_shortened(name): value for name, value in found.items()}
    return short | found | (coverage if "policies.run.declined" in found else {})


def _shortened(name: str) -> str:
    """Return a figure's short name: of the accuracy that counts, of the run's decisions, of its confidence."""
    name = name.replace(".metrics.", ".").replace("accuracy.chosen", "accuracy")
    for owner in ("confidence.", "policies.run.", "verifiers."):
        name = name.removeprefix(owner)
    return name


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float | None]]:
    if isinstance(value, Mapping):
        if "value" in value:
            yield name, value["value"]
        for key, part in value.items():
            yield from _numbers(part, f"{name}.{key}" if name else str(key))
    elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        yield name, value


def known_names(who: Answering, overrides: tuple[str, ...]) -> set[str]:
    """Return the names of the figures that an evaluation by `who` will have, without asking the model."""
    from selfloop.config.assembly import numbered
    from selfloop.config.recipe import read
    from selfloop.evaluation.evaluate import evaluate

    recipe = read(who.recipe, (*who.overrides, *overrides), who.base).recipe
    report = evaluate([]).plain()
    verifiers = {name: report["confidence"] for name, _ in numbered(recipe.verifiers)}
    return set(figures(report | {"verifiers": verifiers}))


def refuse_unknown(requirements: Sequence[Requirement], known: Collection[str]) -> None:
    """Raise RecipeError for a requirement of a figure that there is not."""
    for requirement in requirements:
        if requirement.name not in known:
            usual = sorted(
                name for name in known if _shortened(name) == name and not name.endswith(ENDS)
            )
            usual = [name for name in usual if not name.startswith("policies.")]
            more = "NAME.low and NAME.high (the ends of an interval), and all other numbers of eval.json"
            raise RecipeError(
                f"there is no figure {requirement.name}.{did_you_mean(requirement.name, known)} "
                f"Known: {', '.join(usual)}, {more}."
            )


def refuse_short(requirements: Sequence[Requirement], found: Mapping[str, float | None]) -> None:
    """Raise BelowRequired, naming every requirement that is not met."""
    short = [one.shortfall(found[one.name]) for one in requirements if not one.met(found[one.name])]
    if short:
        raise BelowRequired("\n".join(short))
