"""One run on disk: a folder with the recipe as run and one SQLite file (WAL), which anybody may
query.

Completions are written as they arrive, a round in one transaction as it ends; so a killed run has
lost nothing that was finished, and has no half round. Records are stored as JSON: whatever a model
or a plugin wrote, NULs included, comes back as it was (but for lone surrogates, which no UTF-8
holds). The tables: schema.py. Records of earlier versions: upgrades.py.
"""

import json
import os
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from selfloop.config.yaml_source import Source
from selfloop.errors import DISK_FULL, DiskFullError, RunLockedError, StoreError, disk_full
from selfloop.history import History
from selfloop.records import Adapter, Attempt, Completion, Failure, Round
from selfloop.storage import atomic, upgrades
from selfloop.storage.plain_json import parsed
from selfloop.storage.run_folder import RunFolder
from selfloop.storage.schema import MIGRATIONS
from selfloop.text.answers import also_declining
from selfloop.text.display import encodable

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_FREE_BYTES = 1 << 16  # with less on the disk SQLite cannot work
MAX_VERSION_DIGITS = 9  # a stranger may have written more, which Python refuses to read
MAX_REASON = 200  # characters of the reason why a record is damaged

# keys of `meta` that belong to the store itself; all others are pinned by whoever runs
_VERSION = "records_version"
_DIGEST = "digest_before_upgrade"

T = TypeVar("T")
_ATTEMPT = TypeAdapter(Attempt)
_COMPLETION = TypeAdapter(Completion)
_ADAPTER = TypeAdapter(Adapter)


def _dump(record: Any) -> str:
    return encodable(json.dumps(asdict(record), separators=(",", ":"), ensure_ascii=False))


def _row(*values: Any) -> tuple[Any, ...]:
    """Return values as SQLite can hold them, whatever a plugin called itself or its errors."""
    return tuple(encodable(value) if isinstance(value, str) else value for value in values)


def _packed(array: "NDArray[Any]") -> bytes:
    """Return an array in numpy's own format, which keeps its type and every bit."""
    import numpy as np

    file = BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _unpacked(data: bytes) -> "NDArray[Any]":
    import numpy as np

    array: NDArray[Any] = np.load(BytesIO(data), allow_pickle=False)
    return array


# the key in `meta` of each round's agreement of base and tuned model, by the round's number
AGREEMENTS = "agreements"
# the type of each pinned value
META: Mapping[str, type] = {
    "model": dict,
    "adapter": dict,
    "base": str,
    "name": str,
    AGREEMENTS: dict,
}


@dataclass(frozen=True, slots=True)
class Summary:
    """A run in a list of runs: its model's name, the rounds that ended, and its questions by their
    last decision, without those dropped or failed."""

    model: str
    rounds: int
    decisions: Counter[str]


@dataclass(frozen=True, slots=True)
class Match:
    """An attempt that a search found."""

    round: int
    question: str
    answer: str
    decision: str
    confidence: float | None


