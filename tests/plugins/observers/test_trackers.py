"""The trackers: TensorBoard's event files are read back; the others are stood in for by a module of
their name.

With the packages of MLflow, trackio and wandb installed, the last tests write with them, into
folders of the test.
"""

import json
import logging
import math
import struct
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from conftest import Selfloop
from selfloop_plugins._shared.gate_report import read_gate
from selfloop_plugins.observers.trackers import tensorboard
from selfloop_plugins.observers.trackers.metrics import Figure, RunMetrics
from selfloop_plugins.observers.trackers.mlflow import RETRY_SETTINGS
from selfloop_plugins.observers.trackers.tracker import Tracker, run_settings

from selfloop.errors import ModelError
from selfloop.events import (
    CompletionDone,
    Event,
    RoundEnded,
    RunEnded,
    RunStarted,
    StepStarted,
    TrainingStep,
)
from selfloop.records import Adapter, Attempt, Completion, Decision, ModelInfo, Question, Round

TUNER = """\
import hashlib, json
from selfloop import Component, hookimpl
from selfloop.records import Adapter

MEASURED = {"kept": 0.9, "declined": 0.25, "refused": 0.1, "perplexity": 8.0, "gold": [0.5, 0.25]}

class Pretends:
    def tune(self, context):
        for done in (1, 2, 3):
            context.on_batch(done, 3, 1 / done)
        tuned = MEASURED | {"declined": 0.75}
        gate = {"base": MEASURED, "tuned": tuned, "bound": 0.02, "refusal": ""}
        (context.folder / "gate.json").write_text(json.dumps({"gate": gate}))
        path = context.folder / "adapter.gguf"
        path.write_bytes(b"adapter of round %d" % context.round)
        return Adapter(str(path), hashlib.sha256(path.read_bytes()).hexdigest(), context.round)

@hookimpl
def selfloop_tuners():
    return [Component("pretends", Pretends, doc="pretends to tune")]
"""
RECIPE = """\
name: tracked
rounds: 2
plugins: [tuner.py]
backend: scripted
ask: {{questions: 3, sources: [topics]}}
answer: {{samples: 2}}
tuner: pretends
observers: [{observers}]
"""
LOSS = [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]


@pytest.fixture
def run(write: Any, selfloop: Selfloop) -> Any:
    """Run the recipe with these observers; return what was said, and the run's folder."""

    def _run(observers: str, *options: object) -> Any:
        folder = write({"tuner.py": TUNER, "recipe.yaml": RECIPE.format(observers=observers)})
        return selfloop("run", "recipe.yaml", *options), folder / "runs" / "tracked"

    return _run


# --- what is written, whoever writes it


def attempt(decision: Decision, confidence: float | None) -> Attempt:
    return Attempt(
        Question(f"{decision}?", "x"),
        draft=Completion("x"),
        decision=decision,
        confidence=confidence,
    )


def figures(meter: RunMetrics, *events: Event) -> dict[str, tuple[int, float]]:
    return {
        figure.name: (figure.step, figure.value)
        for event in events
        for figure in meter.figures_of(event)
    }


ENDED = Round(
    3,
    (
        attempt("belief", 0.9),
        attempt("declined", 0.1),
        attempt("declined", 0.2),
        attempt("dropped", None),
    ),
)


def test_a_round_in_figures(tmp_path: Path) -> None:
    found = figures(RunMetrics(tmp_path), RoundEnded(ENDED))
    assert found == {
        "round/belief": (3, 1.0),
        "round/declined": (3, 2.0),
        "round/undecided": (3, 0.0),
        "round/dropped": (3, 1.0),
        "round/failed": (3, 0.0),
        "round/share_declined": (3, pytest.approx(2 / 3)),
        "round/mean_confidence": (3, pytest.approx(0.4)),
        "round/label_entropy": (3, pytest.approx((0.468996 * 2 + 0.721928) / 3, abs=1e-6)),
    }
    tuned = figures(RunMetrics(tmp_path), RoundEnded(replace(ENDED, agreement=0.75)))
    assert tuned["round/agreement"] == (3, 0.75)
    assert set(figures(RunMetrics(tmp_path), RoundEnded(Round(1, ())))) == {
        n for n in found if "share" not in n
    } - {"round/mean_confidence", "round/label_entropy"}


