"""A model's name in a recipe -> its file.

A name is one of three things: a known model, which is fetched once and kept (`known.py`); a name of
another program behind a prefix, such as `hf:` or `ollama:` (`stores.py`); or a path.
"""

from pathlib import Path

from . import known, stores
from .fetching import check_accepted, fetched
from .gguf_checks import check_model_file


def locate(model: str) -> Path:
    """Return the file of a model, fetching it if need be.

    Raises ModelError for a name that is neither a GGUF file nor known, for terms that were not
    accepted, and for a fetch that failed.
    """
    if model in known.KNOWN_MODELS:
        return fetched(model)
    path = _path_of(model, fetch=True)
    assert path, "a locator that may fetch returns a path or raises"
    check_model_file(path)
    return path


def check(model: str) -> None:
    """Raise ModelError for a mistake that shows before anything is fetched."""
    if model in known.KNOWN_MODELS:
        check_accepted(model)
        return
    path = _path_of(model, fetch=False)
    if path:
        check_model_file(path)


def _path_of(model: str, *, fetch: bool) -> Path | None:
    """Return the file behind a prefix, or the path that `model` is; None for one to be fetched."""
    prefix, colon, name = model.partition(":")
    # A path may hold a colon too (C:\...): only the prefixes of a store count.
    if colon and prefix in stores.LOCATORS:
        return stores.LOCATORS[prefix](name, fetch=fetch)
    return Path(model).expanduser()
