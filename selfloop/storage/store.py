"""One run on disk: a folder with the recipe as run and one SQLite file (WAL), which anybody may
query.

Completions are written as they arrive, a round in one transaction as it ends; so a killed run has
lost nothing that was finished, and has no half round. Records are stored as JSON: whatever a model
or a plugin wrote, NULs included, comes back as it was (but for lone surrogates, which no UTF-8
holds). Columns beside the JSON are for people who query.
"""

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict, replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from selfloop.config.yaml_source import Source
from selfloop.errors import DISK_FULL, DiskFullError, RunLocked, StoreError, disk_full
from selfloop.history import Past
from selfloop.records import Adapter, Attempt, Completion, Failure, Round
from selfloop.storage import atomic
from selfloop.storage.plain_json import parsed
from selfloop.text.answers import also_declining
from selfloop.text.display import encodable

if TYPE_CHECKING:
    from numpy.typing import NDArray

DATABASE = "run.sqlite"
RECIPE = "recipe.yaml"
SMALLEST_ROOM = 1 << 16  # bytes; with less on the disk SQLite cannot work

# Step N takes a database from schema version N to N + 1; append, never edit.
MIGRATIONS = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    CREATE TABLE sessions (id INTEGER PRIMARY KEY, started REAL NOT NULL, versions TEXT NOT NULL) STRICT;
    CREATE TABLE completions (
        key TEXT NOT NULL, sample INTEGER NOT NULL, session INTEGER NOT NULL REFERENCES sessions (id),
        step TEXT NOT NULL, text TEXT NOT NULL, data TEXT NOT NULL, PRIMARY KEY (key, sample)) STRICT;
    CREATE TABLE rounds (number INTEGER PRIMARY KEY, ended REAL NOT NULL, adapter TEXT) STRICT;
    CREATE TABLE attempts (
        id INTEGER PRIMARY KEY, round INTEGER NOT NULL REFERENCES rounds (number), position INTEGER NOT NULL,
        question TEXT NOT NULL, source TEXT NOT NULL, answer TEXT NOT NULL, decision TEXT NOT NULL,
        confidence REAL, reason TEXT NOT NULL, data TEXT NOT NULL, UNIQUE (round, position)) STRICT;
    CREATE TABLE verdicts (
        attempt INTEGER NOT NULL REFERENCES attempts (id), verifier TEXT NOT NULL, candidate TEXT NOT NULL,
        confidence REAL, reason TEXT NOT NULL) STRICT;
    CREATE TABLE failures (
        round INTEGER NOT NULL, attempt INTEGER REFERENCES attempts (id), step TEXT NOT NULL,
        component TEXT NOT NULL, type TEXT NOT NULL, message TEXT NOT NULL) STRICT;
    CREATE VIEW beliefs AS
        SELECT id AS attempt, round, question, answer, confidence FROM attempts WHERE decision = 'belief';
    """,
    """
    CREATE TABLE readings (
        key TEXT PRIMARY KEY, session INTEGER NOT NULL REFERENCES sessions (id), step TEXT NOT NULL,
        data BLOB NOT NULL) STRICT;
    """,
)

T = TypeVar("T")
_ATTEMPT = TypeAdapter(Attempt)
_COMPLETION = TypeAdapter(Completion)
_ADAPTER = TypeAdapter(Adapter)


def _dump(record: Any) -> str:
    return encodable(json.dumps(asdict(record), separators=(",", ":"), ensure_ascii=False))


def _row(*values: Any) -> tuple[Any, ...]:
    """Return values as SQLite can hold them, whatever a plugin called itself or its errors."""
    return tuple(encodable(value) if isinstance(value, str) else value for value in values)


def _packed(value: "NDArray[Any]") -> bytes:
    import numpy as np

    np.save(file := BytesIO(), value, allow_pickle=False)
    return file.getvalue()


def _unpacked(data: bytes) -> "NDArray[Any]":
    import numpy as np

    found: NDArray[Any] = np.load(BytesIO(data), allow_pickle=False)
    return found


# the form of what is pinned
META: Mapping[str, type] = {"model": dict, "adapter": dict, "base": str, "name": str}


class Store:
    """The run in `folder`.

    Raises StoreError for what a disk can do, RunLocked if another process has it.
    """

    def __init__(self, folder: Path, *, write: bool) -> None:
        self.folder = folder
        self._lock = FileLock(folder / "run.lock") if write else None
        self._session = 0
        try:
            if self._lock:
                folder.mkdir(parents=True, exist_ok=True)
                self._lock.acquire(timeout=0)
                atomic.remove_leftovers(folder)
            self._db = self._open(write)
        except Timeout:
            raise RunLocked(
                f"another process is working on {folder}. Wait for it, or stop it first."
            ) from None
        except (OSError, sqlite3.Error) as error:
            raise _disk(folder, error) from error

    def _open(self, write: bool) -> sqlite3.Connection:
        path = self.folder / DATABASE
        if not write and not path.is_file():
            raise StoreError(
                f"no run in {self.folder}. Give the folder of a run, as `selfloop run` printed it."
            )
        db = sqlite3.connect(path if write else reading(path), uri=not write, isolation_level=None)
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise StoreError(
                f"{path} was written by a newer selfloop (schema {version}). Update selfloop to "
                "read it."
            )
        if write:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA foreign_keys = ON")
            for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
                db.executescript(f"BEGIN; {script} PRAGMA user_version = {number}; COMMIT;")
        return db

    def close(self) -> None:
        """Close the database and let go of the run."""
        self._db.close()
        if self._lock:
            self._lock.release()

    @contextmanager
    def _guarded(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._db
        except sqlite3.IntegrityError:
            raise  # ours: a completion made twice is a bug
        except (OSError, sqlite3.Error) as error:
            raise _disk(self.folder, error) from error

    @contextmanager
    def _decoding(self) -> Iterator[None]:
        """Turn what cannot be read of a record into a StoreError: the file may come from a stranger."""
        try:
            yield
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
            raise _damaged(self.folder, reason.rstrip(".")) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._guarded() as db:
            db.execute("BEGIN")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def save_file(self, name: str, text: str) -> None:
        """Write a small file of the run, whole or not at all."""
        try:
            atomic.write_text(self.folder / name, text)
        except OSError as error:
            raise _disk(self.folder, error) from error

    def meta(self) -> dict[str, Any]:
        """Return what was pinned when the run began."""
        with self._guarded() as db, self._decoding():
            meta = {key: parsed(value) for key, value in db.execute("SELECT key, value FROM meta")}
            for key, kind in META.items():
                if key in meta and not isinstance(meta[key], kind):
                    raise ValueError(f"what it says of {key} is of another form")
            return meta

    def model(self) -> dict[str, Any]:
        """Return what was pinned of the model that runs.

        Raises StoreError where the run has not begun.
        """
        found: dict[str, Any] | None = self.meta().get("model")
        if found is None:
            raise StoreError(
                f"the run in {self.folder} has not begun yet. Finish it first: selfloop resume "
                f"{self.folder}"
            )
        return found

    def pin(self, **values: Any) -> None:
        """Set what holds for the whole run."""
        with self._transaction() as db:
            rows = [(key, json.dumps(value)) for key, value in values.items()]
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)

    def begin_session(self, versions: dict[str, str]) -> None:
        """Note that this process works on the run, and with what."""
        with self._guarded() as db:
            row = (time.time(), json.dumps(versions))
            self._session = (
                db.execute("INSERT INTO sessions (started, versions) VALUES (?, ?)", row).lastrowid
                or 0
            )

    def sessions(self) -> list[dict[str, str]]:
        """Return the versions of each process that worked on the run."""
        with self._guarded() as db, self._decoding():
            return [parsed(v) for (v,) in db.execute("SELECT versions FROM sessions ORDER BY id")]

    def save_completion(self, key: str, step: str, completion: Completion) -> None:
        """Store one completion; storing it twice raises sqlite3.IntegrityError."""
        row = _row(key, completion.sample, self._session, step, completion.text, _dump(completion))
        with self._guarded() as db:
            db.execute("INSERT INTO completions VALUES (?, ?, ?, ?, ?, ?)", row)

    def completions(self, key: str) -> dict[int, Completion]:
        """Return the stored completions of one request by sample."""
        with self._guarded() as db:
            rows = db.execute(
                "SELECT sample, data FROM completions WHERE key = ?", (key,)
            ).fetchall()
        with self._decoding():
            return {sample: _COMPLETION.validate_json(data) for sample, data in rows}

    def save_readings(self, step: str, readings: "dict[str, NDArray[Any]]") -> None:
        """Store arrays of numbers that the model gave for texts it read, in numpy's own format, all or none."""
        rows = [(key, self._session, step, _packed(value)) for key, value in readings.items()]
        with self._transaction() as db:
            db.executemany("INSERT INTO readings VALUES (?, ?, ?, ?)", rows)

    def readings(self, keys: Sequence[str]) -> "dict[str, NDArray[Any]]":
        """Return those of the arrays that are stored, by key."""
        with self._guarded() as db, self._decoding():
            rows = db.execute(
                "SELECT key, data FROM readings WHERE key IN (SELECT value FROM json_each(?))",
                (json.dumps(keys),),
            )
            return {key: _unpacked(data) for key, data in rows}

    def copy(self, folder: Path) -> None:
        """Copy the run's database into another folder, which must exist."""
        with self._guarded() as db, closing(sqlite3.connect(folder / DATABASE)) as other:
            db.backup(other)

    def forget_rounds(self) -> None:
        """Remove all rounds; what the model said and read stays."""
        with self._transaction() as db:
            for table in ("failures", "verdicts", "attempts", "rounds"):
                db.execute(f"DELETE FROM {table}")

    def count(self, table: str) -> int:
        """Return the number of rows of a table."""
        with self._guarded() as db:
            return int(db.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0])

    def digest(self) -> str:
        """Return a sha256 of what the rounds that have ended found out, and of no other file of the folder."""
        found = sha256()
        with self._guarded() as db:
            for row in db.execute(
                "SELECT round, position, data FROM attempts ORDER BY round, position"
            ):
                found.update(json.dumps(row).encode())
            for row in db.execute("SELECT number, adapter FROM rounds ORDER BY number"):
                found.update(json.dumps(row).encode())
        return found.hexdigest()

    def spent(self) -> dict[str, tuple[int, int]]:
        """Return how many completions and tokens the model wrote for each step."""
        tokens = "sum(coalesce(json_array_length(data, '$.tokens'), 0))"
        sql = f"SELECT step, count(*), {tokens} FROM completions GROUP BY step"
        with self._guarded() as db:
            return {step: (completions, tokens) for step, completions, tokens in db.execute(sql)}

    def save_round(self, ended: Round) -> None:
        """Store a round and all in it, or nothing of it."""
        adapter = _dump(ended.adapter) if ended.adapter else None
        with self._transaction() as db:
            db.execute("INSERT INTO rounds VALUES (?, ?, ?)", (ended.number, time.time(), adapter))
            for position, attempt in enumerate(ended.attempts):
                self._save_attempt(db, ended.number, position, attempt)
            self._save_failures(db, ended.number, None, ended.failures)

    def _save_attempt(
        self, db: sqlite3.Connection, number: int, position: int, attempt: Attempt
    ) -> None:
        question = attempt.question
        asked = _row(number, position, question.text, question.source)
        became = _row(
            attempt.answer, attempt.decision, attempt.confidence, attempt.reason, _dump(attempt)
        )
        row_id = db.execute(
            "INSERT INTO attempts VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*asked, *became)
        ).lastrowid
        verdicts = [
            _row(row_id, v.verifier, v.candidate, v.confidence, v.reason) for v in attempt.verdicts
        ]
        db.executemany("INSERT INTO verdicts VALUES (?, ?, ?, ?, ?)", verdicts)
        self._save_failures(db, number, row_id, attempt.failures)

    def _save_failures(
        self, db: sqlite3.Connection, number: int, attempt: int | None, failures: Sequence[Failure]
    ) -> None:
        rows = [_row(number, attempt, f.step, f.component, f.type, f.message) for f in failures]
        db.executemany("INSERT INTO failures VALUES (?, ?, ?, ?, ?, ?)", rows)

    def save_failures(self, failures: Sequence[Failure]) -> None:
        """Add what went wrong after the last round that is stored (number 0: before any)."""
        if failures:
            with self._transaction() as db:
                last = db.execute("SELECT coalesce(max(number), 0) FROM rounds").fetchone()[0]
                self._save_failures(db, last, None, failures)

    def rounds(self) -> Iterator[Round]:
        """Yield the rounds that have ended, in order."""
        with self._guarded() as db:
            for number, adapter in db.execute(
                "SELECT number, adapter FROM rounds ORDER BY number"
            ).fetchall():
                rows = db.execute(
                    "SELECT data FROM attempts WHERE round = ? ORDER BY position", (number,)
                ).fetchall()
                with self._decoding():
                    attempts = tuple(_ATTEMPT.validate_json(data) for (data,) in rows)
                    made = _ADAPTER.validate_json(adapter) if adapter else None
                yield Round(number, attempts, made, self.lost(number))

    def lost(self, number: int) -> tuple[Failure, ...]:
        """Return what went wrong in a round, but in none of its attempts; in round 0, before any round had ended."""
        sql = "SELECT step, component, type, message FROM failures WHERE round = ? AND attempt IS NULL"
        with self._guarded() as db:
            return tuple(Failure(*row) for row in db.execute(sql, (number,)))

    def past(self) -> Past:
        """Return what the next round must know of the stored ones."""
        rounds = list(self.rounds())
        return replace(Past.from_rounds(rounds), adapter=self.in_effect(rounds))

    def in_effect(self, rounds: Sequence[Round]) -> Adapter | None:
        """Return the adapter after these first rounds: the last one made, or what was gone back to
        since.

        `rollbacks` in meta are pairs: after so many rounds, back to the adapter of that round (0:
        the base, or the `adapter` in meta that the run began with).
        """
        meta = self.meta()
        with self._decoding():
            first = _ADAPTER.validate_python(meta["adapter"]) if "adapter" in meta else None
            made = {0: first} | {one.number: one.adapter for one in rounds if one.adapter}
            back = dict(meta.get("rollbacks", ()))
            last = max(number for number in (*made, *back) if number <= len(rounds))
            return made[back.get(last, last)]