class Store:
    """The run in `folder`.

    Raises StoreError for errors of the disk and for a run of a newer selfloop, RunLockedError if
    another process has it.
    """

    def __init__(self, folder: Path, *, write: bool) -> None:
        self.folder = folder
        self.files = RunFolder(folder)
        self._lock = FileLock(self.files.lock) if write else None
        self._session = 0
        try:
            if self._lock:
                folder.mkdir(parents=True, exist_ok=True)
                self._lock.acquire(timeout=0)
                atomic.remove_leftovers(folder)
        except Timeout:
            raise RunLockedError(
                f"another process is working on {folder}. Wait for it, or stop it first."
            ) from None
        except OSError as error:
            raise _disk_error(folder, error) from error
        try:
            self._db = self._connect(write)
            self._check_versions()
            if write:
                self._migrate()
        except BaseException as error:
            # whoever catches this may open the run again in this process
            if self._lock:
                self._lock.release()
            if isinstance(error, OSError | sqlite3.Error):
                raise _disk_error(folder, error) from error
            raise

    def _connect(self, write: bool) -> sqlite3.Connection:
        path = self.files.database
        if write:
            return sqlite3.connect(path, isolation_level=None)
        if not path.is_file():
            raise StoreError(
                f"no run in {self.folder}. Give the folder of a run, as `selfloop run` printed it."
            )
        return sqlite3.connect(_read_only_uri(path), uri=True, isolation_level=None)

    def _check_versions(self) -> None:
        """Read the versions of the tables and of the records. Raises StoreError for newer ones."""
        self._schema: int = self._db.execute("PRAGMA user_version").fetchone()[0]
        if self._schema > len(MIGRATIONS):
            raise self._newer(f"schema {self._schema}")
        # a database without tables is a new one
        self._records = self._stored_version() if self._schema else upgrades.RECORDS_VERSION
        if self._records > upgrades.RECORDS_VERSION:
            raise self._newer(f"records {self._records}")

    def _stored_version(self) -> int:
        sql = "SELECT value FROM meta WHERE key = ?"
        row = self._db.execute(sql, (_VERSION,)).fetchone()
        if row is None:
            return upgrades.FIRST_VERSION
        text = str(row[0])[:MAX_VERSION_DIGITS]
        if not text.isdecimal():
            raise _damaged(self.folder, f"the version of its records is {text}")
        return max(int(text), upgrades.FIRST_VERSION)

    def _newer(self, version: str) -> StoreError:
        return StoreError(
            f"{self.files.database} was written by a newer selfloop ({version}). Update selfloop "
            "to read it."
        )

    def _migrate(self) -> None:
        """Bring tables, records and recipe to the present versions."""
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA foreign_keys = ON")
        for number, script in enumerate(MIGRATIONS[self._schema :], start=self._schema + 1):
            self._db.executescript(f"BEGIN; {script} PRAGMA user_version = {number}; COMMIT;")
        if self._records < upgrades.RECORDS_VERSION:
            self._upgrade()
        elif not self._schema:
            self.set_meta(**{_VERSION: self._records})

    def _upgrade(self) -> None:
        """Rewrite recipe and records in their present form.

        The recipe comes first: if the process is killed before the records are committed, the next
        one upgrades both, and an upgrade leaves the new form as it is.
        """
        text = self.recipe_text()
        if text is not None:
            atomic.write_text(self.files.recipe, text)
        # who pinned this run as an input still finds the same digest
        digest = {"rounds": self.count("rounds"), "sha256": self.digest()}
        with self._decoding_errors(), self._transaction() as db:
            self._upgrade_column(db, "attempts", "data", "attempt")
            self._upgrade_column(db, "completions", "data", "completion")
            self._upgrade_column(db, "rounds", "adapter", "adapter")
            self._upgrade_column(db, "meta", "value", "model", "key = 'model'")
            self._upgrade_column(db, "meta", "value", "adapter", "key = 'adapter'")
            rows = [(_VERSION, upgrades.RECORDS_VERSION), (_DIGEST, digest)]
            _replace_meta(db, rows)
        self._records = upgrades.RECORDS_VERSION

    def _upgrade_column(
        self, db: sqlite3.Connection, table: str, column: str, kind: upgrades.Kind, where: str = "1"
    ) -> None:
        # the ids are read first: a table must not change below a cursor that reads it
        condition = f"{column} IS NOT NULL AND {where}"
        ids = db.execute(f"SELECT rowid FROM {table} WHERE {condition}").fetchall()
        for (row_id,) in ids:
            sql = f"SELECT {column} FROM {table} WHERE rowid = ?"
            data = db.execute(sql, (row_id,)).fetchone()[0]
            data = encodable(upgrades.upgraded(kind, data, self._records))
            db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (data, row_id))

    def _json(self, kind: upgrades.Kind, data: str) -> str:
        """Return a stored record as JSON in its present form."""
        if self._records == upgrades.RECORDS_VERSION:
            return data
        return upgrades.upgraded(kind, data, self._records)

    def close(self) -> None:
        """Close the database and let go of the run."""
        self._db.close()
        if self._lock:
            self._lock.release()

    @contextmanager
    def _disk_errors(self) -> Iterator[sqlite3.Connection]:
        """Give the database; turn errors of the disk into a StoreError."""
        try:
            yield self._db
        except sqlite3.IntegrityError:
            raise  # ours: a completion made twice is a bug
        except (OSError, sqlite3.Error) as error:
            raise _disk_error(self.folder, error) from error

    @contextmanager
    def _decoding_errors(self) -> Iterator[None]:
        """Turn a record that cannot be read into a StoreError; a stranger may have written it."""
        try:
            yield
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)[:MAX_REASON]
            raise _damaged(self.folder, reason.rstrip(".")) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._disk_errors() as db:
            db.execute("BEGIN")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def save_file(self, path: str | Path, text: str) -> None:
        """Write a small file of the run, whole or not at all.

        `path` is one of `files`, or a name in the run's folder.
        """
        target = path if isinstance(path, Path) else self.folder / path
        try:
            atomic.write_text(target, text)
        except OSError as error:
            raise _disk_error(self.folder, error) from error

    def recipe_text(self) -> str | None:
        """Return the recipe with its present keys, where its file has those of an earlier version.

        None: the file itself can be read.
        """
        if self._records == upgrades.RECORDS_VERSION or not self.files.recipe.is_file():
            return None
        return upgrades.upgraded_recipe(self.files.recipe, self._records)

    def meta(self) -> dict[str, Any]:
        """Return the values that were pinned when the run began."""
        with self._disk_errors() as db, self._decoding_errors():
            meta = dict[str, Any]()
            for key, value in db.execute("SELECT key, value FROM meta"):
                if key in (_VERSION, _DIGEST):
                    continue
                meta[key] = parsed(self._json(key, value) if key in ("model", "adapter") else value)
            for key, kind in META.items():
                if key in meta and not isinstance(meta[key], kind):
                    raise ValueError(f"its {key} is of another form")
            return meta

    def model(self) -> dict[str, Any]:
        """Return the model as it was pinned: name, file, sha256 and so on.

        Raises StoreError where the run has not begun.
        """
        model: dict[str, Any] | None = self.meta().get("model")
        if model is None:
            raise StoreError(
                f"the run in {self.folder} has not begun yet. Finish it first: selfloop resume "
                f"{self.folder}"
            )
        return model

    def set_meta(self, **values: Any) -> None:
        """Pin values that apply to the whole run."""
        with self._transaction() as db:
            _replace_meta(db, values.items())

    def begin_session(self, versions: dict[str, str]) -> None:
        """Note that this process works on the run, and the versions of its packages."""
        with self._disk_errors() as db:
            row = (time.time(), json.dumps(versions))
            cursor = db.execute("INSERT INTO sessions (started, versions) VALUES (?, ?)", row)
            self._session = cursor.lastrowid or 0

    def sessions(self) -> list[dict[str, str]]:
        """Return the versions of each process that worked on the run."""
        with self._disk_errors() as db, self._decoding_errors():
            rows = db.execute("SELECT versions FROM sessions ORDER BY id")
            return [parsed(versions) for (versions,) in rows]

    def save_completion(self, key: str, step: str, completion: Completion) -> None:
        """Store one completion; storing it twice raises sqlite3.IntegrityError."""
        row = _row(key, completion.sample, self._session, step, completion.text, _dump(completion))
        with self._disk_errors() as db:
            db.execute("INSERT INTO completions VALUES (?, ?, ?, ?, ?, ?)", row)

    def completions(self, key: str) -> dict[int, Completion]:
        """Return the stored completions of one request by sample."""
        sql = "SELECT sample, data FROM completions WHERE key = ?"
        with self._disk_errors() as db:
            rows = db.execute(sql, (key,)).fetchall()
        with self._decoding_errors():
            return {
                sample: _COMPLETION.validate_json(self._json("completion", data))
                for sample, data in rows
            }

    def save_readings(self, step: str, readings: "dict[str, NDArray[Any]]") -> None:
        """Store arrays of numbers that the model gave for texts it read: all of them, or none."""
        rows = [(key, self._session, step, _packed(array)) for key, array in readings.items()]
        with self._transaction() as db:
            db.executemany("INSERT INTO readings VALUES (?, ?, ?, ?)", rows)

    def readings(self, keys: Sequence[str]) -> "dict[str, NDArray[Any]]":
        """Return those of the arrays that are stored, by key."""
        # one parameter, for SQLite allows only so many
        sql = "SELECT key, data FROM readings WHERE key IN (SELECT value FROM json_each(?))"
        with self._disk_errors() as db, self._decoding_errors():
            rows = db.execute(sql, (json.dumps(keys),))
            return {key: _unpacked(data) for key, data in rows}

    def copy(self, folder: Path) -> None:
        """Copy the run's database into another folder, which must exist."""
        target = RunFolder(folder).database
        with self._disk_errors() as db, closing(sqlite3.connect(target)) as other:
            db.backup(other)

    def forget_rounds(self) -> None:
        """Remove all rounds; completions and readings stay."""
        with self._transaction() as db:
            # children first: foreign keys are checked
            for table in ("failures", "verdicts", "attempts", "rounds"):
                db.execute(f"DELETE FROM {table}")
            db.execute("DELETE FROM meta WHERE key IN (?, ?)", (_DIGEST, AGREEMENTS))

    def count(self, table: str) -> int:
        """Return the number of rows of a table."""
        with self._disk_errors() as db:
            return int(db.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0])

    def digest(self) -> str:
        """Return a sha256 of the records of the rounds that have ended, and of no other file.

        It is the same after an upgrade as before, until another round ends.
        """
        with self._disk_errors() as db:
            row = db.execute("SELECT value FROM meta WHERE key = ?", (_DIGEST,)).fetchone()
            if row is not None:
                with self._decoding_errors():
                    before = parsed(row[0])
                    if before["rounds"] == self.count("rounds"):
                        return str(before["sha256"])
            digest = sha256()
            attempts = "SELECT round, position, data FROM attempts ORDER BY round, position"
            rounds = "SELECT number, adapter FROM rounds ORDER BY number"
            for sql in (attempts, rounds):
                for values in db.execute(sql):
                    digest.update(json.dumps(values).encode())
        return digest.hexdigest()

    def usage_by_step(self) -> dict[str, tuple[int, int]]:
        """Return how many completions and tokens the model wrote for each step."""
        tokens = "sum(coalesce(json_array_length(data, '$.tokens'), 0))"
        sql = f"SELECT step, count(*), {tokens} FROM completions GROUP BY step"
        with self._disk_errors() as db:
            return {step: (completions, tokens) for step, completions, tokens in db.execute(sql)}

    def summary(self) -> Summary:
        """Return the run as a list of runs shows it; no record of an attempt is read."""
        model = self.meta().get("model", {})
        # SQLite takes the other columns from the row that has the greatest id
        sql = """
            SELECT decision, max(id) FROM attempts
            WHERE decision NOT IN ('dropped', 'failed') GROUP BY question
            """
        with self._disk_errors() as db:
            decisions = Counter(str(decision) for decision, _ in db.execute(sql))
        return Summary(str(model.get("name", "")), self.count("rounds"), decisions)

    def search(self, text: str, decision: str, limit: int) -> list[Match]:
        """Return attempts that have `text` in question or answer, whatever its case, in order.

        With an empty `decision` all but dropped questions are searched.
        """
        sql = """
            SELECT round, question, answer, decision, confidence FROM attempts
            WHERE (instr(lower_unicode(question), ?) OR instr(lower_unicode(answer), ?))
              AND (decision = ? OR (? = '' AND decision != 'dropped'))
            ORDER BY id LIMIT ?
            """
        lower = text.lower()
        with self._disk_errors() as db:
            # SQLite's own lower() changes ASCII alone
            db.create_function("lower_unicode", 1, str.lower, deterministic=True)
            rows = db.execute(sql, (lower, lower, decision, decision, max(0, limit)))
            return [Match(*row) for row in rows]

    def save_round(self, ended: Round) -> None:
        """Store a round and all in it, or nothing of it."""
        adapter = _dump(ended.adapter) if ended.adapter else None
        with self._transaction() as db:
            db.execute("INSERT INTO rounds VALUES (?, ?, ?)", (ended.number, time.time(), adapter))
            for position, attempt in enumerate(ended.attempts):
                self._save_attempt(db, ended.number, position, attempt)
            self._save_failures(db, ended.number, None, ended.failures)
            if ended.agreement is not None:
                agreements = self.meta().get(AGREEMENTS, {}) | {str(ended.number): ended.agreement}
                _replace_meta(db, [(AGREEMENTS, agreements)])

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
            _row(row_id, v.detector, v.candidate, v.confidence, v.reason) for v in attempt.verdicts
        ]
        db.executemany("INSERT INTO verdicts VALUES (?, ?, ?, ?, ?)", verdicts)
        self._save_failures(db, number, row_id, attempt.failures)

    def _save_failures(
        self, db: sqlite3.Connection, number: int, attempt: int | None, failures: Sequence[Failure]
    ) -> None:
        rows = [_row(number, attempt, f.step, f.component, f.type, f.message) for f in failures]
        db.executemany("INSERT INTO failures VALUES (?, ?, ?, ?, ?, ?)", rows)

    def save_failures(self, failures: Sequence[Failure]) -> None:
        """Add failures after the last round that is stored (number 0: before any)."""
        if failures:
            with self._transaction() as db:
                last = db.execute("SELECT coalesce(max(number), 0) FROM rounds").fetchone()[0]
                self._save_failures(db, last, None, failures)

    def rounds(self) -> Iterator[Round]:
        """Yield the rounds that have ended, in order."""
        sql = "SELECT data FROM attempts WHERE round = ? ORDER BY position"
        agreements = self.meta().get(AGREEMENTS, {})
        with self._disk_errors() as db:
            rounds = db.execute("SELECT number, adapter FROM rounds ORDER BY number").fetchall()
            for number, adapter in rounds:
                rows = db.execute(sql, (number,)).fetchall()
                with self._decoding_errors():
                    attempts = tuple(self._attempt(data) for (data,) in rows)
                    trained = self._adapter(adapter) if adapter else None
                    agreement = agreements.get(str(number))
                    share = None if agreement is None else float(agreement)
                yield Round(number, attempts, trained, self.round_failures(number), share)

    def _attempt(self, data: str) -> Attempt:
        return _ATTEMPT.validate_json(self._json("attempt", data))

    def _adapter(self, data: str) -> Adapter:
        return _ADAPTER.validate_json(self._json("adapter", data))

    def round_failures(self, number: int) -> tuple[Failure, ...]:
        """Return the failures of a round that belong to none of its attempts.

        Round 0 stands for the time before any round had ended.
        """
        sql = """
            SELECT step, component, type, message FROM failures
            WHERE round = ? AND attempt IS NULL
            """
        with self._disk_errors() as db:
            return tuple(Failure(*row) for row in db.execute(sql, (number,)))

    def history(self) -> History:
        """Return the history of the run, for the next round."""
        rounds = list(self.rounds())
        return replace(History.from_rounds(rounds), adapter=self.active_adapter(rounds))

    def active_adapter(self, rounds: Sequence[Round]) -> Adapter | None:
        """Return the adapter after these first rounds: the last that was trained, or the one of a
        later rollback.

        `rollbacks` in meta are pairs: after so many rounds, back to the adapter of that round (0:
        the base, or the `adapter` in meta that the run began with).
        """
        meta = self.meta()
        with self._decoding_errors():
            first = _ADAPTER.validate_python(meta["adapter"]) if "adapter" in meta else None
            adapters = {0: first}
            adapters |= {ended.number: ended.adapter for ended in rounds if ended.adapter}
            rollbacks: dict[int, int] = dict(meta.get("rollbacks", ()))
            # a round counts either for its own adapter or for a rollback after it, which is later
            changed = [number for number in (*adapters, *rollbacks) if number <= len(rounds)]
            last = max(changed)
            return adapters[rollbacks.get(last, last)]