def test_a_step_in_figures(tmp_path: Path) -> None:
    """Its time and speed are written when the next step begins, or its round ends.

    Nothing is written of a step that was replayed, or cut short.
    """
    said, replayed = CompletionDone("answer", 8, False), CompletionDone("ask", 8, True)
    begun = [StepStarted(2, "ask", 4), replayed, StepStarted(2, "answer", 4), said, said]
    meter = RunMetrics(tmp_path)
    assert figures(meter, *begun) == {}
    found = figures(meter, StepStarted(2, "decide", 4), RunEnded("", "stopped"))
    assert set(found) == {"seconds/answer", "tokens_per_second/answer"}
    (step, seconds), (_, speed) = found["seconds/answer"], found["tokens_per_second/answer"]
    assert step == 2 and 0 < seconds < 5 and speed > 0


def test_a_tune_in_figures(tmp_path: Path) -> None:
    found = figures(RunMetrics(tmp_path), StepStarted(2, "tune", 4), TrainingStep(2, 7, 9, 0.5))
    assert found == {"tune/round-002/loss": (7, 0.5)}


def test_the_gate_of_a_refused_adapter_in_figures(tmp_path: Path) -> None:
    """No adapter comes of such a round, but its folder has what was measured."""
    folder = tmp_path / "adapters" / "round-003"
    folder.mkdir(parents=True)
    measured = {"kept": 1.0, "declined": 0.0, "refused": 0.0, "perplexity": 9.5, "gold": None}
    gate = {"base": measured, "tuned": measured, "bound": 0.1, "refusal": "no better"}
    (folder / "gate.json").write_text(json.dumps({"gate": gate}))
    found = figures(RunMetrics(tmp_path), RoundEnded(ENDED))
    assert {name: at for name, at in found.items() if name.startswith("gate/")} == {
        "gate/base/kept": (3, 1.0),
        "gate/base/declined": (3, 0.0),
        "gate/base/refused": (3, 0.0),
        "gate/base/perplexity": (3, 9.5),
        "gate/tuned/kept": (3, 1.0),
        "gate/tuned/declined": (3, 0.0),
        "gate/tuned/refused": (3, 0.0),
        "gate/tuned/perplexity": (3, 9.5),
        "gate/taken": (3, 0.0),
    }


@pytest.mark.parametrize(
    "text", ["", "[]", '{"gate": {}}', '{"gate": {"base": 1, "tuned": 1, "refusal": ""}}', "\xff"]
)
def test_what_is_no_gate_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "gate.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match=r"gate\.json cannot be read"):
        read_gate(tmp_path)


def test_a_recipe_is_flat_in_settings(write: Any) -> None:
    folder = write(
        {"recipe.yaml": "backend: {kind: hf, model: m}\ndetectors: [a, {kind: b, k: 1}]\nseed: 3\n"}
    )
    found = run_settings(RunStarted("x", str(folder), 1, 0, ModelInfo("M", sha256="ab")))
    assert dict(found) | {"selfloop": ""} == {
        "selfloop": "",
        "model.name": "M",
        "model.sha256": "ab",
        "backend.kind": "hf",
        "backend.model": "m",
        "detectors": '["a", {"kind": "b", "k": 1}]',
        "seed": 3,
    }


class Heard:
    """A sink that keeps what it is told; `wrong` is what it raises in."""

    def __init__(self, wrong: str = "") -> None:
        self.told: list[tuple[Any, ...]] = []
        self._wrong = wrong

    def __getattr__(self, name: str) -> Any:
        def call(*what: Any) -> None:
            self.told.append((name, *what))
            if name == self._wrong:
                raise ConnectionError("no route to the server")

        return call


