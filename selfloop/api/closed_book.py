"""One round over given questions: the part that `ask`, `score` and `evaluate` share."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from selfloop.api.answerer import Answerer, ModelLike, answerer
from selfloop.config.yaml_source import override, refuse_overrides
from selfloop.errors import StoreError
from selfloop.runner import run
from selfloop.storage import atomic

# Keys of a recipe that one round over given questions does not apply.
NOT_APPLIED = ("rounds", "ask", "tuner")
DIGEST = 12  # characters of a hash in the name of a file of rows


def closed_book(
    model: ModelLike | Answerer,
    source: Mapping[str, Any],
    count: int,
    overrides: tuple[str, ...],
    runs: Path,
    *,
    name: str,
    quiet: bool,
    pinned: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """Let a model answer `count` questions of a source in a new run; return the run's folder.

    `source` is an entry of the recipe's `ask.sources`. `pinned` is stored in the run's `meta`,
    beside the model.

    Raises RecipeError for overrides that one round over given questions does not apply.
    """
    who = model if isinstance(model, Answerer) else answerer(model)
    refuse_not_applied(overrides)
    # The source hands out every question once, and nothing filters or repeats them.
    forced = {
        "rounds": 1,
        "tuner": None,
        "ask.sources": [source],
        "ask.scorers": [],
        "ask.max_turns": 1,
        "ask.questions": count,
    }
    settings = [override(key, value) for key, value in forced.items()]
    return run(
        who.recipe,
        # The last override of a key counts: users may set the name, but not the settings.
        (f"name={name}", *who.overrides, *overrides, *settings),
        runs,
        quiet=quiet,
        base=who.base,
        pinned={**who.pinned, **pinned},
        text=who.text,
    )


def refuse_not_applied(overrides: Sequence[str], *keys: str) -> None:
    """Raise RecipeError for overrides that are not applied, among them those of `keys`."""
    refused = (*NOT_APPLIED, *keys)
    because = (
        "this command asks its questions in one round and does not tune, so it cannot apply "
        f"{', '.join(refused)}. Leave it out."
    )
    refuse_overrides(overrides, refused, only=False, because=because)


def kept_input(file: Path, runs: Path) -> Path:
    """Return a file of questions that can be read more than once.

    Standard input and pipes are copied into `runs`: a run reads its questions again when it is
    resumed. Raises RecipeError for a file that cannot be read, StoreError for the disk.
    """
    from selfloop.data import files

    return _kept(files.content(file), "stdin", "", runs) if files.is_stream(file) else file


def kept_rows(rows: Iterable[Mapping[str, Any]], runs: Path) -> Path:
    """Return a JSON Lines file in `runs` that holds the rows, named by their hash."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    return _kept("".join(lines).encode("utf-8", "replace"), "rows", ".jsonl", runs)


def _kept(content: bytes, name: str, suffix: str, runs: Path) -> Path:
    # Named by its content: the same rows are kept once, and others never overwrite them.
    digest = hashlib.sha256(content).hexdigest()[:DIGEST]
    path = runs / f"{name}-{digest}{suffix}"
    try:
        atomic.write_bytes(path, content, parents=True)
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror}. Choose another place with --runs."
        ) from error
    return path
