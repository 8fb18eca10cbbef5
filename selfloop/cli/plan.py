"""`selfloop plan RECIPE`"""

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from selfloop.text.display import duration, printable

if TYPE_CHECKING:
    from selfloop.config.recipe import Loaded
    from selfloop.forecast.estimate import Forecast


@click.command("plan")
@click.argument("recipe", type=FilePath(path_type=Path), shell_complete=complete_recipe)
@overrides
@runs_dir
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    help="How long to measure. A round that has begun is played to its end; of more than two, two are played.",
)
@accept_license
@as_json
def command(
    recipe: Path, overrides: tuple[str, ...], runs: Path, seconds: float, as_json: bool
) -> None:
    """Say how long RECIPE will take here, and how much memory, before anything runs.

    RECIPE is a .yaml file, or the name of one that comes with selfloop. The model is loaded, and a
    round or two of a few questions are played and thrown away.

    \b
    Example:
      selfloop plan quickstart
    """
    from selfloop.cli.bundled import recipe_file
    from selfloop.config.assembly import check
    from selfloop.config.recipe import read
    from selfloop.errors import Stopped
    from selfloop.forecast.estimate import forecast

    file, base = recipe_file(recipe)
    loaded = read(file, overrides, base)
    check(loaded)
    if sys.stderr.isatty():
        click.echo("playing a few questions, to measure ...", err=True)
    try:
        found = forecast(loaded, seconds)
    except KeyboardInterrupt:
        raise Stopped("stopped; nothing was kept.") from None
    _refuse_unanswered(found)
    capabilities, warnings = (
        list(_capabilities(loaded, found)),
        list(_warnings(loaded, found, runs)),
    )
    if as_json:
        click.echo(
            json.dumps(
                _plain(found) | {"capabilities": capabilities, "warnings": warnings}, indent=2
            )
        )
        return
    _print(loaded, found, capabilities, runs)
    for warning in warnings:
        click.secho(f"warning: {printable(warning, 400)}", fg="yellow")


def _refuse_unanswered(found: "Forecast") -> None:
    """Raise NothingAnswered where every question of the sample failed: errors take no time to speak of."""
    from selfloop.errors import NothingAnswered
    from selfloop.failed_steps import nothing_answered, unanswered

    asked = [
        attempt
        for ended in found.sample.ended
        for attempt in ended.attempts
        if attempt.decision != "dropped"
    ]
    if asked and all(map(unanswered, asked)):
        raise NothingAnswered(
            f"{nothing_answered(asked)} There is nothing to measure: mend that first.", Path()
        )


def _capabilities(loaded: "Loaded", found: "Forecast") -> Iterator[dict[str, Any]]:
    """Yield each capability, whether the backend gives it, and who needs it."""
    from selfloop.protocols import CAPABILITIES

    needs: dict[str, list[str]] = {}
    for use in loaded.uses():
        wanted = use.component.needs | ({"adapters"} if use.kind == "tuner" else set())
        for capability in wanted if use.kind != "backend" else ():
            needs.setdefault(capability, []).append(use.spec.kind)
    for name in dict.fromkeys([*CAPABILITIES, *needs]):
        given = name in found.model.capabilities
        if name == "chat":
            given = found.model.chat
        yield {"capability": name, "given": given, "needed_by": needs.get(name, [])}


def _warnings(loaded: "Loaded", found: "Forecast", runs: Path) -> Iterator[str]:
    from selfloop.forecast.machine import free_memory

    free, disk = free_memory(), shutil.disk_usage(_there(runs)).free
    if found.memory and free is not None and found.memory > free:
        yield f"the run takes {_bytes(found.memory)} of memory, and {_bytes(free)} are free now. Take a smaller model."
    if found.disk > disk:
        yield f"the run takes {_bytes(found.disk)} of disk, and {_bytes(disk)} are free. Choose another with --runs."
    if not found.sample.asked:
        yield "not one question of the sample could be asked: what comes after asking is not in the forecast."
    yield from (f"in the sample something failed: {trouble}" for trouble in found.sample.troubles)
    for use in loaded.uses():
        if use.kind == "backend" and use.component.advise is not None:
            yield from use.component.advise(found.model)
    if tuner := loaded.recipe.tuner:
        yield from _tuner_warnings(loaded, tuner)


def _tuner_warnings(loaded: "Loaded", tuner: Any) -> Iterator[str]:
    from tempfile import TemporaryDirectory

    from selfloop.config.assembly import built
    from selfloop.errors import SelfloopError

    try:
        with TemporaryDirectory() as folder:
            built(loaded, "tuner", tuner, Path(folder))
    except SelfloopError as error:
        yield f"the run will not begin: {error}"
    yield "the tune's time is a rough guess. Its memory is not in the forecast: training takes several times as much."


def _there(folder: Path) -> Path:
    """Return the folder, or the nearest above it that is there."""
    return next((path for path in (folder, *folder.resolve().parents) if path.is_dir()), Path())


def _plain(found: "Forecast") -> dict[str, Any]:
    model = asdict(found.model) | {"capabilities": sorted(found.model.capabilities)}
    sample = {
        key: getattr(found.sample, key) for key in ("questions", "rounds", "asked", "seconds")
    }
    parts = [asdict(part) for part in found.parts]
    sizes = {"memory": found.memory, "disk": found.disk}
    return {
        "seconds": found.seconds,
        "loading": found.loading,
        "steps": parts,
        **sizes,
        "model": model,
        "sample": sample,
    }


def _print(
    loaded: "Loaded", found: "Forecast", capabilities: list[dict[str, Any]], runs: Path
) -> None:
    recipe, sample, model = loaded.recipe, found.sample, found.model
    about = ", ".join(filter(None, (model.architecture, "chat" if model.chat else "base")))
    click.echo(
        f"{printable(recipe.name)}: {_many(recipe.rounds, 'round')} of {recipe.ask.questions:,} "
        "questions"
    )
    click.echo(
        f"with {printable(model.name, 60)} ({printable(about, 60)}), by {recipe.backend.kind}"
    )
    played = f"{_many(sample.rounds, 'round')} of {_many(sample.questions, 'question')}"
    click.echo(f"measured on {played}, which took {duration(sample.seconds)}\n")
    _table(found, recipe.rounds)
    free = shutil.disk_usage(_there(runs)).free
    click.echo(
        "memory  "
        f"{_bytes(found.memory) + ' at most' if found.memory else 'this system does not tell'}"
    )
    click.echo(f"disk    {_bytes(found.disk)} in {printable(str(runs))} ({_bytes(free)} free)\n")
    rows = [
        [row["capability"], "yes" if row["given"] else "no", ", ".join(row["needed_by"])]
        for row in capabilities
    ]
    print_table(["capability", "given", "needed by"], rows, left=3)


def _table(found: "Forecast", rounds: int) -> None:
    rows = [["loading", "", "", duration(found.loading), ""]]
    for part in found.parts:
        later = duration(part.later) if rounds > 1 else ""
        tokens = f"{part.tokens:,}" if part.tokens else ""
        rows.append([part.name, duration(part.first), later, duration(part.seconds), tokens])
    whole = f"{sum(part.tokens for part in found.parts):,}"
    rows.append(["in all", "", "", duration(found.seconds), whole])
    print_table(["step", "round 1", "each later", "in all", "tokens"], rows, last_is_bold=True)


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 999.5e6 else f"{count / 1e6:.1f} MB"