def test_a_tracker_begins_once_and_ends_once(write: Any) -> None:
    folder = write({"recipe.yaml": "rounds: 1\n"})
    sink = Heard()
    tracker = Tracker(sink, folder)
    tracker.close()
    assert sink.told == [], "what never began does not end"
    adapter = Adapter("adapters/round-003/adapter.gguf", "abc", 3)
    started = RunStarted("x", str(folder), 1, 0, ModelInfo("M"))
    for event in (started, RoundEnded(Round(3, (), adapter)), RunEnded("", "stopped")):
        tracker.on_event(event)
    tracker.close()
    assert [name for name, *_ in sink.told] == ["open_run", "log_figures", "log_text", "close_run"]
    assert sink.told[0][1] == folder.name
    assert sink.told[2:] == [("log_text", "adapter", "abc", 3), ("close_run", "stopped")]


@pytest.mark.extra("tensorboard")
@pytest.mark.parametrize("wrong", ["open_run", "log_figures", "log_text", "close_run"])
def test_a_server_that_is_gone_is_said_once_and_ends_no_run(
    wrong: str, run: Any, selfloop: Selfloop, monkeypatch
) -> None:
    monkeypatch.setattr(tensorboard, "TensorBoard", lambda folder, path: Heard(wrong))
    said, folder = run("tensorboard, console")
    assert said.code == 0 and "run done" in said.out
    assert (
        said.text.count("trouble in observe: tensorboard: ConnectionError: no route to the server")
        == 1
    )
    failures = selfloop("show", folder, "--failures").out
    assert failures.count("observe tensorboard: ConnectionError: no route to the server") == 1


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("tensorboard", "tensorboardX"),
        ("mlflow", "mlflow"),
        ("trackio", "trackio"),
        ("wandb", "wandb"),
    ],
)
def test_a_missing_package_is_said_before_the_run(
    name: str, package: str, run: Any, selfloop: Selfloop, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    said, folder = run(name)
    wanted = (
        f"The observer {name} needs the package {package}, which is not installed. "
        f"Do: pip install 'selfloop[{name}]'"
    )
    assert (said.code, said.out) == (2, "") and wanted in said.err
    assert not folder.exists()
    assert wanted in selfloop("check", "recipe.yaml").err


# --- TensorBoard


def read(folder: Path) -> list[Any]:
    """Return the events of the files in a folder.

    Each is its length and its bytes, with a sum behind either.
    """
    from tensorboardX.proto.event_pb2 import Event as Written

    found = []
    for path in sorted(folder.iterdir(), key=lambda one: one.stat().st_mtime_ns):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            found.append(Written.FromString(data[at + 12 : at + 12 + length]))
            at += length + 16
        assert at == len(data), "the last record is whole"
    return found


def curves(events: list[Any]) -> dict[str, list[tuple[int, float]]]:
    """Return the scalars by name."""
    found: dict[str, list[tuple[int, float]]] = {}
    for event in events:
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def texts(events: list[Any]) -> dict[str, str]:
    values = [
        value for event in events for value in event.summary.value if value.HasField("tensor")
    ]
    return {value.tag: value.tensor.string_val[0].decode() for value in values}


def test_tensorboard_reads_what_was_written(run: Any, selfloop: Selfloop) -> None:
    pytest.importorskip("tensorboardX", reason="pip install 'selfloop[tensorboard]'")
    said, folder = run("tensorboard")
    assert said.code == 0, said.err
    events = read(folder / "tensorboard")
    found = curves(events)
    shown = json.loads(selfloop("show", folder, "--json").out)["attempts"]
    for decision in ("belief", "declined", "dropped"):
        ended = [a["round"] for a in shown if a["decision"] == decision]
        assert found[f"round/{decision}"] == [(1, ended.count(1)), (2, ended.count(2))]
    assert found["tune/round-001/loss"] == found["tune/round-002/loss"] == LOSS
    assert found["gate/base/declined"] == [(1, 0.25), (2, 0.25)]
    assert found["gate/tuned/declined"] == [(1, 0.75), (2, 0.75)]
    assert found["gate/base/gold_wrong"] == [(1, 0.25), (2, 0.25)]
    assert found["gate/taken"] == [(1, 1.0), (2, 1.0)]
    for step in ("ask", "answer", "verify", "decide", "tune"):
        assert [at for at, seconds in found[f"seconds/{step}"] if 0 <= seconds < 60] == [1, 2]
    assert {name for name in found if name.startswith("tokens_")} == {
        "tokens_per_second/ask", "tokens_per_second/answer"
    }  # fmt: skip
    told = texts(events)
    assert "    ask.questions: '3'" in told["recipe/text_summary"].splitlines()
    assert len(told["adapter/text_summary"]) == 64


def test_tensorboard_goes_on_when_the_run_does(run: Any, selfloop: Selfloop) -> None:
    pytest.importorskip("tensorboardX", reason="pip install 'selfloop[tensorboard]'")
    _, folder = run("tensorboard")
    stored = folder / "recipe.yaml"
    stored.write_text(stored.read_text().replace("rounds: 2", "rounds: 3"))
    assert selfloop("resume", folder).code == 0
    assert [step for step, _ in curves(read(folder / "tensorboard"))["round/belief"]] == [1, 2, 3]


def test_tensorboard_in_one_folder_for_many_runs(run: Any, work: Path) -> None:
    pytest.importorskip("tensorboardX", reason="pip install 'selfloop[tensorboard]'")
    for _ in range(2):
        run("{kind: tensorboard, path: all}")
    assert {path.name for path in (work / "all").iterdir()} == {"tracked", "tracked-2"}


# --- the others, each played by a module of its name


class Calls:
    """Anything: what is called of it is kept, with its arguments, and returns the same again."""

    def __init__(self, told: list[tuple[Any, ...]], name: str = "") -> None:
        self.told, self._name = told, name
        self.run_id = self.experiment_id = "7f"

    def __getattr__(self, name: str) -> "Calls":
        return Calls(self.told, f"{self._name}.{name}".strip("."))

    def __call__(self, *args: Any, **options: Any) -> "Calls":
        self.told.append((self._name, args, options))
        return self


def played(monkeypatch: pytest.MonkeyPatch, name: str, **more: Any) -> list[tuple[Any, ...]]:
    told: list[tuple[Any, ...]] = []
    module: Any = ModuleType(name)
    module.__getattr__ = lambda part: Calls(told, part) if part[:2] != "__" else None
    monkeypatch.setitem(sys.modules, name, module)
    for part, value in more.items():
        monkeypatch.setitem(sys.modules, f"{name}.{part}", value)
    return told


def test_what_mlflow_is_told(run: Any, selfloop: Selfloop, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*RETRY_SETTINGS, "MLFLOW_DISABLE_TELEMETRY", "MLFLOW_ALLOW_FILE_STORE"):
        monkeypatch.setenv(name, "")  # the observer sets what is not set; put back after the test
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    entities = SimpleNamespace(Metric=lambda *of: of, Param=lambda *of: of)
    told = played(monkeypatch, "mlflow", entities=entities)
    said, folder = run("mlflow")
    assert said.code == 0, said.err
    assert told[0] == ("MlflowClient", (), {"tracking_uri": (folder / "mlruns").as_uri()})
    batches = [options for name, _, options in told if name == "MlflowClient.log_batch"]
    assert ("ask.questions", "3") in batches[0]["params"]
    metrics = [metric for batch in batches for metric in batch.get("metrics", ())]
    assert [
        (step, value) for name, value, _, step in metrics if name == "tune/round-002/loss"
    ] == LOSS
    assert [args[1] for name, args, _ in told if name == "MlflowClient.set_tag"] == [
        "adapter.round-001", "adapter.round-002"
    ]  # fmt: skip
    assert told[-1] == ("MlflowClient.set_terminated", ("7f",), {"status": "FINISHED"})
    told.clear()
    assert selfloop("resume", folder).code == 0
    assert [name.partition(".")[2] for name, *_ in told] == ["", "update_run", "set_terminated"], (
        "the same run goes on"
    )


def test_what_trackio_is_told(
    run: Any, selfloop: Selfloop, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = played(monkeypatch, "trackio")
    said, folder = run("{kind: trackio, project: mine}")
    assert said.code == 0, said.err
    assert (
        told[0][0] == "init"
        and told[0][1][0] == "mine"
        and told[0][2]["config"]["ask.questions"] == 3
    )
    logged = [(args[0], options["step"]) for name, args, options in told if name == "init.log"]
    assert [
        (step, row["tune/round-001/loss"]) for row, step in logged if "tune/round-001/loss" in row
    ] == LOSS
    assert told[-1] == ("finish", (), {})
    name = told[0][1][1]
    told.clear()
    assert selfloop("resume", folder).code == 0
    assert told[0][1][1] == name and told[0][2]["resume"] == "allow"


@pytest.mark.parametrize("online", [False, True])
def test_what_wandb_is_told(online: bool, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "")
    told = played(monkeypatch, "wandb")
    said, folder = run(f"{{kind: wandb, online: {str(online).lower()}}}")
    assert said.code == 0, said.err
    options = next(options for name, _, options in told if name == "init")
    assert options["mode"] == ("online" if online else "offline")
    assert (options["project"], options["name"], options["dir"]) == (
        "selfloop",
        "tracked",
        str(folder.relative_to(Path.cwd())),
    )
    rows = [args[0] for name, args, _ in told if name == "init.log"]
    assert [
        (row["step"], row["tune/round-001/loss"]) for row in rows if "tune/round-001/loss" in row
    ] == LOSS
    assert told[-1] == ("init.finish", (), {"exit_code": 0})


# --- the others, if they are there


def test_mlflow_reads_what_was_written(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="pip install 'selfloop[mlflow]'")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    said, folder = run("mlflow")
    assert said.code == 0, said.err
    client = mlflow.MlflowClient(tracking_uri=(folder / "mlruns").as_uri())
    (written,) = client.search_runs([client.get_experiment_by_name("selfloop").experiment_id])
    assert (written.info.run_name, written.info.status) == ("tracked", "FINISHED")
    assert written.data.params["ask.questions"] == "3"
    history = client.get_metric_history(written.info.run_id, "tune/round-001/loss")
    assert [(one.step, one.value) for one in history] == LOSS


def test_wandb_writes_offline(run: Any) -> None:
    pytest.importorskip("wandb", reason="pip install 'selfloop[wandb]'")
    said, folder = run("wandb")
    assert said.code == 0, said.err
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    assert (
        b"tune/round-001/loss" in file.read_bytes() and b"round/share_declined" in file.read_bytes()
    )


def test_trackio_writes(run: Any, monkeypatch: pytest.MonkeyPatch, work: Path) -> None:
    trackio = pytest.importorskip("trackio", reason="pip install 'selfloop[trackio]'")
    said, _ = run("{kind: trackio, project: selfloop-tests}")
    assert said.code == 0, said.err
    assert (Path(trackio.TRACKIO_DIR) / "selfloop-tests.db").is_file()


def test_a_loss_that_is_no_number_is_written_too(tmp_path: Path) -> None:
    (figure,) = RunMetrics(tmp_path).figures_of(TrainingStep(1, 1, 2, float("nan")))
    assert figure[::2] == Figure("tune/round-001/loss", 0.0, 1)[::2] and math.isnan(figure.value)


@pytest.fixture(autouse=True)
def _quiet_again() -> Any:
    """The observer mlflow quiets a logger of this process."""
    logger = logging.getLogger("urllib3.connectionpool")
    level = logger.level
    yield
    logger.setLevel(level)
