"""Records of an earlier version are read as if they had been written today."""

import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Selfloop
from ruamel.yaml import YAML

from selfloop.errors import StoreError
from selfloop.records import (
    Attempt,
    Completion,
    Message,
    Question,
    Request,
    Round,
    Sampling,
    Verdict,
)
from selfloop.storage import recorder, upgrades
from selfloop.storage.recorder import Recorder
from selfloop.storage.run_folder import RunFolder
from selfloop.storage.store import Store, recipe_of, rounds_of
from selfloop.storage.upgrades import renaming, upgraded
from selfloop.testing import ScriptedBackend

OLD_RECIPE = """\
# what was asked
rounds: 1          # one
base_model:        # invented
  kind: scripted
ask:
  questions: 2
  # where they come from
  sources:
  - kind: blank_slates   # invented too
    weight: 1
  - frontiers
detectors: [agreements]
"""
NEW_RECIPE = (
    OLD_RECIPE.replace("base_model:", "backend:   ")
    .replace("blank_slates", "blank_slate ")
    .replace("agreements", "agreement")
    .replace("frontiers", "frontier")
)
# What version 1 would have called otherwise, in an invented history.
HISTORY = renaming(
    {
        "attempt.verdicts.*.judge": "detector",
        "attempt.draft.words": "text",
        "completion.words": "text",
        "adapter.file": "path",
        "model.called": "name",
        "recipe.base_model": "backend",
        "recipe.ask.sources.*.kind": {"blank_slates": "blank_slate", "frontiers": "frontier"},
        "recipe.detectors.*.kind": {"agreements": "agreement"},
    }
)
ROUND = Round(
    1,
    (
        Attempt(
            Question("Q?", "file"),
            draft=Completion("a", (1,), (-0.1,)),
            verdicts=(Verdict("v", 0.5),),
            decision="undecided",
        ),
    ),
)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A run of the invented first version."""
    folder = tmp_path / "runs" / "old"
    with closing(Store(folder, write=True)) as store:
        store.set_meta(model={"name": "m", "sha256": "1"}, name="old", base=".")
        store.begin_session({})
        store.save_completion("key", "answer", Completion("said", sample=2))
        store.save_round(ROUND)
        store.save_file(store.files.recipe, OLD_RECIPE)
    with closing(sqlite3.connect(RunFolder(folder).database, isolation_level=None)) as db:
        db.execute("DELETE FROM meta WHERE key = 'records_version'")
        rename(db, "attempts", "data", '"detector"', '"judge"')
        rename(db, "attempts", "data", '"text":"a"', '"words":"a"')
        rename(db, "completions", "data", '"text"', '"words"')
        rename(db, "meta", "value", '"name"', '"called"')
    return folder


def rename(db: sqlite3.Connection, table: str, column: str, new: str, old: str) -> None:
    db.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (new, old))


@pytest.fixture
def second_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this selfloop be the one after the invented rename."""
    monkeypatch.setattr(upgrades, "UPGRADES", (HISTORY,))
    monkeypatch.setattr(upgrades, "RECORDS_VERSION", 2)


def stored(folder: Path) -> Iterator[Any]:
    with closing(sqlite3.connect(RunFolder(folder).database)) as db:
        for table in ("meta", "attempts", "completions"):
            yield from db.execute(f"SELECT * FROM {table}").fetchall()


def test_an_earlier_run_is_read_and_stays_as_it_is(old: Path, second_version: None) -> None:
    before, recipe = list(stored(old)), RunFolder(old).recipe.read_text()
    assert rounds_of(old) == [ROUND]
    assert recipe_of(old)["backend"] == {"kind": "scripted"}
    with closing(Store(old, write=False)) as store:
        assert store.completions("key") == {2: Completion("said", sample=2)}
        assert store.model()["name"] == "m"
        assert store.summary().model == "m"
    assert list(stored(old)) == before
    assert RunFolder(old).recipe.read_text() == recipe


def test_an_earlier_run_is_rewritten_before_more_is_written(
    old: Path, second_version: None
) -> None:
    with closing(Store(old, write=False)) as store:
        digest = store.digest()
    with closing(Store(old, write=True)) as store:
        assert store.digest() == digest, "who pinned this run goes on"
        store.save_round(Round(2, ROUND.attempts))
        assert store.digest() != digest
        assert set(store.meta()) == {"model", "name", "base"}
    assert rounds_of(old) == [ROUND, Round(2, ROUND.attempts)]
    text = "".join(map(str, stored(old)))
    assert not re.search("judge|words|called", text)
    assert RunFolder(old).recipe.read_text() == NEW_RECIPE, "its comments too"


