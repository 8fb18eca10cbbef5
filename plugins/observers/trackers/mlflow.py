"""The observer `mlflow`."""

import logging
import os
import re
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from selfloop.storage.run_folder import RunFolder

from .metrics import Figure
from .tracker import MAX_SETTING_CHARACTERS, Settings, Tracker, require, tracker_id

PACKAGE = "mlflow"
MAX_PARAMETERS = 100  # that MLflow takes in one request
# by default it retries for minutes a server that is gone
RETRY_SETTINGS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
STATUS = {"done": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}  # of a run, by its outcome


class MLflow:
    """A run of an MLflow experiment.

    Only its client is used, so a person's own use of `mlflow` in this process stays as it is.
    """

    def __init__(self, folder: Path, uri: str | None, experiment: str) -> None:
        by_default = RunFolder(folder).mlruns.resolve().as_uri()
        self._folder, self._experiment = folder, experiment
        self._uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or by_default
        self._client: Any = None

    def open_run(self, name: str, settings: Settings) -> None:
        """Begin a run, or go on with the one that this run began."""
        if self._uri.startswith("file:"):
            # mlflow-skinny has no other store
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self._client = import_module("mlflow").MlflowClient(tracking_uri=self._uri)
        self._run, is_new = tracker_id(
            RunFolder(self._folder).tracker_id("mlflow"), r"[\w-]+", lambda: self._new_run(name)
        )
        if not is_new:
            self._client.update_run(self._run, status="RUNNING")
            return
        make_parameter = import_module("mlflow.entities").Param
        parameters = []
        for key, value in settings.items():
            key_characters = re.sub(r"[^\w./ -]", "_", key)  # the ones that MLflow takes
            parameters.append(make_parameter(key_characters, str(value)[:MAX_SETTING_CHARACTERS]))
        for start in range(0, len(parameters), MAX_PARAMETERS):
            self._client.log_batch(self._run, params=parameters[start : start + MAX_PARAMETERS])

    def _new_run(self, name: str) -> str:
        """Return the id of a new run, in the experiment, which is made if it is not there."""
        experiment = self._client.get_experiment_by_name(self._experiment)
        if experiment:
            experiment_id = experiment.experiment_id
        else:
            experiment_id = self._client.create_experiment(self._experiment)
        run_id: str = self._client.create_run(experiment_id, run_name=name).info.run_id
        return run_id

    def log_figures(self, figures: Sequence[Figure]) -> None:
        """Write metrics, in one request."""
        make_metric, now_ms = import_module("mlflow.entities").Metric, int(time.time() * 1000)
        metrics = [make_metric(name, value, now_ms, step) for name, value, step in figures]
        self._client.log_batch(self._run, metrics=metrics)

    def log_text(self, name: str, text: str, step: int) -> None:
        """Set a tag."""
        self._client.set_tag(self._run, f"{name}.round-{step:03d}", text)

    def close_run(self, outcome: str) -> None:
        """Say how the run ended."""
        self._client.set_terminated(self._run, status=STATUS[outcome])


def build(*, folder: Path, uri: str | None = None, experiment: str = "selfloop") -> Tracker:
    """Write to the MLflow server or store at `uri`: by default MLFLOW_TRACKING_URI, or the run's
    folder `mlruns`.
    """
    # before MLflow is imported, for it reads some of them then
    for name, value in (RETRY_SETTINGS | {"MLFLOW_DISABLE_TELEMETRY": "true"}).items():
        os.environ.setdefault(name, value)
    # it warns of each retry; the run reports a server that is gone once
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    require(PACKAGE, "mlflow")
    return Tracker(MLflow(folder, uri, experiment), folder)
