"""YAML with the line of every key, so that a mistake can be pointed at."""

import json
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarfloat import ScalarFloat

from selfloop.errors import RecipeError

Loc = Sequence[str | int]


def key_of(override: str) -> str:
    """Return the dotted key that an override (`dotted.key=value`) sets."""
    return override.partition("=")[0].strip()


def override(key: str, value: Any) -> str:
    """Return the override that sets `key` to a value; what neither JSON nor YAML has becomes text.

    JSON is YAML but for one character, DEL, that only JSON has as it is.
    """
    return f"{key}={json.dumps(value, default=str)}".replace("\x7f", "\\u007f")


def refuse_overrides(overrides: Sequence[str], keys: Sequence[str], *, only: bool, because: str) -> None:
    """Raise RecipeError for an override of one of `keys` (with `only`, of any other): it would not be applied.

    A key stands for all below it: `ask` for `ask.sources.0.path` too.
    """
    for override in overrides:
        key = key_of(override)
        listed = any(key == name or key.startswith(f"{name}.") for name in keys)
        if listed != only:
            raise RecipeError(f"--set {override}: {because}")


class Source:
    """A recipe's text as read: plain `data`, and the line on which any part of it stands."""

    def __init__(self, path: Path, overrides: Sequence[str] = (), text: str | None = None) -> None:
        """Read `path` and lay `overrides` (`dotted.key=value`) over it; raise RecipeError if it cannot be read.

        With `text` there is no file: that is what would be in it, and `path` is what it is called.
        """
        self.path = path
        self._tree = _parse(_read(path) if text is None else text, path)
        self._set: dict[str, str] = {}
        self.overrides = tuple(overrides)
        for override in overrides:
            self._override(override)
        self.data: dict[str, Any] = _plain(self._tree, path)

    def _override(self, override: str) -> None:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise RecipeError(f"--set {override}: write it as --set key=value, for example --set backend.n_ctx=4096.")
        here: Any = self._tree
        *way, last = key.split(".")
        for name in way:
            here = self._step(here, name, key)
        parsed = _parse(f"value: {value}", Path(f"--set {override}"))["value"]
        if isinstance(here, CommentedSeq):
            here[self._number(last, here, key)] = parsed
        else:
            here[last] = parsed
        self._set[key] = override

    def _step(self, here: Any, name: str, key: str) -> Any:
        place: Any = name
        if isinstance(here, CommentedSeq):
            place = self._number(name, here, key)
            below = here[place]
        else:
            below = here.setdefault(name, CommentedMap())
        if isinstance(below, str):  # `kind: x` written short as `x`
            below = here[place] = CommentedMap({"kind": below})
        if not isinstance(below, CommentedMap | CommentedSeq):
            raise RecipeError(f"--set {key}: {name} is {below!r}, which has no parts. Set it whole.")
        return below

    @staticmethod
    def _number(name: str, here: CommentedSeq, key: str) -> int:
        if not name.isdecimal() or int(name) >= len(here):
            raise RecipeError(f"--set {key}: {name} is no position in a list of {len(here)} (the first is 0).")
        return int(name)

    def where(self, loc: Loc) -> str:
        """Return `line N` of the deepest part of `loc` that is there, or the override that put it there."""
        for key, override in self._set.items():
            if ".".join(map(str, loc)).startswith(key):
                return f"--set {override}"
        here, line = self._tree, 0
        for part in loc:
            try:
                line = here.lc.item(part)[0] if isinstance(here, CommentedSeq) else here.lc.key(part)[0]
                here = here[part]
            except (KeyError, IndexError, TypeError, AttributeError):
                break
        return f"line {line + 1}"

    def text(self) -> str:
        """Return the recipe as run: the user's text with its comments, overrides included."""
        out = StringIO()
        YAML(typ="rt").dump(self._tree, out)
        return out.getvalue()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RecipeError(f"cannot read the recipe {path}: {reason}. Give the path of a YAML file.") from error


def _parse(text: str, path: Path) -> CommentedMap:
    try:
        tree = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise RecipeError(f"{path}: {line}this is not YAML: {error.problem or error.context}. Mend it.") from error
    except (YAMLError, ValueError) as error:
        raise RecipeError(f"{path}: this is not YAML: {error}. Give another file.") from error
    if not isinstance(tree, CommentedMap):
        raise RecipeError(f"{path}: a recipe is a mapping of keys to values, as in `rounds: 2`.")
    _write_exactly(tree)
    return tree


def _write_exactly(tree: CommentedMap | CommentedSeq) -> None:
    """Make plain floats of numbers with an exponent: ruamel writes its own with the last digit wrong."""
    todo: list[CommentedMap | CommentedSeq] = [tree]
    seen: set[int] = set()  # an alias may lead back to what it is part of
    while todo:
        here = todo.pop()
        if id(here) in seen:
            continue
        seen.add(id(here))
        places = list(here) if isinstance(here, CommentedMap) else range(len(here))
        for place in places:
            below = here[place]
            if isinstance(below, ScalarFloat) and getattr(below, "_exp", None):
                here[place] = float(below)
            elif isinstance(below, CommentedMap | CommentedSeq):
                todo.append(below)


def _plain(tree: Any, path: Path) -> Any:
    """Return plain Python data; what YAML has and JSON lacks (dates, tags) becomes text."""
    try:
        return json.loads(json.dumps(tree, default=str))
    except TypeError as error:  # only a key can do that: a list or a date, say
        raise RecipeError(f"{path}: every key of a recipe must be plain text: {error}.") from error