def _replace_meta(db: sqlite3.Connection, values: Iterable[tuple[str, Any]]) -> None:
    rows = [(key, json.dumps(value)) for key, value in values]
    db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)


def _read_only_uri(database: Path) -> str:
    """Return the URI that opens a database to read it.

    SQLite makes files beside a database in WAL mode, also to read it. Where it cannot, and there is
    no log with newer content, the database is opened as one that nobody changes.
    """
    log = RunFolder(database.parent).write_ahead_log
    is_immutable = not os.access(database.parent, os.W_OK) and not log.exists()
    return f"{database.resolve().as_uri()}?mode=ro{'&immutable=1' if is_immutable else ''}"


def open_store(folder: Path, *, write: bool) -> Store:
    """Return the store of a run that exists. Raises StoreError."""
    if not RunFolder(folder).recipe.is_file():
        raise StoreError(
            f"no run in {folder}. Give the folder of a run, as `selfloop run` printed it."
        )
    return Store(folder, write=write)


def parsed_event(line: str) -> Any:
    """Return an event of a run's log (observer `jsonl`). Raises ValueError if it is not JSON."""
    return upgrades.upgraded_event(parsed(line))


def upgraded_recipe_text(path: Path) -> str | None:
    """Return the recipe at `path` with its present keys, where it is that of an earlier run.

    None: it is not a run's recipe, or has the present keys. Raises RecipeError.
    """
    folder = RunFolder(path.parent)
    if path.name != folder.recipe.name or not folder.is_run:
        return None
    try:
        store = Store(folder.path, write=False)
    except StoreError:
        return None  # a recipe can be run again even if its run is damaged
    with closing(store):
        return store.recipe_text()


