"""`selfloop rescore`: a finished run is judged again out of what is stored."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Query, Selfloop
from tuned_run import PLUGIN, RECIPE, attempts

Write = Callable[[Any], Path]


@pytest.fixture
def run(write: Write, selfloop: Selfloop) -> Path:
    folder = write({"recipe.yaml": RECIPE, "plugin.py": PLUGIN})
    result = selfloop("run", "recipe.yaml")
    assert result.code == 0, result.err
    assert selfloop("show", "first", "--failures").out == "nothing failed\n"
    return folder / "runs" / "first"


def test_the_same_recipe_gives_the_same_without_the_model(
    run: Path, selfloop: Selfloop, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = attempts(selfloop, "first")
    monkeypatch.setenv("NO_MODEL", "1")
    result = selfloop("rescore", "first")
    assert result.code == 0, result.err
    assert attempts(selfloop, "first-rescored") == before == attempts(selfloop, "first")
    other = run.parent / "first-rescored"
    rows = "SELECT number, adapter FROM rounds ORDER BY number"
    assert query(other, rows) == query(run, rows)
    assert query(other, "SELECT count(*) FROM completions") == query(
        run, "SELECT count(*) FROM completions"
    )
    monkeypatch.delenv("NO_MODEL")
    assert selfloop("resume", "runs/first-rescored").code == 0, (
        "it is a run like any other, and it is done"
    )


def test_other_detectors_and_thresholds(
    run: Path, selfloop: Selfloop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_MODEL", "1")
    result = selfloop(
        "rescore",
        "runs/first",
        "--set",
        "detectors=[cocoa]",
        "--set",
        "decide.belief=0.9",
        "--json",
    )
    assert result.code == 0, result.err
    rejudged = attempts(selfloop, Path(json.loads(result.out)["run"]).name)
    judged = [a for a in rejudged if a["decision"] not in ("dropped", "failed")]
    assert judged and all(
        [v["detector"] for v in a["verdicts"] if v["candidate"] == "draft"] == ["cocoa"]
        for a in judged
    )
    assert all(
        (a["decision"] == "belief") == (a["confidence"] >= 0.9)
        for a in judged
        if a["confidence"] is not None
    )
    kept = [a["question"]["text"] for a in attempts(selfloop, "first")]
    assert [a["question"]["text"] for a in rejudged] == kept


def test_the_model_is_opened_for_what_is_not_stored(
    run: Path, selfloop: Selfloop, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("rescore", "first", "--set", "detectors=[agreement, pmi]")
    with monkeypatch.context() as closed:
        closed.setenv("NO_MODEL", "1")
        assert (
            selfloop(*more).code != 0
            or selfloop("show", "first-rescored", "--failures").out != "nothing failed\n"
        )
    assert selfloop(*more).code == 0
    rejudged = attempts(selfloop, "first-rescored-2")
    verdicts = []
    for attempt in rejudged:
        verdicts += [v for v in attempt["verdicts"] if v["detector"] == "pmi"]
    assert verdicts and all(
        v["confidence"] is not None for v in verdicts if v["candidate"] == "draft"
    )
    adapters = {a["draft"]["adapter"] for a in rejudged if a["draft"]}
    assert adapters == {None, "sha-1"}, "the second round is judged under the first's adapter"


def test_a_model_that_is_now_another_is_not_asked(
    run: Path, selfloop: Selfloop, write: Write
) -> None:
    write({"plugin.py": PLUGIN.replace("super().__init__()", "super().__init__({'': ['x']})")})
    assert selfloop("rescore", "first").code == 0
    result = selfloop("rescore", "first", "--set", "detectors=[pmi]")
    assert "is now another" in result.text
    assert "Traceback" not in result.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing",), "no run"),
        (("first", "--set", "detectors=[nonsense]"), "nonsense"),
        (("first", "--set", "detectors=[]"), "detectors"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], message: str, run: Path, selfloop: Selfloop) -> None:
    result = selfloop("rescore", *arguments)
    assert result.code == 2 or message == "no run"
    assert result.code != 0 and message in result.err
    assert [path.name for path in run.parent.iterdir()] == ["first"], "nothing is left of it"
