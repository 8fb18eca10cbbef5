"""The store: what goes in comes out, a round whole or not at all."""

import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from selfloop.errors import RunLockedError, StoreError
from selfloop.history import History
from selfloop.records import Adapter, Attempt, Completion, Failure, Question, Round, Score, Verdict
from selfloop.storage.run_folder import DATABASE
from selfloop.storage.store import Store

HOSTILE = [
    "",
    "\0",
    "a\0b",
    "\x1b[2J",
    "'; DROP TABLE rounds; --",
    '{"a": 1}',
    "\u2028\u202e",
    "\U0001f600",
    "x" * 100_000,
]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "run", write=True)
    opened.begin_session({"selfloop": "test"})
    yield opened
    opened.close()


def whole(number: int = 1) -> Round:
    """Return a round with something in every field."""
    completion = Completion("Cairo\0", (1, 2), (-0.5, float("-inf")), "length", 3, "sha")
    failure = Failure("verify", "x", "ValueError", "no\n'")
    attempt = Attempt(
        Question("What is it?", "file", "rivers", ("Nile", "the Nile")),
        scores=(Score("novelty", 0.1 + 0.2, "like"),),
        draft=completion,
        samples=(completion, Completion("")),
        critique=completion,
        revision=completion,
        verdicts=(Verdict("v", 1 / 3, "why"), Verdict("w", None, "cannot tell", "revision")),
        failures=(failure,),
        decision="belief",
        reason="because",
        chosen="revision",
        confidence=1 / 3,
    )
    gone = Attempt(Question("Gone?", "file"), decision="dropped", reason="x")
    return Round(
        number,
        (attempt, gone),
        Adapter("a/b", "sha", number),
        (Failure("tune", "t", "OSError", "full"),),
    )


def test_a_round_comes_back_as_it_was(store: Store) -> None:
    store.save_round(whole(1))
    store.save_round(Round(2, ()))
    assert list(store.rounds()) == [whole(1), Round(2, ())]
    assert store.history() == History().after(whole(1)).after(Round(2, ()))


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_text_comes_back_as_it_was(text: str, store: Store) -> None:
    store.save_completion(text, text, Completion(text))
    attempt = Attempt(
        Question(text, text), draft=Completion(text), decision="undecided", reason=text
    )
    store.save_round(Round(1, (attempt,)))
    assert store.completions(text) == {0: Completion(text)}
    assert next(store.rounds()).attempts == (attempt,)


def test_what_no_utf8_holds_is_replaced(store: Store) -> None:
    store.save_completion("key", "ask", Completion("a\udc80b"))
    assert store.completions("key")[0].text == "a?b"


def test_log_probabilities_come_back_to_the_last_bit(store: Store) -> None:
    odd = (0.1 + 0.2, -1e-320, -1.7976931348623157e308, float("-inf"), -math.pi)
    store.save_completion("key", "ask", Completion("x", (1, 2, 3, 4, 5), odd))
    assert store.completions("key")[0].logprobs == odd
    store.save_completion("key", "ask", Completion("x", (1,), (float("nan"),), sample=1))
    assert math.isnan(store.completions("key")[1].logprobs[0])


def test_a_completion_made_twice_is_refused(store: Store) -> None:
    store.save_completion("key", "ask", Completion("one"))
    with pytest.raises(sqlite3.IntegrityError):
        store.save_completion("key", "ask", Completion("two"))
    store.save_completion("key", "ask", Completion("two", sample=1))
    assert {k: c.text for k, c in store.completions("key").items()} == {0: "one", 1: "two"}


def test_a_round_is_stored_whole_or_not_at_all(store: Store) -> None:
    bad = Attempt(Question("Q?", "x"), decision=None)  # the column takes no NULL
    with pytest.raises(sqlite3.IntegrityError):
        store.save_round(Round(1, (*whole().attempts, bad)))
    tables = ("rounds", "attempts", "verdicts", "failures")
    assert [store.count(table) for table in tables] == [0, 0, 0, 0]
    store.save_round(whole())
    assert [store.count(table) for table in tables] == [1, 2, 2, 2]


