"""The folder of files that selfloop fetched or made, and one process at a time that makes them.

    <cache>/models/       models that were fetched
    <cache>/working/      models in another format (`llama_cpp`, option `weights`)
    <cache>/converted/    models converted for transformers
    <cache>/stamps/       hashes of files, by their paths
    <cache>/accepted/     the terms that the user accepted

The cache is the user's, or the folder that `SELFLOOP_CACHE` names. Files and folders appear there
whole (`selfloop.storage.atomic`).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selfloop.errors import DiskFullError, ModelError

CACHE_VARIABLE = "SELFLOOP_CACHE"
LOCK_TIMEOUT_S = 3600.0  # of waiting for another process that is making the same file


def cache_folder() -> Path:
    """Return the cache, which may not be there yet."""
    if folder := os.environ.get(CACHE_VARIABLE):
        return Path(folder).expanduser()
    # imported here: listing the plugins would pay for it
    import platformdirs

    return platformdirs.user_cache_path("selfloop")


@contextmanager
def exclusive(product: str, lock: Path, advice: str = "") -> Iterator[None]:
    """Let one process at a time make `product` in the folder of the file `lock`, which is made too.

    `advice` ends the advice of an error. Raises ModelError if another process holds the lock for an
    hour, and for any OSError in the block: a full disk, say.
    """
    import filelock

    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(lock, timeout=LOCK_TIMEOUT_S):
            yield
    except filelock.Timeout as error:
        raise ModelError(
            f"another process has been making {product} in {lock.parent} for an hour; end it"
        ) from error
    except (OSError, DiskFullError) as error:
        fact = error.fact if isinstance(error, DiskFullError) else error.strerror or error
        raise ModelError(
            f"cannot keep {product} in {lock.parent}: {fact}. Free some space, or set "
            f"{CACHE_VARIABLE} to another folder{advice}"
        ) from error