def test_a_kill_between_recipe_and_records_does_no_harm(
    old: Path, second_version: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Store, "_upgrade_column", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            Store(old, write=True)
    assert RunFolder(old).recipe.read_text() == NEW_RECIPE
    Store(old, write=True).close()
    assert RunFolder(old).recipe.read_text() == NEW_RECIPE
    assert rounds_of(old) == [ROUND]


def test_a_new_run_has_the_present_version(tmp_path: Path, second_version: None) -> None:
    with closing(Store(tmp_path / "new", write=True)) as store:
        store.save_round(ROUND)
    assert ("records_version", "2") in list(stored(tmp_path / "new"))
    assert rounds_of(tmp_path / "new") == [ROUND]


def test_the_recipe_in_a_damaged_run_runs(old: Path, selfloop: Selfloop) -> None:
    RunFolder(old).recipe.write_text("backend: scripted\nask: {sources: [blank_slate]}\n")
    RunFolder(old).database.write_text("no database")
    assert selfloop("check", RunFolder(old).recipe).code == 0


@pytest.mark.parametrize("write", [True, False])
def test_a_run_of_a_newer_version_is_refused(old: Path, write: bool) -> None:
    with closing(sqlite3.connect(RunFolder(old).database, isolation_level=None)) as db:
        db.execute("INSERT INTO meta VALUES ('records_version', '99')")
    with pytest.raises(StoreError, match=r"newer selfloop \(records 99\). Update selfloop"):
        Store(old, write=write)


def test_a_version_that_is_none_is_damage(old: Path) -> None:
    with closing(sqlite3.connect(RunFolder(old).database, isolation_level=None)) as db:
        db.execute("""INSERT INTO meta VALUES ('records_version', '"two"')""")
    with pytest.raises(StoreError, match="is damaged: the version of its records is"):
        Store(old, write=False)


def test_the_recipe_in_an_earlier_run_runs(
    old: Path, second_version: None, selfloop: Selfloop, work: Path
) -> None:
    """The file itself has keys that no recipe has now."""
    result = selfloop("check", RunFolder(old).recipe)
    assert result.code == 0, result.err
    elsewhere = shutil.copy(RunFolder(old).recipe, work / "recipe.yaml")
    assert "base_model" in selfloop("check", elsewhere).err


@pytest.mark.parametrize(
    ("path", "new_name", "before", "after"),
    [
        ("a", "b", "{x: 1, a: 2, y: 3}", "{x: 1, b: 2, y: 3}"),
        ("a.b", "c", "{a: {b: 1}}", "{a: {c: 1}}"),
        ("a.b", "c", "{a: [1], b: 2}", "{a: [1], b: 2}"),
        ("a.*.b", "c", "{a: [{b: 1}, 2, {x: {b: 3}}]}", "{a: [{c: 1}, 2, {x: {b: 3}}]}"),
        ("a.*=k.b", "c", "{a: [{kind: k, b: 1}]}", "{a: [{kind: k, c: 1}]}"),
        ("a.*=k.b", "c", "{a: [{kind: l, b: 1}]}", "{a: [{kind: l, b: 1}]}"),
        ("t=k.b", "c", "{t: {kind: k, b: 1}}", "{t: {kind: k, c: 1}}"),
        ("t=k.b", "c", "{t: k}", "{t: k}"),
        ("t.kind", {"k": "l"}, "{t: k}", "{t: l}"),
        ("t.kind", {"k": "l"}, "{t: {kind: k}}", "{t: {kind: l}}"),
        ("t.kind", {"k": "l"}, "{t: null}", "{t: null}"),
        ("a.*.kind", {"k": "l"}, "{a: [k, {kind: k}, m, 1]}", "{a: [l, {kind: l}, m, 1]}"),
    ],
)
def test_what_a_rename_does(path: str, new_name: Any, before: str, after: str) -> None:
    upgrade, data, expected = renaming({f"recipe.{path}": new_name}), plain(before), plain(after)
    upgrade("attempt", data)
    assert data == plain(before), "of another kind of record"
    for _ in ("once", "twice"):
        upgrade("recipe", data)
        assert data == expected
        assert list(data) == list(expected), "in the same order"


def plain(text: str) -> Any:
    return YAML(typ="safe").load(text)


@pytest.mark.parametrize("record", [None, 1, "text", [], [[1]], {"verdicts": {"judge": 1}}])
def test_a_strangers_record_is_left_alone(record: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrades, "UPGRADES", (HISTORY,))
    assert json.loads(upgraded("attempt", json.dumps(record), 1)) == record


def test_what_was_asked_keeps_its_name(tmp_path: Path) -> None:
    """Every stored completion is found again by a hash over the fields of its request.

    Whoever renames a field of `Request`, `Sampling` or `Message` adds it to `HASHED_NAMES`.
    """
    request = Request("What is it?", Sampling(0.7, max_tokens=8, decline_bias=0.5), n=3, seed=7)
    chat = Request((Message("user", "Hi"),), Sampling(skip_blank=True), open_turn=True)
    with closing(Store(tmp_path / "run", write=True)) as store:
        key = Recorder(ScriptedBackend({"it": ["a"]}), store, lambda event: None).key
        # as selfloop 0.1.0 (commit 949e967) names them
        assert key(request) == "760bc1894c7839e38ee002d28fbdf1fc"
        assert key(replace(chat, entropy=True)) == "5fb1a62f8f375497d87617912b4a220b"


def test_a_field_that_is_renamed_keeps_its_name_in_the_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Store(tmp_path / "run", write=True)) as store:
        key = Recorder(ScriptedBackend({"it": ["a"]}), store, lambda event: None).key
        before = key(Request("Q?"))
        monkeypatch.setattr(recorder, "HASHED_NAMES", {**recorder.HASHED_NAMES, "top_p": "nucleus"})
        renamed = key(Request("Q?"))
        assert renamed != before
        monkeypatch.setattr(recorder, "HASHED_NAMES", {**recorder.HASHED_NAMES, "top_p": "top_p"})
        assert key(Request("Q?")) == before
