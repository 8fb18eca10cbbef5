"""What `ask`, `score` and `eval` share: one round over given questions, by a recipe, a model alone or a run's model."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from selfloop.cli.bundled import names, recipe_file

DEFAULT = Path(__file__).parent.parent / "recipes" / "default.yaml"


@dataclass(frozen=True)
class Answering:
    """Who answers: a recipe with overrides, what its paths are relative to, and what is pinned of model and adapter."""

    recipe: Path
    overrides: tuple[str, ...] = ()
    base: Path | None = None
    pinned: Mapping[str, Any] = field(default_factory=dict)


def answering(what: str) -> Answering:
    """Return who `what` is: a recipe, a run as it was tuned last, or a model by the recipe that
    comes with selfloop.

    Raises StoreError for a run that has not begun.
    """
    from selfloop.config.yaml_source import override
    from selfloop.storage.run_folder import RunFolder

    if what.lower().endswith((".yaml", ".yml")):
        return Answering(recipe_file(Path(what))[0])
    if RunFolder(Path(what)).is_run:
        return _tuned(Path(what))
    if what in names() and not Path(what).is_file():
        file, base = recipe_file(Path(what))
        return Answering(file, (), base)
    model = str(Path(what).resolve()) if Path(what).is_file() else what
    # of a model alone there is no recipe whose folder could be meant
    return Answering(DEFAULT, (override("backend.model", model),), Path.cwd())


def _tuned(folder: Path) -> Answering:
    from selfloop.storage.store import open_store

    with closing(open_store(folder, write=False)) as store:
        recipe, base, pinned, adapter = (
            store.files.recipe,
            store.meta().get("base", "."),
            {"model": store.model()},
            store.past().adapter,
        )
    if adapter:
        pinned["adapter"] = asdict(replace(adapter, path=str(folder.resolve() / adapter.path)))
    return Answering(recipe, (), Path(base), pinned)


def refuse_ignored(overrides: Sequence[str], *keys: str) -> None:
    """Raise RecipeError for settings that one round over given questions does not apply, and for `keys`."""
    from selfloop.config.yaml_source import refuse_overrides

    names = ("rounds", "ask", "tuner", *keys)
    because = f"this command asks its questions in one round and does not tune, so it cannot apply {', '.join(names)}."
    refuse_overrides(overrides, names, only=False, because=f"{because} Leave it out.")


def kept_input(file: Path, runs: Path) -> Path:
    """Return the file that a command reads; what can be read only once, a pipe say, is kept in
    `runs`.

    A run reads its questions again when it goes on. Raises RecipeError for what cannot be read, and
    StoreError for the disk.
    """
    from selfloop.data import files
    from selfloop.errors import StoreError
    from selfloop.storage import atomic

    if not files.is_stream(file):
        return file
    data = files.content(file)
    kept = runs / f"stdin-{hashlib.sha256(data).hexdigest()[:12]}"
    try:
        atomic.write_bytes(kept, data, parents=True)
    except OSError as error:
        raise StoreError(
            f"cannot write {kept}: {error.strerror}. Choose another place with --runs."
        ) from error
    return kept


def closed_book(
    what: str,
    source: dict[str, Any],
    count: int,
    overrides: tuple[str, ...],
    runs: Path,
    *,
    name: str,
    quiet: bool,
    pinned: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """Let `what` answer the `count` questions of `source` in a new run, and nothing else; return
    the run's folder.

    `pinned` goes into the run's `meta`, beside the model.
    Raises RecipeError for overrides of what is given by the questions.
    """
    from selfloop.config.yaml_source import override
    from selfloop.runner import run

    who = answering(what)
    refuse_ignored(overrides)
    forced = {
        "rounds": 1,
        "tuner": None,
        "ask.sources": [source],
        "ask.scorers": [],
        "ask.turns": 1,
        "ask.questions": count,
    }
    made = [override(key, value) for key, value in forced.items()]
    told = (f"name={name}", *who.overrides, *overrides, *made)
    return run(who.recipe, told, runs, quiet=quiet, base=who.base, pinned={**who.pinned, **pinned})
