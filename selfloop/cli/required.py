"""The options `--fail-under METRIC=VALUE` and `--fail-over METRIC=VALUE` of `selfloop eval`."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from selfloop.evaluation.requirements import Requirement

fail_under = click.option(
    "--fail-under",
    multiple=True,
    metavar="METRIC=VALUE",
    help="End with exit code 11 if METRIC, as eval.json names it, is below VALUE. May be repeated.",
)
fail_over = click.option(
    "--fail-over",
    multiple=True,
    metavar="METRIC=VALUE",
    help="The same for a metric that should be low, as in --fail-over ece=0.1 or failed=0.",
)


def requirements(minima: Sequence[str], maxima: Sequence[str]) -> "list[Requirement]":
    """Return the requirements of the two options.

    Raises UsageError for a text that is not METRIC=VALUE, and for a minimum of a metric that
    should be low.
    """
    lower_bounds = [_parsed(text, is_maximum=False) for text in minima]
    upper_bounds = [_parsed(text, is_maximum=True) for text in maxima]
    return lower_bounds + upper_bounds


def _parsed(text: str, *, is_maximum: bool) -> "Requirement":
    from selfloop.evaluation.requirements import INTERVAL_ENDS, LOWER_IS_BETTER, Requirement

    option = "--fail-over" if is_maximum else "--fail-under"
    name, equals, number = text.partition("=")
    # Names of policies have spaces in eval.json ("always answer"), which shells dislike.
    name = "_".join(name.split())
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not equals or not name or not math.isfinite(value):
        raise click.UsageError(
            f"{option} {text}: write METRIC=NUMBER, as in {option} accuracy=0.6."
        )
    metric = name
    for end in INTERVAL_ENDS:
        metric = metric.removesuffix(end)
    metric = metric.rpartition(".")[2]
    if not is_maximum and metric in LOWER_IS_BETTER:
        raise click.UsageError(
            f"{option} {text}: {metric} should be low. Give its maximum: --fail-over {text}"
        )
    return Requirement(name, value, is_maximum)