def recipe_of(folder: Path) -> dict[str, Any]:
    """Return the recipe of the run in `folder` as data. Raises RecipeError and StoreError."""
    path = RunFolder(folder).recipe
    return Source(path, text=upgraded_recipe_text(path)).data


def declining_as_in(folder: Path) -> AbstractContextManager[None]:
    """Return a context in which answers decline by the run's own patterns too: `answer.declines`
    of its recipe."""
    recipe = recipe_of(folder) if RunFolder(folder).recipe.is_file() else {}
    answering = recipe.get("answer")
    patterns = answering.get("declines") if isinstance(answering, dict) else None
    return also_declining(patterns or [])


def rounds_of(folder: Path) -> list[Round]:
    """Return the rounds that have ended of the run in `folder`, in order. Raises StoreError."""
    with closing(Store(folder, write=False)) as store:
        return list(store.rounds())


def attempts_of(folder: Path) -> list[Attempt]:
    """Return the attempts of all rounds of the run in `folder`, in order. Raises StoreError."""
    attempts = list[Attempt]()
    for ended in rounds_of(folder):
        attempts += ended.attempts
    return attempts


def _damaged(folder: Path, text: str) -> StoreError:
    database = RunFolder(folder).database
    return StoreError(f"{database} is damaged: {text}. Start the run anew, or restore the file.")


def _free_bytes(folder: Path) -> int:
    """Return the bytes that there is room for, or plenty where the system does not tell."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return MIN_FREE_BYTES


def _disk_error(folder: Path, error: Exception) -> StoreError:
    """Return an error of the disk as a person can use it, with one thing to do."""
    text = str(error)
    full = disk_full(error, folder)
    if full:
        return full
    # SQLite had no room for an index of its own
    if text == "disk I/O error" and _free_bytes(folder) < MIN_FREE_BYTES:
        return DiskFullError(DISK_FULL, folder)
    unwritable = ("readonly", "Read-only", "unable to open")
    if isinstance(error, PermissionError) or any(words in text for words in unwritable):
        return StoreError(
            f"cannot write in {folder}: {text}. Give a folder you may write to with --runs DIR."
        )
    if any(words in text for words in ("not a database", "malformed", "no such table")):
        return _damaged(folder, text)
    return StoreError(f"{folder}: {text}.")
