"""The observers `tensorboard`, `mlflow`, `trackio` and `wandb`: what a run's events say, as numbers
over rounds.

`Meter` turns events into figures, and is where all of them are named. A `Sink` writes them to one
tracker, and knows nothing of runs. A tracker that cannot be reached raises, and a run goes on
without it, as without any observer.

A step's time and speed stand at its round, a tune's loss at its batch: each tune begins anew, and
has its own curve.
"""

import io
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Protocol, get_args
from uuid import uuid4

from selfloop_plugins._shared.gate_report import read_gate

import selfloop
from selfloop import Component, Round, hookimpl
from selfloop.errors import MissingExtra
from selfloop.events import BatchLearnt, Event, RoundEnded, RunEnded, RunStarted, StepStarted
from selfloop.records import Decision
from selfloop.storage import atomic

from .console import Step, Tally

LONGEST = 500  # characters of a parameter: what MLflow always took
MOST = 100  # parameters that MLflow takes at once
# or it tries for minutes
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
OUTCOMES = {"done": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}  # in MLflow's words
Settings = Mapping[str, str | int | float | bool]

_log = logging.getLogger("selfloop.trackers")


class Figure(NamedTuple):
    """A number, and the round or batch it stands at."""

    name: str
    value: float
    step: int


class Sink(Protocol):
    """One tracker. Anything it raises ends it, and not the run."""

    def begin(self, name: str, settings: Settings) -> None:
        """Open what is written to; `name` is the run's own among the others."""
        ...

    def write(self, figures: Sequence[Figure]) -> None:
        """Write numbers."""
        ...

    def note(self, name: str, text: str, step: int) -> None:
        """Write a text that belongs to a round."""
        ...

    def end(self, outcome: str) -> None:
        """Close; `outcome` is done, stopped or failed."""
        ...


class Meter:
    """Turns events into figures: this is the one place where they are named."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._tally = folder, Tally(0)

    def read(self, event: Event) -> Iterator[Figure]:
        """Yield what an event says in numbers, which for most is nothing."""
        if isinstance(event, StepStarted | RoundEnded) and (step := self._tally.step):
            self._tally.end_step()
            yield from _of_step(step, self._tally.round)
        self._tally.take(event)
        if isinstance(event, BatchLearnt):
            yield Figure(f"tune/round-{event.round:03d}/loss", event.loss, event.done)
        elif isinstance(event, RoundEnded):
            yield from _of_round(event.round)
            yield from self._of_gate(event.round)

    def _of_gate(self, ended: Round) -> Iterator[Figure]:
        """Yield what the gate measured in this round, also of an adapter that it refused."""
        place = ended.adapter and Path(ended.adapter.path).parent
        if not (said := read_gate(self._folder / (place or f"adapters/round-{ended.number:03d}"))):
            return
        for who, measured in (("base", said.base), ("tuned", said.tuned)):
            yield from (
                Figure(f"gate/{who}/{_joined(n)}", v, ended.number) for n, v in measured.items()
            )
        yield Figure("gate/taken", float(not said.refusal), ended.number)


def _of_step(step: Step, number: int) -> Iterator[Figure]:
    """Yield how long a step took, and how fast it was; one that was replayed says nothing of either."""
    if step.replayed and not step.completions:
        return
    yield Figure(f"seconds/{step.name}", step.seconds, number)
    if step.tokens:
        yield Figure(f"tokens_per_second/{step.name}", step.rate, number)


def _of_round(ended: Round) -> Iterator[Figure]:
    counts = {decision: ended.count(decision) for decision in get_args(Decision)}
    sure = [attempt.confidence for attempt in ended.attempts if attempt.confidence is not None]
    answered = counts["belief"] + counts["declined"] + counts["undecided"]
    yield from (
        Figure(f"round/{decision}", float(count), ended.number)
        for decision, count in counts.items()
    )
    if answered:
        yield Figure("round/share_declined", counts["declined"] / answered, ended.number)
    if sure:
        yield Figure("round/mean_confidence", sum(sure) / len(sure), ended.number)


def _joined(name: str) -> str:
    return name.replace(" ", "_")


def settings(event: RunStarted) -> Settings:
    """Return what a run was made with: its recipe, flat, and its model."""
    model = event.model
    about = {
        "selfloop": selfloop.__version__,
        "model.name": model.name,
        "model.sha256": model.sha256,
    }
    return about | dict(_flat(selfloop.Run(Path(event.folder)).recipe))


def _flat(
    data: Mapping[str, Any], above: str = ""
) -> Iterator[tuple[str, str | int | float | bool]]:
    for key, value in data.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield (
                f"{above}{key}",
                value if isinstance(value, str | int | float | bool) else json.dumps(value),
            )


class Tracker:
    """Hands a run's figures to a sink."""

    def __init__(self, sink: Sink, folder: Path) -> None:
        self._sink, self._meter, self._open = sink, Meter(folder), False

    def notice(self, event: Event) -> None:
        """Write what the event says."""
        if isinstance(event, RunStarted):
            self._sink.begin(Path(event.folder).resolve().name, settings(event))
            self._open = True
        if figures := list(self._meter.read(event)):
            self._sink.write(figures)
        if isinstance(event, RoundEnded) and (adapter := event.round.adapter):
            self._sink.note("adapter", adapter.sha256, event.round.number)
        if isinstance(event, RunEnded):
            self._end(event.outcome)

    def close(self) -> None:
        """Close the tracker, if the run's end has not done so."""
        self._end("failed")

    def _end(self, outcome: str) -> None:
        if self._open:
            self._open = False
            self._sink.end(outcome)


