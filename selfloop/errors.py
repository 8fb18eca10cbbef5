"""Every error that a user can cause or fix, as a tree. The class has the exit code of `selfloop`.

    SelfloopError                 1   any other error
    ├── RecipeError               2   the recipe is wrong, or the command line that changes it
    ├── MissingExtraError         2   an optional package is not installed; has the line for pip
    ├── ModelError                3   the model file is missing or cannot be used
    │   └── RequestError          3   the model cannot take one request (too long); the others go on
    ├── PluginError               4   a plugin is broken; names the plugin and its hook or component
    ├── StoreError                5   the run's folder cannot be read or written
    │   ├── DiskFullError         5   there is no space left; nothing is lost
    │   ├── RunLockedError        6   another process is working on this run
    │   └── InputChangedError    12   an input file has changed since the run began
    ├── NothingAskedError         7   the run ended without a question that could be asked
    ├── StepFailedError           9   a step failed for every question of a round; records are kept
    │   ├── NothingAnsweredError  8   every question of the run failed
    │   └── TunerFailedError     10   the tuner was called and made no adapter
    ├── BelowRequiredError       11   a figure of `eval` misses --fail-under or --fail-over
    └── StoppedError            130   Ctrl-C; everything finished is stored

A message names the mistake, the fact, and a remedy. A traceback is a bug.
"""

import errno
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class SelfloopError(Exception):
    """An error that the user can fix. `str()` of it is the whole message."""

    exit_code = 1  # of the process, if the error ends a command


class RecipeError(SelfloopError):
    """The recipe cannot be run. The message lists every mistake, each with its line."""

    exit_code = 2


class MissingExtraError(SelfloopError):
    """An optional package is not installed."""

    exit_code = 2

    def __init__(self, package: str, extra: str, wanted_by: str) -> None:
        super().__init__(
            f"{wanted_by} needs the package {package}, which is not installed. Do: pip install "
            f"'selfloop[{extra}]'"
        )


class ModelError(SelfloopError):
    """The model file is missing, is the wrong file, or cannot be loaded."""

    exit_code = 3


class RequestError(ModelError):
    """One request cannot be served. Backends yield the error in place of a completion."""


class PluginError(SelfloopError):
    """A plugin raised, returned the wrong thing, or is named like another."""

    exit_code = 4


class StoreError(SelfloopError):
    """The run's folder or database cannot be read or written."""

    exit_code = 5


class DiskFullError(StoreError):
    """There is no space on the disk. The file was not written; all others are as they were.

    `fact` names the full disk, and `path` the file that could not be written.
    """

    def __init__(
        self, fact: str, path: object, advice: str = "Free some space, and try again."
    ) -> None:
        super().__init__(f"{fact}: {path}. {advice}")
        self.fact, self.path = fact, path


class RunLockedError(StoreError):
    """Another process is working on this run."""

    exit_code = 6


class InputChangedError(StoreError):
    """An input file of the run (questions, prompt, plugin, ...) has changed since it began."""

    exit_code = 12


class NothingAskedError(SelfloopError):
    """No question of the run could be asked."""

    exit_code = 7


class StepFailedError(SelfloopError):
    """A step failed for every question of a round.

    The run went on to its end, and its records are in `folder`.
    """

    exit_code = 9

    def __init__(self, message: str, folder: Path) -> None:
        super().__init__(message)
        self.folder = folder


class NothingAnsweredError(StepFailedError):
    """Every question of the run failed: there is no result."""

    exit_code = 8


class TunerFailedError(StepFailedError):
    """A tuner raised, or its adapter was refused.

    The rounds are complete, and the last good adapter stays.
    """

    exit_code = 10


class BelowRequiredError(SelfloopError):
    """A figure of an evaluation is below the user's requirement."""

    exit_code = 11


class StoppedError(SelfloopError):
    """The user stopped the run."""

    exit_code = 130


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the candidate closest to `name`, or an empty string."""
    close = get_close_matches(name, list(candidates), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


DISK_FULL = "the disk is full"
_QUOTA_USED = "the disk quota is used up"
_FILE_TOO_LARGE = "the file is larger than the system lets it be"
_FACT_BY_ERRNO = {
    errno.ENOSPC: DISK_FULL,
    getattr(errno, "EDQUOT", errno.ENOSPC): _QUOTA_USED,  # Windows has no quota error
    errno.EFBIG: _FILE_TOO_LARGE,
}
# Libraries written in other languages pass on only the words of the system, in lower case here.
_FACT_BY_WORDS = {
    "no space left on device": DISK_FULL,
    "disk is full": DISK_FULL,
    "os error 28": DISK_FULL,
    "disk quota exceeded": _QUOTA_USED,
    "file too large": _FILE_TOO_LARGE,
}
_LIBRARIES_WITHOUT_ERRNO = ("safetensors", "safetensors_rust", "sqlite3")
_MAX_CAUSES = 10  # errors that led to one another; a chain may be a circle


def disk_full(error: BaseException, path: object = None) -> DiskFullError | None:
    """Return DiskFullError if a full disk led to `error`, and else None.

    `path` is the file that was to be written; the error's own file name goes before it.
    """
    cause: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if cause is None:
            return None
        if isinstance(cause, DiskFullError):
            return cause
        if fact := _full_disk_fact(cause):
            file = getattr(cause, "filename", None) or path or "a file that a component writes"
            return DiskFullError(fact, file)
        # `raise ... from`, or an error raised while another was handled
        cause = cause.__cause__ or cause.__context__
    return None


def _full_disk_fact(error: BaseException) -> str | None:
    """Return which limit of the disk an error reports, or None if it reports another fault."""
    if isinstance(error, OSError) and error.errno is not None:
        return _FACT_BY_ERRNO.get(error.errno)
    # The words count only in errors that cannot quote the text of a model.
    library = type(error).__module__.split(".")[0]
    if not isinstance(error, OSError) and library not in _LIBRARIES_WITHOUT_ERRNO:
        return None
    text = str(error).lower()
    return next((fact for words, fact in _FACT_BY_WORDS.items() if words in text), None)
