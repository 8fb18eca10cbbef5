"""Runs a recipe in a folder, and goes on with one: what `selfloop run` and `selfloop resume` do."""

import logging
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from shlex import quote
from types import MappingProxyType
from typing import Any

from selfloop.config.assembly import Parts, assemble, check
from selfloop.config.inputs import inputs, refuse_changed
from selfloop.config.recipe import Loaded, read
from selfloop.errors import DiskFullError, ModelError, NothingAsked, Stopped, StoreError
from selfloop.events import RoundEnded, RunEnded, RunStarted
from selfloop.failed_steps import failed_steps, refuse_failed
from selfloop.loop import play
from selfloop.records import Round
from selfloop.storage.run_names import ALLOWED
from selfloop.storage.store import RECIPE, Store, opened
from selfloop.text.answers import also_declining

NOT_BEGUN = (
    "stopped before the first question was asked: nothing was begun, and nothing is left behind."
)

_log = logging.getLogger("selfloop.runner")


def _resume(folder: Path) -> str:
    return f"stopped; what is finished is stored. Go on: selfloop resume {quote(str(folder))}"


def run(
    path: Path,
    overrides: tuple[str, ...] = (),
    runs: Path = Path("runs"),
    *,
    quiet: bool = False,
    base: Path | None = None,
    pinned: Mapping[str, Any] = MappingProxyType({}),
    text: str | None = None,
) -> Path:
    """Run the recipe at `path` in a new folder of `runs`; return the folder. Raises SelfloopError.

    `quiet` leaves the observer `console` out, for callers that own the standard output. `base` is
    the folder that the recipe's paths are relative to, in place of its own. `pinned` is what must
    hold of the run from its beginning: the `model`, and the `adapter` that is in effect until a
    round makes another. With `text` there is no file at `path`: that is what would be in it.
    """
    try:
        loaded = _quieted(read(path, overrides, base, text=text), quiet)
        check(loaded)
        read_from = inputs(loaded)
        if loaded.file_name:
            _log.info("the run is called %s, for a run's name has %s", loaded.recipe.name, ALLOWED)
        folder = new_folder(runs, loaded.recipe.name)
    except KeyboardInterrupt:
        raise Stopped(NOT_BEGUN) from None
    with _advising(folder):
        try:
            store = Store(folder, write=True)
            store.pin(
                base=str(loaded.base.resolve()), name=loaded.recipe.name, inputs=read_from, **pinned
            )
            store.save_file(RECIPE, loaded.source.text())  # last: what has a recipe can be resumed
        except KeyboardInterrupt:
            shutil.rmtree(folder, ignore_errors=True)
            raise Stopped(NOT_BEGUN) from None
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # nothing was asked yet
            raise
        try:
            _go_on(loaded, folder, store)
        except (KeyboardInterrupt, Stopped):
            raise (Stopped(_resume(folder)) if store.sessions() else Stopped(NOT_BEGUN)) from None
        finally:
            begun = bool(store.sessions())
            store.close()
            if not begun:
                shutil.rmtree(folder, ignore_errors=True)
    return folder


def resume(folder: Path, *, quiet: bool = False) -> Path:
    """Go on with the run in `folder` where it was stopped; do nothing if it is done.

    Raises SelfloopError.
    """
    with _advising(folder):
        store = opened(folder, write=True)
        try:
            refuse_changed(store.meta().get("inputs", {}))  # before its plugins are imported
            loaded = _quieted(stored_recipe(store), quiet)
            check(loaded)
            _go_on(loaded, folder, store)
        except KeyboardInterrupt:
            raise Stopped(_resume(folder)) from None
        finally:
            store.close()
    return folder


@contextmanager
def _advising(folder: Path) -> Iterator[None]:
    """Say of a full disk how the run in `folder` goes on after it."""
    try:
        yield
    except DiskFullError as error:
        advice = f"Free some space, then `selfloop resume {quote(str(folder))}`; nothing is lost."
        if not (folder / RECIPE).is_file():
            advice = "Free some space, and run it again; nothing was asked yet."
        raise DiskFullError(error.fact, error.path, advice) from error