def reading(database: Path) -> str:
    """Return the URI that opens a database to read it, also where SQLite can make no files of its own beside it."""
    still = (
        not os.access(database.parent, os.W_OK)
        and not database.with_name(f"{database.name}-wal").exists()
    )
    return f"{database.resolve().as_uri()}?mode=ro{'&immutable=1' if still else ''}"


def opened(folder: Path, *, write: bool) -> Store:
    """Return the store of a run that is there. Raises StoreError."""
    if not (folder / RECIPE).is_file():
        raise StoreError(
            f"no run in {folder}. Give the folder of a run, as `selfloop run` printed it."
        )
    return Store(folder, write=write)


def declining_as_in(folder: Path) -> AbstractContextManager[None]:
    """Return a context in which answers decline by the run's own patterns too: `answer.declines` of its recipe."""
    answering = Source(folder / RECIPE).data.get("answer") if (folder / RECIPE).is_file() else None
    patterns = answering.get("declines") if isinstance(answering, dict) else None
    return also_declining(patterns or [])


def rounds_of(folder: Path) -> list[Round]:
    """Return the rounds that have ended of the run in `folder`, in order. Raises StoreError."""
    with closing(Store(folder, write=False)) as store:
        return list(store.rounds())


def attempts_of(folder: Path) -> list[Attempt]:
    """Return the attempts of all rounds of the run in `folder`, in order. Raises StoreError."""
    return [attempt for ended in rounds_of(folder) for attempt in ended.attempts]


def _damaged(folder: Path, text: str) -> StoreError:
    return StoreError(
        f"{folder / DATABASE} is damaged: {text}. Start the run anew, or restore the file."
    )


def _free(folder: Path) -> int:
    """Return the bytes that there is room for, or plenty where the system does not tell."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return SMALLEST_ROOM


def _disk(folder: Path, error: Exception) -> StoreError:
    """Say what the disk said, and what to do."""
    text = str(error)
    if full := disk_full(error, folder):
        return full
    # SQLite had no room for an index of its own
    if text == "disk I/O error" and _free(folder) < SMALLEST_ROOM:
        return DiskFullError(DISK_FULL, folder)
    if (
        isinstance(error, PermissionError)
        or "readonly" in text
        or "Read-only" in text
        or "unable to open" in text
    ):
        return StoreError(
            f"cannot write in {folder}: {text}. Give a folder you may write to with --runs DIR."
        )
    if any(one in text for one in ("not a database", "malformed", "no such table")):
        return _damaged(folder, text)
    return StoreError(f"{folder}: {text}.")
