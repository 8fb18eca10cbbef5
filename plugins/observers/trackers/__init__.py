"""The observers `tensorboard`, `mlflow`, `trackio` and `wandb`: a run's figures over its rounds.

metrics.py       events -> figures; all of them are named there
tracker.py       hands figures to one tracker's sink; a run that is resumed goes on in the same one
tensorboard.py   mlflow.py   trackio.py   wandb.py   one sink each, which knows nothing of runs

A tracker that cannot be reached raises, and a run goes on without it, as without any observer.
"""

from collections.abc import Callable
from typing import Any

from selfloop import Component, hookimpl

from . import mlflow, tensorboard, trackio, wandb
from .tracker import Tracker, require


def _component(name: str, package: str, build: Callable[..., Tracker], doc: str) -> Component:
    """Return a tracker, whose name is also that of the extra that brings its package."""

    def check(**options: Any) -> None:
        # whatever the options are: only the package is looked for
        require(package, name)

    return Component(name, build, doc=doc, check=check, extra=name)


@hookimpl
def selfloop_observers() -> list[Component]:
    """Offer the trackers."""
    return [
        _component(
            "tensorboard",
            tensorboard.PACKAGE,
            tensorboard.build,
            "writes a log for TensorBoard",
        ),
        _component("mlflow", mlflow.PACKAGE, mlflow.build, "writes a run of MLflow"),
        _component("trackio", trackio.PACKAGE, trackio.build, "writes a run of trackio"),
        _component(
            "wandb",
            wandb.PACKAGE,
            wandb.build,
            "writes a run of Weights & Biases, offline unless asked",
        ),
    ]
