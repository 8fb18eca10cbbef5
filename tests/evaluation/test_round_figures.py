"""The figures of rounds: entropy of labels, agreement of two models, and the gate's."""

import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import Selfloop
from tuned_run import PLUGIN, RECIPE

from selfloop.evaluation.round_figures import label_entropy
from selfloop.records import Attempt, Question, Round

Write = Callable[[Any], Path]


@pytest.mark.parametrize(
    ("confidences", "entropy"),
    [
        ([], None),
        ([None, None], None),
        ([0.0, 1.0, 1.0], 0.0),
        ([0.5], 1.0),
        ([0.5, 1.0], 0.5),
        ([0.25, None], 0.811278),
        ([0.25, 0.75], 0.811278),
    ],
)
def test_label_entropy(confidences: Sequence[float | None], entropy: float | None) -> None:
    attempts = tuple(
        Attempt(Question(f"{i}?", "test"), confidence=confidence)
        for i, confidence in enumerate(confidences)
    )
    assert label_entropy(Round(1, attempts)) == pytest.approx(entropy)


@pytest.fixture
def run(write: Write, selfloop: Selfloop) -> Path:
    folder = write({"recipe.yaml": RECIPE, "plugin.py": PLUGIN})
    assert selfloop("run", "recipe.yaml").code == 0
    return folder / "runs" / "first"


def test_a_run_that_tunes_shows_signs_of_collapse(run: Path, selfloop: Selfloop) -> None:
    gate = {"kept": 0.9, "declined": 0.625}
    report = {"gate": {"base": gate, "tuned": gate, "refusal": ""}}
    (run / "adapters/round-002/gate.json").write_text(json.dumps(report))
    shown = json.loads(selfloop("show", "first", "--json").out)
    first, second = shown["rounds"]
    assert (first["round"], first["agreement"], first["kept"]) == (1, None, None)
    assert (second["round"], second["kept"], second["declined"]) == (2, 0.9, 0.625)
    drafts = [a["draft"] for a in shown["attempts"] if a["round"] == 2 and a["draft"]]
    assert round(second["agreement"] * len(drafts)) == pytest.approx(
        second["agreement"] * len(drafts)
    ), "a share of the questions that were answered"
    assert 0 <= second["agreement"] < 1
    lines = [line for line in selfloop("show", "first").out.splitlines() if "entropy" in line]
    assert lines == [
        f"  label entropy {first['label_entropy']:.2f} bits",
        f"  label entropy {second['label_entropy']:.2f} bits; base and tuned model agree on "
        f"{second['agreement']:.0%}; the new adapter keeps 90% of the right held-out answers and "
        "declines 62% of the wrong ones",
    ]


def test_a_damaged_report_of_a_gate_is_shown_as_none(run: Path, selfloop: Selfloop) -> None:
    (run / "adapters/round-001/gate.json").write_text("{")
    shown = json.loads(selfloop("show", "first", "--json").out)
    assert shown["rounds"][0]["kept"] is None


def test_the_agreement_is_kept_by_rescore(run: Path, selfloop: Selfloop) -> None:
    before = json.loads(selfloop("show", "first", "--json").out)["rounds"]
    assert selfloop("rescore", "first").code == 0
    assert json.loads(selfloop("show", "first-rescored", "--json").out)["rounds"] == before


@pytest.mark.parametrize("value", ['["much"]', '{"2": "much"}', '{"2": []}'])
def test_a_damaged_agreement_is_reported(value: str, run: Path, selfloop: Selfloop) -> None:
    with closing(sqlite3.connect(run / "run.sqlite")) as db, db:
        db.execute("UPDATE meta SET value = ? WHERE key = 'agreements'", (value,))
    said = selfloop("show", "first")
    assert said.code == 5
    assert "is damaged" in said.err


def test_a_run_that_does_not_tune_shows_none(run: Path, selfloop: Selfloop) -> None:
    assert selfloop("run", "recipe.yaml", "--set", "tuner=none", "--set", "name=plain").code == 0
    assert "entropy" not in selfloop("show", "plain").out