def stored_recipe(store: Store, overrides: tuple[str, ...] = ()) -> Loaded:
    """Return the recipe of a run as it was run, under the name and from the folder it then had, with `overrides`."""
    pinned = store.meta()
    base, name = Path(pinned.get("base", ".")), pinned.get("name")
    return read(store.folder / RECIPE, overrides, base=base, name=name)


def _quieted(loaded: Loaded, quiet: bool) -> Loaded:
    if not quiet:
        return loaded
    find = loaded.catalog.find
    observers = [
        spec for spec in loaded.recipe.observers if not find("observer", spec.kind).interactive
    ]
    return replace(loaded, recipe=loaded.recipe.model_copy(update={"observers": observers}))


def new_folder(runs: Path, name: str) -> Path:
    """Make and return `runs/name`, or `runs/name-2` and so on if that is taken."""
    folder, number = runs / name, 1
    try:
        runs.mkdir(parents=True, exist_ok=True)
        while True:
            with suppress(FileExistsError):
                folder.mkdir()
                return folder
            number += 1
            folder = runs / f"{name}-{number}"
    except OSError as error:
        raise StoreError(
            f"cannot make the run's folder {folder}: {error.strerror}. Choose another with --runs."
        ) from error


def _go_on(loaded: Loaded, folder: Path, store: Store) -> None:
    """Play the rounds that are missing, each stored as it ends."""
    parts = assemble(loaded, folder, store)
    with also_declining(loaded.recipe.answer.declines), _told(parts, folder, store):
        pin_model(parts, store)
        past = store.past()
        if past.adapter:
            parts.load_adapter(past.adapter)
        info = parts.backend.describe()
        parts.notice(
            RunStarted(loaded.recipe.name, str(folder), loaded.recipe.rounds, past.rounds, info)
        )
        for ended in play(loaded.recipe, parts, past):
            store.save_round(ended)
            parts.notice(RoundEnded(ended))
        rounds = list(store.rounds())
        _refuse_empty(rounds, folder)
        refuse_failed(folder, rounds, failed_steps(rounds))


@contextmanager
def _told(parts: Parts, folder: Path, store: Store) -> Iterator[None]:
    """Tell the observers how the run ended, whatever happens, and close everything."""
    try:
        yield
        parts.notice(RunEnded(str(folder), "done"))
    except KeyboardInterrupt:
        parts.notice(RunEnded(str(folder), "stopped"))
        raise Stopped(_resume(folder)) from None
    except DiskFullError as error:
        with suppress(DiskFullError):  # there may be no room for this either
            parts.notice(RunEnded(str(folder), "failed", str(error)))
        raise
    except BaseException as error:
        parts.notice(RunEnded(str(folder), "failed", str(error)))
        raise
    finally:
        parts.close()
        store.save_failures(parts.notice.failures)


def pin_model(parts: Parts, store: Store) -> None:
    """Note what runs; refuse to mix two models in one run."""
    info = parts.backend.describe()
    pinned = store.meta().get("model")
    if pinned is None:
        store.pin(model=asdict(info) | {"capabilities": sorted(info.capabilities)})
    elif pinned.get("sha256") != info.sha256:
        digest = str(pinned.get("sha256"))[:12]
        raise ModelError(
            f"this run was made with {pinned.get('file')} (sha256 {digest}), but the file is now "
            "another "
            f"(sha256 {info.sha256[:12]}). Put the old file back, or start a new run."
        )
    versions = {
        "python": platform.python_version(),
        "selfloop": version("selfloop"),
        **dict(info.versions),
    }
    store.begin_session(versions | {f"plugin {name}": v for name, v in parts.plugins.items()})


def _refuse_empty(rounds: list[Round], folder: Path) -> None:
    if any(a.decision != "dropped" for ended in rounds for a in ended.attempts):
        return
    raise NothingAsked(
        f"not one question could be asked. {_why(rounds)} Change ask.sources or ask.scorers. The "
        f"run: {folder}"
    )


def _why(rounds: list[Round]) -> str:
    failures = {f"{f.component}: {f.type}: {f.message}" for ended in rounds for f in ended.failures}
    reasons = {a.reason for ended in rounds for a in ended.attempts}
    return " ".join(
        [*sorted(failures), f"Dropped for: {'; '.join(sorted(reasons)[:5])}." if reasons else ""]
    ).strip()