def _same_again(path: Path, form: str, make: Callable[[], str]) -> tuple[str, bool]:
    """Return by what a tracker knows this run, and whether it is new there: a run that is resumed
    goes on in it.

    A file that does not hold an id of this `form`, a regular expression, was cut off: the tracker
    gets a new run.
    """
    if path.is_file():
        stored = path.read_text(encoding="utf-8", errors="replace").strip()
        if re.fullmatch(form, stored):
            return stored, False
        _log.warning(
            "%s is damaged: the tracker gets a new run, and the old one stays as it is", path
        )
    made = make()
    atomic.write_text(path, f"{made}\n")
    return made, True


class TensorBoard:
    """Event files, one more each time that the run is resumed; TensorBoard reads them as one."""

    def __init__(self, folder: Path, path: Path | None) -> None:
        self._folder, self._path = folder, path
        self._writer: Any = None

    def begin(self, name: str, settings: Settings) -> None:
        """Open an event file, with the settings as a text: it has no other place for them."""
        place = self._path / name if self._path else self._folder / "tensorboard"
        # its names have the second alone, and a file of the same second is lost
        apart = f".{uuid4().hex[:6]}"
        made = import_module("tensorboardX").SummaryWriter
        self._writer = made(str(place), flush_secs=10, filename_suffix=apart)
        # Markdown's way of code
        lines = (f"    {key}: {str(value)[:LONGEST]!r}" for key, value in settings.items())
        self._writer.add_text("recipe", "\n".join(lines))

    def write(self, figures: Sequence[Figure]) -> None:
        """Write scalars."""
        for figure in figures:
            self._writer.add_scalar(*figure)

    def note(self, name: str, text: str, step: int) -> None:
        """Write a text."""
        self._writer.add_text(name, text, step)

    def end(self, outcome: str) -> None:
        """Close the file."""
        self._writer.close()


class MLflow:
    """A run of an MLflow experiment, by its client alone: what a person does with `mlflow` in this process stays."""

    def __init__(self, folder: Path, uri: str | None, experiment: str) -> None:
        own = (folder / "mlruns").resolve().as_uri()
        self._folder, self._experiment = folder, experiment
        self._uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or own
        self._client: Any = None

    def begin(self, name: str, settings: Settings) -> None:
        """Begin a run, or go on with the one that this run began."""
        if self._uri.startswith("file:"):
            # mlflow-skinny has no other store
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self._client = import_module("mlflow").MlflowClient(tracking_uri=self._uri)
        self._run, new = _same_again(
            self._folder / "mlflow.id", r"[\w-]+", lambda: self._made(name)
        )
        if not new:
            self._client.update_run(self._run, status="RUNNING")
            return
        param = import_module("mlflow.entities").Param
        cut = [
            param(re.sub(r"[^\w./ -]", "_", key), str(value)[:LONGEST])
            for key, value in settings.items()
        ]
        for start in range(0, len(cut), MOST):
            self._client.log_batch(self._run, params=cut[start : start + MOST])

    def _made(self, name: str) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        experiment = (
            found.experiment_id if found else self._client.create_experiment(self._experiment)
        )
        made: str = self._client.create_run(experiment, run_name=name).info.run_id
        return made

    def write(self, figures: Sequence[Figure]) -> None:
        """Write metrics, in one request."""
        metric, now = import_module("mlflow.entities").Metric, int(time.time() * 1000)
        self._client.log_batch(
            self._run, metrics=[metric(name, value, now, step) for name, value, step in figures]
        )

    def note(self, name: str, text: str, step: int) -> None:
        """Set a tag."""
        self._client.set_tag(self._run, f"{name}.round-{step:03d}", text)

    def end(self, outcome: str) -> None:
        """Say how the run ended."""
        self._client.set_terminated(self._run, status=OUTCOMES[outcome])


