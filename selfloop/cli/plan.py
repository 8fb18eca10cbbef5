"""`selfloop plan RECIPE`"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from selfloop.cli.options import (
    FilePath,
    accept_license,
    as_json,
    complete_recipe,
    overrides,
    runs_dir,
)
from selfloop.cli.tables import print_table
from selfloop.text.display import printable
from selfloop.text.units import duration, plural, size

if TYPE_CHECKING:
    from selfloop.api.plan import Plan

MAX_NAME = 60  # cells
MAX_WARNING = 400


@click.command("plan")
@click.argument("recipe", type=FilePath(path_type=Path), shell_complete=complete_recipe)
@overrides
@runs_dir
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    help="How long to measure. A round that has begun is finished; of a recipe with more than two "
    "rounds, two are measured.",
)
@accept_license
@as_json
def command(
    recipe: Path, overrides: tuple[str, ...], runs: Path, seconds: float, as_json: bool
) -> None:
    """Estimate how long RECIPE takes here, and how much memory, before it runs.

    RECIPE is a .yaml file, or the name of one that comes with selfloop. The model is loaded, and
    runs a round or two of a few questions. Nothing of it is kept.

    \b
    Example:
      selfloop plan quickstart
    """
    from selfloop.api.plan import plan_loaded
    from selfloop.api.recipes import loaded_recipe

    loaded = loaded_recipe(recipe, overrides)
    # A person should know why nothing happens for some seconds; a log need not.
    if sys.stderr.isatty():
        click.echo("asking a few questions, to measure ...", err=True)
    plan = plan_loaded(loaded, seconds, runs)
    if as_json:
        click.echo(json.dumps(plan.plain(), indent=2))
        return
    _print_plan(plan, runs)
    for warning in plan.warnings:
        click.secho(f"warning: {printable(warning, MAX_WARNING)}", fg="yellow")


def _print_plan(plan: "Plan", runs: Path) -> None:
    recipe, sample, model = plan.recipe, plan.forecast.sample, plan.forecast.model
    rounds, questions = plural(recipe.rounds, "round"), f"{recipe.ask.questions:,}"
    click.echo(f"{printable(recipe.name)}: {rounds} of {questions} questions")
    about = ", ".join(filter(None, (model.architecture, "chat" if model.chat else "base")))
    name = printable(model.name, MAX_NAME)
    click.echo(f"with {name} ({printable(about, MAX_NAME)}), by {recipe.backend.kind}")
    measured = f"{plural(sample.rounds, 'round')} of {plural(sample.questions, 'question')}"
    click.echo(f"measured on {measured}, which took {duration(sample.seconds)}\n")
    _print_steps(plan)
    memory = f"{size(plan.memory)} at most" if plan.memory else "unknown on this system"
    click.echo(f"memory  {memory}")
    free = size(plan.free_disk)
    click.echo(f"disk    {size(plan.disk)} in {printable(str(runs))} ({free} free)\n")
    rows = []
    for capability in plan.capabilities:
        answer = "yes" if capability.is_given else "no"
        rows.append([capability.name, answer, ", ".join(capability.needed_by)])
    print_table(["capability", "given", "needed by"], rows, left=3)


def _print_steps(plan: "Plan") -> None:
    estimate = plan.forecast
    rows = [["loading", "", "", duration(estimate.loading), ""]]
    for part in estimate.parts:
        # Of a single round there is no later one.
        later = duration(part.later) if plan.recipe.rounds > 1 else ""
        tokens = f"{part.tokens:,}" if part.tokens else ""
        rows.append([part.name, duration(part.first), later, duration(part.seconds), tokens])
    total = sum(part.tokens for part in estimate.parts)
    rows.append(["in all", "", "", duration(estimate.seconds), f"{total:,}"])
    print_table(["step", "round 1", "each later", "in all", "tokens"], rows, last_is_bold=True)
