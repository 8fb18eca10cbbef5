"""Runs a recipe in a new folder, and resumes a run: `selfloop run` and `selfloop resume`."""

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

from selfloop.config.assembly import Pipeline, assemble, check
from selfloop.config.inputs import inputs, refuse_changed
from selfloop.config.recipe import LoadedRecipe, read
from selfloop.errors import DiskFullError, NothingAskedError, StoppedError, StoreError
from selfloop.events import RoundEnded, RunEnded, RunStarted
from selfloop.failed_steps import failed_steps, refuse_failed
from selfloop.loop import run_rounds
from selfloop.records import Round
from selfloop.storage.pinned import verify_model
from selfloop.storage.run_folder import RunFolder
from selfloop.storage.run_names import ALLOWED
from selfloop.storage.store import Store, open_store
from selfloop.text.answers import also_declining

NOT_BEGUN = (
    "stopped before the first question was asked: nothing was begun, and nothing is left behind."
)

MAX_REASONS = 5  # why questions were dropped, in one message

_log = logging.getLogger("selfloop.runner")


def _stopped(folder: Path) -> StoppedError:
    """Return the exception of a run that was stopped and can be resumed."""
    run = quote(str(folder))
    return StoppedError(f"stopped; the finished work is stored. Go on: selfloop resume {run}")


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
    the folder that the recipe's paths are relative to, in place of its own. `pinned` fixes
    properties of the run from its beginning: the `model`, and the `adapter` that is in effect until
    a round makes another. `text` is the recipe itself, for which there is no file at `path`.
    """
    # Everything that can be wrong with the recipe is found before there is a folder.
    try:
        loaded = _without_console(read(path, overrides, base, text=text), quiet)
        check(loaded)
        input_hashes = inputs(loaded)
        if loaded.file_name:
            _log.info("the run is called %s, for a run's name has %s", loaded.recipe.name, ALLOWED)
        folder = new_folder(runs, loaded.recipe.name)
    except KeyboardInterrupt:
        raise StoppedError(NOT_BEGUN) from None
    with _advising(folder):
        try:
            store = Store(folder, write=True)
            store.set_meta(
                base=str(loaded.base.resolve()),
                name=loaded.recipe.name,
                inputs=input_hashes,
                **pinned,
            )
            # last: a folder with a recipe can be resumed
            store.save_file(store.files.recipe, loaded.source.text())
        except KeyboardInterrupt:
            shutil.rmtree(folder, ignore_errors=True)
            raise StoppedError(NOT_BEGUN) from None
        except BaseException:
            # no question was asked yet, so nothing is lost
            shutil.rmtree(folder, ignore_errors=True)
            raise
        # From here on a run that stops can be resumed, unless it had not loaded its model yet.
        try:
            _go_on(loaded, folder, store)
        except (KeyboardInterrupt, StoppedError):
            # a session begins when the model is loaded; without one there is nothing to resume
            raise (_stopped(folder) if store.sessions() else StoppedError(NOT_BEGUN)) from None
        finally:
            begun = bool(store.sessions())
            store.close()
            if not begun:
                shutil.rmtree(folder, ignore_errors=True)
    return folder


def resume(folder: Path, *, quiet: bool = False) -> Path:
    """Continue the run in `folder` where it was stopped; do nothing if it is done.

    Raises SelfloopError.
    """
    with _advising(folder):
        store = open_store(folder, write=True)
        try:
            refuse_changed(store.meta().get("inputs", {}))  # before its plugins are imported
            loaded = _without_console(stored_recipe(store), quiet)
            check(loaded)
            _go_on(loaded, folder, store)
        except KeyboardInterrupt:
            raise _stopped(folder) from None
        finally:
            store.close()
    return folder


@contextmanager
def _advising(folder: Path) -> Iterator[None]:
    """Add to the error of a full disk how to continue the run in `folder`."""
    try:
        yield
    except DiskFullError as error:
        advice = f"Free some space, then `selfloop resume {quote(str(folder))}`; nothing is lost."
        if not RunFolder(folder).recipe.is_file():
            advice = "Free some space, and run it again; nothing was asked yet."
        raise DiskFullError(error.fact, error.path, advice) from error


def stored_recipe(store: Store, overrides: tuple[str, ...] = ()) -> LoadedRecipe:
    """Return the recipe of a run, with `overrides`, under the name and the base folder it had."""
    pinned = store.meta()
    base, name = Path(pinned.get("base", ".")), pinned.get("name")
    return read(store.files.recipe, overrides, base=base, name=name)


def _without_console(loaded: LoadedRecipe, quiet: bool) -> LoadedRecipe:
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
        # Making the folder is the test: another process may take the name between test and use.
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


def _go_on(loaded: LoadedRecipe, folder: Path, store: Store) -> None:
    """Run the rounds that are missing, and store each as it ends."""
    parts = assemble(loaded, folder, store)
    with also_declining(loaded.recipe.answer.declines), _ending(parts, folder, store):
        pin_model(parts, store)
        history = store.history()
        # The backend starts with the bare model.
        if history.adapter:
            parts.load_adapter(history.adapter)
        info = parts.backend.describe()
        parts.observers.emit(
            RunStarted(loaded.recipe.name, str(folder), loaded.recipe.rounds, history.rounds, info)
        )
        for ended in run_rounds(loaded.recipe, parts, history):
            store.save_round(ended)
            parts.observers.emit(RoundEnded(ended))
        # All rounds are read back, those of earlier sessions too, so that a resumed run ends with
        # the same exit code.
        rounds = list(store.rounds())
        _refuse_empty(rounds, folder)
        refuse_failed(folder, rounds, failed_steps(rounds))


@contextmanager
def _ending(parts: Pipeline, folder: Path, store: Store) -> Iterator[None]:
    """Tell the observers how the run ended, in every case, and close all components."""
    try:
        yield
        parts.observers.emit(RunEnded(str(folder), "done"))
    except KeyboardInterrupt:
        parts.observers.emit(RunEnded(str(folder), "stopped"))
        raise _stopped(folder) from None
    except DiskFullError as error:
        with suppress(DiskFullError):  # an observer may have no space for this event either
            parts.observers.emit(RunEnded(str(folder), "failed", str(error)))
        raise
    except BaseException as error:
        parts.observers.emit(RunEnded(str(folder), "failed", str(error)))
        raise
    finally:
        # failures of observers after the last round, those at closing included, are in no round
        parts.close()
        store.save_failures(parts.observers.failures)


def pin_model(parts: Pipeline, store: Store) -> None:
    """Store which model the run uses, and begin a session with all versions.

    Raises ModelError if an earlier session used another model file.
    """
    info = parts.backend.describe()
    pinned = store.meta().get("model")
    if pinned is None:
        store.set_meta(model=asdict(info) | {"capabilities": sorted(info.capabilities)})
    else:
        verify_model(pinned, info.sha256)
    versions = {
        "python": platform.python_version(),
        "selfloop": version("selfloop"),
        **dict(info.versions),
    }
    plugins = {f"plugin {name}": number for name, number in parts.plugins.items()}
    store.begin_session(versions | plugins)


def _refuse_empty(rounds: list[Round], folder: Path) -> None:
    """Raise NothingAskedError if every question was dropped, or there was none."""
    failures: set[str] = set()
    reasons: set[str] = set()
    for ended in rounds:
        if any(attempt.decision != "dropped" for attempt in ended.attempts):
            return
        reasons |= {attempt.reason for attempt in ended.attempts}
        failures |= {f"{f.component}: {f.type}: {f.message}" for f in ended.failures}
    why = sorted(failures)
    if reasons:
        why.append(f"Dropped for: {'; '.join(sorted(reasons)[:MAX_REASONS])}.")
    raise NothingAskedError(
        f"not one question could be asked. {' '.join(why)} Change ask.sources or ask.scorers. The "
        f"run: {folder}"
    )