class Trackio:
    """A run of a trackio project.

    Trackio has one folder for all its projects, and prints to the standard output.
    """

    def __init__(self, folder: Path, project: str, space: str | None) -> None:
        self._folder, self._project, self._space = folder, project, space
        self._run: Any = None

    def begin(self, name: str, settings: Settings) -> None:
        """Begin a run, or go on with the one that this run began."""
        own, _ = _same_again(
            self._folder / "trackio.id", r".+-[0-9a-f]{6}", lambda: f"{name}-{uuid4().hex[:6]}"
        )
        apart = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
        with redirect_stdout(io.StringIO()):
            self._run = import_module("trackio").init(
                self._project,
                own,
                space_id=self._space,
                config=dict(settings),
                resume="allow",
                **apart,
            )

    def write(self, figures: Sequence[Figure]) -> None:
        """Write metrics."""
        for step, same in groupby(figures, lambda figure: figure.step):
            self._run.log({figure.name: figure.value for figure in same}, step=step)

    def note(self, name: str, text: str, step: int) -> None:
        """Write a text."""
        self._run.log({name: text}, step=step)

    def end(self, outcome: str) -> None:
        """Wait until all is written."""
        with redirect_stdout(io.StringIO()):
            import_module("trackio").finish()


class Wandb:
    """A run of Weights & Biases, which counts no steps but its own: ours are a figure beside the others."""

    def __init__(self, folder: Path, project: str, entity: str | None, online: bool) -> None:
        self._folder, self._project, self._entity, self._online = folder, project, entity, online
        self._run: Any = None

    def begin(self, name: str, settings: Settings) -> None:
        """Begin a run, or go on with the one that this run began.

        Nothing but the figures is looked at or sent.
        """
        wandb = import_module("wandb")
        own, _ = _same_again(self._folder / "wandb.id", r"[0-9a-f]{8}", lambda: uuid4().hex[:8])
        apart = {
            "silent": True,
            "console": "off",
            "disable_git": True,
            "save_code": False,
            "x_disable_stats": True,
        }
        self._run = wandb.init(
            project=self._project,
            entity=self._entity,
            id=own,
            name=name,
            dir=str(self._folder),
            config=dict(settings),
            mode="online" if self._online else "offline",
            resume="allow" if self._online else None,
            settings=wandb.Settings(**apart, x_disable_machine_info=True, init_timeout=20),
        )
        self._run.define_metric("*", step_metric="step")

    def write(self, figures: Sequence[Figure]) -> None:
        """Write metrics."""
        for step, same in groupby(figures, lambda figure: figure.step):
            self._run.log({figure.name: figure.value for figure in same} | {"step": step})

    def note(self, name: str, text: str, step: int) -> None:
        """Add to the run's configuration."""
        self._run.config.update({f"{name}.round-{step:03d}": text}, allow_val_change=True)

    def end(self, outcome: str) -> None:
        """Finish, and wait until all is written or sent."""
        self._run.finish(exit_code=int(outcome != "done"))


def _needs(package: str, extra: str) -> Callable[..., None]:
    """Return what raises MissingExtra where a package is not there, whatever the options are."""

    def check(**options: Any) -> None:
        try:
            import_module(package)
        except ImportError as error:
            raise MissingExtra(package, extra, f"The observer {extra}") from error

    return check


def tensorboard(*, folder: Path, path: Path | None = None) -> Tracker:
    """Write event files into the run's folder `tensorboard`, or into a folder of its own below `path`."""
    _needs("tensorboardX", "tensorboard")()
    return Tracker(TensorBoard(folder, path), folder)


def mlflow(*, folder: Path, uri: str | None = None, experiment: str = "selfloop") -> Tracker:
    """Write to the MLflow server or store at `uri`: by default MLFLOW_TRACKING_URI, or the run's folder `mlruns`."""
    for name, value in (PATIENCE | {"MLFLOW_DISABLE_TELEMETRY": "true"}).items():
        os.environ.setdefault(name, value)
    # each try again; the run says it once
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    _needs("mlflow", "mlflow")()
    return Tracker(MLflow(folder, uri, experiment), folder)


def trackio(*, folder: Path, project: str = "selfloop", space: str | None = None) -> Tracker:
    """Write to a project of trackio, in its own folder (TRACKIO_DIR); with `space` to that space of the hub."""
    _needs("trackio", "trackio")()
    return Tracker(Trackio(folder, project, space), folder)


def wandb(
    *, folder: Path, project: str = "selfloop", entity: str | None = None, online: bool = False
) -> Tracker:
    """Write a run of Weights & Biases into the run's folder, to be sent by `wandb sync`; `online` sends it at once."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    _needs("wandb", "wandb")()
    return Tracker(Wandb(folder, project, entity, online), folder)


@hookimpl
def selfloop_observers() -> list[Component]:
    """Offer the trackers."""
    offers: list[tuple[Callable[..., Tracker], str, str]] = [
        (tensorboard, "tensorboardX", "writes what TensorBoard shows"),
        (mlflow, "mlflow", "writes a run of MLflow"),
        (trackio, "trackio", "writes a run of trackio"),
        (wandb, "wandb", "writes a run of Weights & Biases, offline unless asked"),
    ]
    return [
        Component(b.__name__, b, doc=doc, check=_needs(package, b.__name__), extra=b.__name__)
        for b, package, doc in offers
    ]