def test_beliefs_can_be_queried(store: Store) -> None:
    store.save_round(whole())
    with sqlite3.connect(store.folder / DATABASE) as db:
        assert db.execute("SELECT round, question, answer FROM beliefs").fetchall() == [
            (1, "What is it?", "Cairo\0")
        ]


def test_what_is_pinned_stays(store: Store) -> None:
    store.set_meta(a=1, b={"c": [None]})
    store.set_meta(a=2)
    assert store.meta() == {"a": 2, "b": {"c": [None]}}
    assert store.sessions() == [{"selfloop": "test"}]


def test_files_are_written_whole(store: Store) -> None:
    store.save_file("recipe.yaml", "é")
    store.save_file("recipe.yaml", "two")
    assert (store.folder / "recipe.yaml").read_text() == "two"
    assert not list(store.folder.glob("*.part"))


def test_one_writer_many_readers(store: Store) -> None:
    with pytest.raises(RunLockedError, match="another process is working on"):
        Store(store.folder, write=True)
    store.save_round(whole())
    reader = Store(store.folder, write=False)
    assert list(reader.rounds()) == [whole()]
    with pytest.raises(StoreError, match="cannot write in"):
        reader.set_meta(a=1)
    reader.close()


def test_the_lock_goes_with_its_holder(store: Store) -> None:
    store.save_round(whole())
    store.close()
    again = Store(store.folder, write=True)
    assert list(again.rounds()) == [whole()]
    again.close()


def test_reading_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no run in"):
        Store(tmp_path / "nope", write=False)
    assert not (tmp_path / "nope").exists()


@pytest.mark.parametrize(
    ("error", "piece"),
    [
        (sqlite3.OperationalError("database or disk is full"), "the disk is full"),
        (OSError(28, "No space left on device"), "the disk is full"),
        (OSError(30, "Read-only file system"), "cannot write in"),
        (PermissionError(13, "Permission denied"), "cannot write in"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "cannot write in"),
        (sqlite3.DatabaseError("database disk image is malformed"), "is damaged"),
        (sqlite3.OperationalError("disk I/O error"), "disk I/O error"),
    ],
)
def test_what_a_disk_can_do_is_said_with_what_to_do(
    error: Exception, piece: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(Path, "write_bytes", fail)
    if isinstance(error, OSError):
        with pytest.raises(StoreError, match=piece) as raised:
            store.save_file("x", "y")
    else:
        with pytest.raises(StoreError, match=piece) as raised, store._disk_errors():
            fail()
    assert str(store.folder) in str(raised.value)


def test_attempts_are_json_that_anybody_can_read(store: Store) -> None:
    store.save_round(
        Round(1, (Attempt(Question("Q?", "x"), draft=Completion("é"), decision="undecided"),))
    )
    with sqlite3.connect(store.folder / DATABASE) as db:
        ((data,),) = db.execute("SELECT data FROM attempts").fetchall()
    assert json.loads(data)["draft"]["text"] == "é"


def test_a_run_is_read_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite makes files beside a database in WAL mode, also to read it; on a CD it cannot."""
    with closing(Store(tmp_path / "run", write=True)) as opened:
        opened.save_round(whole())
    monkeypatch.setattr("os.access", lambda path, mode: False)
    before = set((tmp_path / "run").iterdir())
    with closing(Store(tmp_path / "run", write=False)) as store:
        assert list(store.rounds()) == [whole()]
        assert set((tmp_path / "run").iterdir()) == before


def test_an_empty_database_is_said_to_be_damaged(tmp_path: Path) -> None:
    (tmp_path / DATABASE).touch()  # as a copy that was cut off leaves it
    with (
        closing(Store(tmp_path, write=False)) as store,
        pytest.raises(StoreError, match=r"is damaged: .*Start the run"),
    ):
        list(store.rounds())
