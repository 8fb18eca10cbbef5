"""The files that a run reads besides its model. Their hashes are stored, so that a resumed run
reads the same.

Inputs are the plugin files and prompts that the recipe names, and every option of a component that
is a `Path` to a file or folder that exists when the run begins. A path that a component writes to
(`Component.writes`) is not an input.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from selfloop.config.assembly import options_of
from selfloop.config.recipe import LoadedRecipe
from selfloop.errors import InputChangedError, RecipeError
from selfloop.storage.run_folder import RunFolder
from selfloop.storage.store import Store

Pinned = Mapping[str, Mapping[str, str]]  # path and sha256 of each input, by its place
SHORT_HASH = 12  # characters of a sha256 that a message shows


def inputs(loaded: LoadedRecipe) -> dict[str, dict[str, str]]:
    """Return path and sha256 of each input, by its place in the recipe.

    Raises RecipeError if one cannot be read.
    """
    paths = {place: path.resolve() for place, path in _places(loaded) if path.exists()}
    try:
        return {place: {"path": str(path), "sha256": digest(path)} for place, path in paths.items()}
    except OSError as error:
        raise RecipeError(
            f"cannot read {error.filename}: {error.strerror}. See who may read it."
        ) from error


def refuse_changed(pinned: Pinned) -> None:
    """Raise InputChangedError, naming every input that has changed since the run began."""
    changes = [_change(Path(entry["path"]), entry["sha256"]) for entry in pinned.values()]
    # one file may be the input of two components
    changes = list(dict.fromkeys(filter(None, changes)))
    if changes:
        advice = "Put the old file back, or start a new run."
        raise InputChangedError("\n".join([*changes, advice]))


def digest(path: Path) -> str:
    """Return the sha256 of a file, of a folder's files and their names, or of a run's rounds.

    Raises OSError, or StoreError for a run that cannot be read.
    """
    # SQLite changes its files by reading them, and `eval` adds some
    if RunFolder(path).is_run:
        with closing(Store(path, write=False)) as store:
            return store.digest()
    if path.is_dir():
        return _folder_digest(path)
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _folder_digest(folder: Path) -> str:
    """Return the sha256 of the names and hashes of all files below a folder, in path order."""
    files: list[Path] = []
    for parent, _, names in os.walk(folder):
        files += [Path(parent, name) for name in names]
    total = sha256()
    for file in sorted(files):
        # sockets and dangling links have no content
        if file.is_file():
            line = f"{digest(file)} {file.relative_to(folder).as_posix()}\n"
            total.update(line.encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def _change(path: Path, before: str) -> str:
    """Return how an input differs from its hash `before`, or an empty string."""
    old = before[:SHORT_HASH]
    try:
        now = digest(path)
    except OSError as error:
        return (
            f"this run began with {path} (sha256 {old}), which cannot be read now: "
            f"{error.strerror}."
        )
    if now == before:
        return ""
    return (
        f"this run began with {path} (sha256 {old}), but it is now another (sha256 "
        f"{now[:SHORT_HASH]})."
    )


def _places(loaded: LoadedRecipe) -> Iterator[tuple[str, Path]]:
    """Yield each path that the recipe names for reading, and where it stands in the recipe."""
    recipe = loaded.recipe
    for number, file in enumerate(recipe.plugins):
        yield f"plugins.{number}", loaded.base / file
    for name, file in recipe.prompts.items():
        yield f"prompts.{name}", loaded.base / file
    files = {Path(file).name for file in recipe.plugins}
    for use in loaded.uses():
        component, place = use.component, ".".join(map(str, use.loc))
        if component.prompts and loaded.catalog.plugin_of(use.kind, use.spec.kind) in files:
            yield f"{place} (its prompts)", component.prompts
        if use.kind == "observer":
            continue  # it reads events alone: a path of its own is written
        for name, value in options_of(component, use.spec, loaded.base).items():
            if name == "model" and use.kind == "backend":
                continue  # the backend hashes it, and `runner.pin_model` compares
            if name == "model" and (loaded.base / str(value)).is_file():
                value = loaded.base / str(value)
            if name not in component.writes:
                for part, path in _paths(value):
                    yield f"{place}.{name}{part}", path


def _paths(value: Any, part: str = "") -> Iterator[tuple[str, Path]]:
    """Yield the paths in an option's value, and where in it they stand."""
    if isinstance(value, Path):
        yield part, value
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _paths(item, f"{part}.{number}")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _paths(item, f"{part}.{key}")
