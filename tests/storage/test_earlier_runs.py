"""Runs of earlier versions are read, judged again and gone on with.

`tests/data/earlier_runs` has two runs of selfloop 0.1.0 (commit 949e967), one that ended and one
that was killed in its second round. Their model is the backend `scripted` with its own script:

    selfloop run quickstart --set backend=scripted --set ask.questions=6 --set rounds=2 \
        --set tuner=null

A change of `selfloop.testing.WORLD` is another model for them, and `resume` refuses it rightly:
then make these runs anew, with that commit and a file for `backend.script`.
"""

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Selfloop
from ruamel.yaml import YAML

import selfloop as package
from selfloop.config.recipe import read
from selfloop.records import Round, Verdict
from selfloop.storage.run_folder import RunFolder
from selfloop.storage.store import Store, rounds_of
from selfloop.storage.upgrades import upgraded_event, upgraded_recipe

EARLIER = Path(__file__).parents[1] / "data" / "earlier_runs"
WHOLE, STOPPED = "0.1.0-whole", "0.1.0-stopped"


@pytest.fixture(params=[WHOLE, STOPPED])
def run(request: pytest.FixtureRequest, work: Path) -> Path:
    """A copy of an earlier run, below the folder in which commands run."""
    return copied(request.param, work)


def copied(name: str, work: Path) -> Path:
    folder = work / "runs" / name
    shutil.copytree(EARLIER / name, folder)
    return folder


def test_the_stored_runs_are_of_the_first_version() -> None:
    for name in (WHOLE, STOPPED):
        database = RunFolder(EARLIER / name).database
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro&immutable=1", uri=True)) as db:
            keys = {key for (key,) in db.execute("SELECT key FROM meta")}
        assert keys == {"base", "name", "inputs", "model"}, "no version of the records"


def test_it_is_read(run: Path, selfloop: Selfloop) -> None:
    printed = json.loads(selfloop("show", run.name, "--json").out)
    assert len(printed["attempts"]) == (15 if run.name == WHOLE else 6)
    opened = package.open(run)
    assert opened.model["name"] == "scripted"
    assert opened.recipe["rounds"] == 2
    assert opened.rows()


@pytest.mark.slow
def test_the_stopped_one_ends_with_the_records_of_the_whole_one(
    work: Path, selfloop: Selfloop
) -> None:
    whole, stopped = copied(WHOLE, work), copied(STOPPED, work)
    assert len(rounds_of(stopped)) == 1
    result = selfloop("resume", str(stopped))
    assert result.code == 0, result.err
    assert without_novelty(rounds_of(stopped)) == without_novelty(rounds_of(whole))


def without_novelty(rounds: list[Round]) -> list[Round]:
    """Return rounds without the scores of `novelty`: the nearest question is now found exactly."""
    stripped = []
    for ended in rounds:
        attempts = []
        for attempt in ended.attempts:
            scores = tuple(score for score in attempt.scores if score.scorer != "novelty")
            attempts.append(replace(attempt, scores=scores))
        stripped.append(replace(ended, attempts=tuple(attempts)))
    return stripped


def test_the_whole_one_has_nothing_left_to_do(work: Path, selfloop: Selfloop) -> None:
    whole = copied(WHOLE, work)
    before, completions = rounds_of(whole), count(whole, "completions")
    result = selfloop("resume", str(whole))
    assert result.code == 0, result.err
    assert (rounds_of(whole), count(whole, "completions")) == (before, completions)


def test_it_is_judged_again(run: Path, selfloop: Selfloop) -> None:
    before = rounds_of(run)
    result = selfloop("rescore", run.name, "--set", "decide.belief=0.5", "--json")
    assert result.code == 0, result.err
    after = rounds_of(Path(json.loads(result.out)["run"]))
    assert list(map(verdicts, after)) == list(map(verdicts, before))
    assert sum(map(beliefs, after)) > sum(map(beliefs, before))


@pytest.mark.slow
@pytest.mark.extra("report")
def test_it_has_a_report(run: Path, selfloop: Selfloop) -> None:
    result = selfloop("report", run.name)
    assert result.code == 0, result.err
    assert "Who was the first to write about Nile?" in RunFolder(run).report.read_text(
        encoding="utf-8"
    )


def verdicts(ended: Round) -> list[tuple[Verdict, ...]]:
    return [attempt.verdicts for attempt in ended.attempts]


def beliefs(ended: Round) -> int:
    return ended.count("belief")


def count(folder: Path, table: str) -> int:
    with closing(Store(folder, write=False)) as store:
        return store.count(table)


def test_a_digest_that_another_run_pinned_is_still_the_same(run: Path) -> None:
    """Pinned by a run of 0.1.0 that took its examples from this one."""
    expected = {
        WHOLE: "0fd03d2f5661ea0bf0e918016d6bf4497b7b1139f1f6f32472c051c334ceb616",
        STOPPED: "e9da988afe78ba81c8010ee9e8fcd20255ce047254c7a90005bfd8a2d0950eb6",
    }
    with closing(Store(run, write=True)) as store:
        assert store.digest() == expected[run.name]


# every key of version 0.1.0 that has another name now
OLD_RECIPE = """\
backend: scripted
ask:
  turns: 3
  sources: [{kind: topics, share: 2}]
  scorers: [{kind: well_formed, minimum: 1}, {kind: balance, least: 9, minimum: 0.5}]
answer: {careful: 1.5}
critique: {kind: contrast, least: 3}
demonstrations: {kind: own_demonstrations, least: 0.7}
verifiers: [agreement, {kind: combined, least: 31}]
tuner: {kind: lora, every: 1, keep: 0.8, match: false, declined: 0.4}
"""
NEW_RECIPE = """\
backend: scripted
ask:
  max_turns: 3
  sources: [{kind: topics, weight: 2}]
  scorers: [{kind: well_formed, min_score: 1}, {kind: balance, min_questions: 9, min_score: 0.5}]
answer: {decline_bias: 1.5}
critique: {kind: contrast, min_samples: 3}
few_shot: {kind: own_demonstrations, min_confidence: 0.7}
detectors: [agreement, {kind: combined, min_answers: 31}]
tuner: {kind: lora, every: 1, min_kept: 0.8, match_form: false, decline_share: 0.4}
"""


def test_every_old_key_of_a_recipe_has_its_present_name(tmp_path: Path) -> None:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(OLD_RECIPE)
    new.write_text(NEW_RECIPE)
    text = upgraded_recipe(old, version=1)
    assert YAML(typ="safe").load(text) == YAML(typ="safe").load(NEW_RECIPE)
    old.write_text(text)
    assert read(old, name="r").recipe == read(new, name="r").recipe


def test_the_log_of_an_earlier_run_is_read() -> None:
    batch = {"event": "BatchLearnt", "time": "2026-11-01T00:00:00+00:00", "round": 1, "done": 2}
    assert upgraded_event(dict(batch)) == {**batch, "event": "TrainingStep"}
    assert upgraded_event({"event": "TrainingStep"}) == {"event": "TrainingStep"}
    assert upgraded_event([1]) == [1]
