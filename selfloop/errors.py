"""Every mistake a user can meet, as a tree; the exit code of `selfloop` stands on the class.

    SelfloopError            1   something went wrong that no other class names ├── RecipeError
    2   the recipe, or the command line that changes it, is wrong ├── MissingExtra         2   an
    optional package is not installed; carries the pip line ├── ModelError           3   the model
    file cannot be had or used │   └── RequestError     3   the model cannot take this one request
    (too long, say); the others go on ├── PluginError          4   a plugin is broken; names the
    plugin, the hook or component, and the fact ├── StoreError           5   the run's folder cannot
    be read or written (disk full, read-only, newer schema) │   ├── DiskFullError    5   there is no
    room for what is to be written; nothing is lost │   ├── RunLocked        6   another process is
    working on this run │   └── InputChanged    12   a file that the run reads is not what it was
    when the run began ├── NothingAsked         7   the run ended without one question that could be
    asked ├── StepFailed           9   a step failed for every question of a round; the records are
    kept │   ├── NothingAnswered  8   every question of the run failed │   └── TunerFailed     10
    a tuner made no adapter where it was asked for one ├── BelowRequired       11   a figure of
    `eval` does not reach what --fail-under or --fail-over asks for └── Stopped            130
    Ctrl-C; what was finished is stored

A message says what was sought, what there is, and what to do. Tracebacks are for bugs.
"""

import errno
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class SelfloopError(Exception):
    """Something a person can mend; `str()` of it is the whole message."""

    exit_code = 1


class RecipeError(SelfloopError):
    """The recipe cannot be run; the message lists every mistake found, each with its line."""

    exit_code = 2


class MissingExtra(SelfloopError):
    """An optional package is not installed."""

    exit_code = 2

    def __init__(self, package: str, extra: str, wanted_by: str) -> None:
        super().__init__(
            f"{wanted_by} needs the package {package}, which is not installed. Do: pip install "
            f"'selfloop[{extra}]'"
        )


class ModelError(SelfloopError):
    """The model file is missing, is not what it should be, or cannot be loaded."""

    exit_code = 3


class RequestError(ModelError):
    """One request cannot be served; backends yield it in place of a completion."""


class PluginError(SelfloopError):
    """A plugin raised, returned the wrong thing, or is named like another."""

    exit_code = 4


class StoreError(SelfloopError):
    """The run's folder or database cannot be read or written."""

    exit_code = 5


class DiskFullError(StoreError):
    """There is no room on the disk: what was to be written is not there, and all else is as it was."""

    def __init__(
        self, fact: str, path: object, advice: str = "Free some space, and try again."
    ) -> None:
        super().__init__(f"{fact}: {path}. {advice}")
        self.fact, self.path = fact, path


class RunLocked(StoreError):
    """Another process is working on this run."""

    exit_code = 6


class InputChanged(StoreError):
    """A file that the run reads (questions, prompt, plugin, ...) is not what it was when the run began."""

    exit_code = 12


class NothingAsked(SelfloopError):
    """Not one question of the run could be asked."""

    exit_code = 7


class StepFailed(SelfloopError):
    """A step failed for every question of a round.

    The run was played to its end, and its records lie in `folder`.
    """

    exit_code = 9

    def __init__(self, message: str, folder: Path) -> None:
        super().__init__(message)
        self.folder = folder


class NothingAnswered(StepFailed):
    """Every question of the run failed: there is no result."""

    exit_code = 8


class TunerFailed(StepFailed):
    """A tuner raised, or its adapter was refused.

    The rounds are whole, and the last good adapter stays.
    """

    exit_code = 10


class BelowRequired(SelfloopError):
    """A figure of an evaluation does not reach what the user requires of it."""

    exit_code = 11


class Stopped(SelfloopError):
    """A person stopped the run."""

    exit_code = 130


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the known name closest to `name`, or an empty string."""
    close = get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


FULL = "the disk is full"
_NO_ROOM = {  # what the system says -> what a person is told
    errno.ENOSPC: FULL,
    getattr(errno, "EDQUOT", errno.ENOSPC): "the disk quota is used up",
    errno.EFBIG: "the file is larger than the system lets it be",
}
# what libraries written in other languages make of it
_NO_ROOM_WORDS = {
    "no space left on device": FULL,
    "disk is full": FULL,
    "os error 28": FULL,
    "disk quota exceeded": "the disk quota is used up",
    "file too large": "the file is larger than the system lets it be",
}
# libraries whose errors have no number of the system
_FOREIGN = ("safetensors", "safetensors_rust", "sqlite3")
_DEEPEST = 10  # errors that led to one another


def disk_full(error: BaseException, path: object = None) -> DiskFullError | None:
    """Return DiskFullError if `error`, or an error that led to it, means that there was no room;
    else None.

    `path` is where it was to be written, unless the error knows better.
    """
    cause: BaseException | None = error
    for _ in range(_DEEPEST):
        if cause is None:
            return None
        if isinstance(cause, DiskFullError):
            return cause
        if fact := _no_room(cause):
            return DiskFullError(
                fact, getattr(cause, "filename", None) or path or "a file that a component writes"
            )
        cause = cause.__cause__ or cause.__context__
    return None


def _no_room(error: BaseException) -> str | None:
    """Return what a person is told; the words of an error count only where no model's text can stand in them."""
    if isinstance(error, OSError) and error.errno is not None:
        return _NO_ROOM.get(error.errno)
    if not isinstance(error, OSError) and type(error).__module__.split(".")[0] not in _FOREIGN:
        return None
    text = str(error).lower()
    return next((fact for words, fact in _NO_ROOM_WORDS.items() if words in text), None)
