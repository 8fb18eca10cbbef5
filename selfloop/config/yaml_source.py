"""YAML with the line of every key, so that a mistake can be pointed at.

A recipe may come from a stranger: how large it is, how deep, and how much its aliases make of it
are bounded.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from shlex import quote
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq, TaggedScalar
from ruamel.yaml.constructor import RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    NodeEvent,
    ScalarEvent,
)
from ruamel.yaml.representer import RoundTripRepresenter

from selfloop.errors import RecipeError

Loc = Sequence[str | int]

LARGEST = 1 << 19  # bytes of a recipe; ruamel takes seconds for so many
DEEPEST = 60  # levels of keys and lists
MOST = 4 * LARGEST  # values and characters, once every alias stands for its value
TAGS = "tag:yaml.org,2002:"  # what every tag of YAML's own begins with
PLAIN_TAGS = {f"{TAGS}{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")}
FOLLOWS = "something follows after it"


class _Constructor(RoundTripConstructor):
    """Leaves dates as they are written: JSON has none, and no option takes one."""


class _Representer(RoundTripRepresenter):
    """Writes text in quotes where a reader of YAML could take a character for the end of a line."""


def _text_node(representer: _Representer, text: str) -> Any:
    return representer.represent_scalar(
        f"{TAGS}str", text, style=None if text.isprintable() else '"'
    )


def _exact_float(constructor: _Constructor, node: Any) -> float:
    """Return the nearest number, which ruamel's own reader of `1e-3` misses by a bit."""
    if "e" in node.value.lower():
        return float(node.value.replace("_", ""))
    value: float = constructor.construct_yaml_float(node)
    return value


_Constructor.add_constructor(f"{TAGS}float", _exact_float)
_Constructor.add_constructor(f"{TAGS}timestamp", lambda _, node: node.value)
_Representer.add_representer(str, _text_node)


def key_of(override: str) -> str:
    """Return the dotted key that an override (`dotted.key=value`) sets."""
    return override.partition("=")[0].strip()


def override(key: str, value: Any) -> str:
    """Return the override that sets `key` to a value; what neither JSON nor YAML has becomes text.

    JSON is YAML but for one character, DEL, that only JSON has as it is.
    """
    return f"{key}={json.dumps(value, default=str)}".replace("\x7f", "\\u007f")


def refuse_overrides(
    overrides: Sequence[str], keys: Sequence[str], *, only: bool, because: str
) -> None:
    """Raise RecipeError for an override of one of `keys` (with `only`, of any other): it would not
    be applied.

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
        """Read `path` and lay `overrides` (`dotted.key=value`) over it; raise RecipeError if it
        cannot be read.

        With `text` there is no file: that is what would be in it, and `path` is what it is called.
        """
        self.path = path
        self._tree, has_aliases = _parse(_read(path) if text is None else text, path)
        self._lines = self._tree
        self._set: dict[tuple[str, ...], str] = {}
        self.overrides = tuple(overrides)
        if overrides and has_aliases:  # a change of one place must not change another
            self._tree = _tree(_Plain(self).mapping(self._tree))
        for override in overrides:
            self._override(override)
        self.data: dict[str, Any] = _Plain(self).mapping(self._tree)
        self.written = frozenset(self.data)  # the keys that the user wrote

    def _override(self, override: str) -> None:
        key, equals, text = override.partition("=")
        names = tuple(name.strip() for name in key.split("."))
        if not equals or not all(names):
            raise RecipeError(
                f"--set {override}: write it as --set key=value, for example --set "
                "backend.n_ctx=4096."
            )
        value = _tree(_value(override, key.strip(), text.strip()))
        here: Any = self._tree
        *way, last = names
        for name in way:
            here = self._step(here, name, key)
        if isinstance(here, CommentedSeq):
            here[self._number(last, here, key)] = value
        else:
            here[last] = value
        self._set[names] = override

    def _step(self, here: Any, name: str, key: str) -> Any:
        """Return the part `name` of `here`, made if need be."""
        at: Any = self._number(name, here, key) if isinstance(here, CommentedSeq) else name
        below = here[at] if isinstance(here, CommentedSeq) else here.get(at)
        if below is None:
            below = CommentedMap()
        elif isinstance(below, str):  # `kind: x` written short as `x`
            below = CommentedMap({"kind": str(below)})
        elif not isinstance(below, CommentedMap | CommentedSeq):
            raise RecipeError(
                f"--set {key}: {name} is {below!r}, which has no parts. Set it whole."
            )
        here[at] = below
        return below

    @staticmethod
    def _number(name: str, here: CommentedSeq, key: str) -> int:
        if not name.isdecimal() or int(name) >= len(here):
            raise RecipeError(
                f"--set {key}: {name} is no position in a list of {len(here)} (the first is 0)."
            )
        return int(name)

    def where(self, loc: Loc) -> str:
        """Return `line N` of the deepest part of `loc` that is there, or the override that put it there."""
        if override := self._override_of(loc):
            return f"--set {override}"
        here, line = self._lines, 0
        for part in loc:
            try:
                line = (
                    here.lc.item(part)[0]
                    if isinstance(here, CommentedSeq)
                    else here.lc.key(part)[0]
                )
                here = here[part]
            except (KeyError, IndexError, TypeError, AttributeError):
                break
        return f"line {line + 1}"

    def in_quotes(self, loc: Loc) -> str:
        """Return how the value at `loc` is written as text: as YAML has it, or as the override that a shell takes."""
        override = self._override_of(loc)
        if override:
            key, _, text = override.partition("=")
            return f"--set {quote(f'{key.strip()}={json.dumps(text.strip(), ensure_ascii=False)}')}"
        here: Any = self.data
        for part in loc:
            here = here[part]
        return json.dumps(json.dumps(here), ensure_ascii=False)

    def _override_of(self, loc: Loc) -> str:
        names = tuple(map(str, loc))
        for key, override in self._set.items():
            if names[: len(key)] == key:
                return override
        return ""

    def text(self) -> str:
        """Return the recipe as run: the user's text with its comments, overrides included."""
        out = StringIO()
        _yaml().dump(self._tree, out)
        return out.getvalue()


def edited_text(path: Path, change: Callable[[CommentedMap], None]) -> str:
    """Return the text of the recipe in `path` after `change` to its tree; comments stay.

    Raises RecipeError if it cannot be read.
    """
    tree, _ = _parse(_read(path), path)
    change(tree)
    out = StringIO()
    _yaml().dump(tree, out)
    return out.getvalue()


def _yaml() -> YAML:
    yaml = YAML(typ="rt")
    yaml.Constructor, yaml.Representer = _Constructor, _Representer
    yaml.width = LARGEST  # long texts stay on their line
    return yaml


def _read(path: Path) -> str:
    """Return the text of a recipe, which may come through a pipe. Raises RecipeError."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        text = content[:LARGEST].decode("utf-8-sig")
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RecipeError(
            f"cannot read the recipe {path}: {reason}. Give the path of a YAML file."
        ) from error
    if len(content) > LARGEST:
        raise RecipeError(
            f"cannot read the recipe {path}: it has more than {LARGEST:,} bytes. Give the path of "
            "a YAML file."
        )
    return text


def _parse(text: str, path: Path) -> tuple[CommentedMap, bool]:
    """Return a recipe as ruamel holds it, and whether it has aliases. Raises RecipeError."""
    try:
        has_aliases = _check(_yaml().parse(text), path)
        tree = _yaml().load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise RecipeError(
            f"{path}: {line}this is not YAML: {_one_line(error.problem or error.context)}. Mend it."
        ) from error
    except (YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise RecipeError(
            f"{path}: this is not YAML: {_one_line(error)}. Give another file."
        ) from error
    except (AttributeError, TypeError, LookupError, AssertionError, NotImplementedError) as error:
        # ruamel has faults of its own in odd corners of YAML
        reason = f"ruamel.yaml cannot read it ({type(error).__name__}: {_one_line(error)})"
        raise RecipeError(f"{path}: this is not YAML: {reason}. Give another file.") from error
    if not isinstance(tree, CommentedMap):
        raise RecipeError(f"{path}: a recipe is a mapping of keys to values, as in `rounds: 2`.")
    return tree, has_aliases


def _one_line(reason: object) -> str:
    return " ".join(str(reason).split())[:200].rstrip(".")


def _check(events: Iterator[Event], path: Path) -> bool:
    """Return whether there are aliases.

    Raises RecipeError for YAML that a recipe cannot be, before it is loaded.
    """
    documents, has_aliases = 0, False
    open_anchors: list[str | None] = []
    for event in events:
        line = f"{path}: line {event.start_mark.line + 1}"
        if isinstance(event, DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise RecipeError(
                    f"{line}: a second document begins here. Give each recipe a file of its own."
                )
        elif isinstance(event, AliasEvent):
            has_aliases = True
            if event.anchor in open_anchors:
                raise RecipeError(
                    f"{line}: *{event.anchor} stands in the value that it names. Write the value "
                    "out."
                )
        elif isinstance(event, CollectionStartEvent):
            open_anchors.append(event.anchor)
            if len(open_anchors) > DEEPEST:
                raise RecipeError(
                    f"{line}: this is nested more than {DEEPEST} levels deep. Write it flatter."
                )
        elif isinstance(event, CollectionEndEvent):
            open_anchors.pop()
        if isinstance(event, NodeEvent):
            _check_tag(event, line)
    return has_aliases


def _check_tag(event: NodeEvent, line: str) -> None:
    tag = getattr(event, "tag", None)
    if tag is None or str(tag) in (*PLAIN_TAGS, "!"):
        return
    raise RecipeError(
        f"{line}: a recipe has no tags such as {_one_line(tag)}. Leave it out, or quote the text."
    )


def _value(override: str, key: str, text: str) -> Any:
    """Return what stands behind `key=`: a number, true, false, null, what is in quotes or brackets,
    or text as it is.

    Raises RecipeError for quotes and brackets that are not whole, and for no value at all.
    """
    if not text:
        raise RecipeError(
            f"--set {override}: there is no value. For none: {key}=null. For an empty text: "
            f"{key}='\"\"'."
        )
    if not _is_unicode(text):
        raise RecipeError(f"--set {key}: the value is not UTF-8 text. Write it in UTF-8.")
    if text[0] in "\"'[{":
        return _whole(override, key, text)
    try:
        events = [event for event in _yaml().parse(text) if isinstance(event, NodeEvent)]
    except (YAMLError, ValueError):
        return text
    match events:
        case [ScalarEvent(anchor=None, tag=None, value=value)] if value == text:
            return _scalar(text)
        case _:
            return text


def _scalar(text: str) -> Any:
    """Return a number, true, false or null where YAML reads one, and otherwise the text."""
    try:
        value = _yaml().load(text)
    except (YAMLError, ValueError):  # an integer of thousands of digits, say
        return text
    # YAML has ~ for it, too, which is a home folder here
    is_none = value is None and text.lower() == "null"
    return value if is_none or isinstance(value, bool | int | float) else text


def _whole(override: str, key: str, text: str) -> Any:
    """Return what the quotes or brackets hold, by JSON or by YAML.

    Raises RecipeError unless they end with the text.
    """
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_refused)
    except (ValueError, RecursionError):
        pass  # YAML needs fewer quotes
    name = Path(f"--set {override}")
    try:
        events = list(_yaml().parse(text))
        _check(iter(events), name)
        ends = [
            event.end_mark.index
            for event in events
            if isinstance(event, NodeEvent | CollectionEndEvent)
        ]
        if ends and ends[-1] == len(text):
            return _yaml().load(text)
        reason = FOLLOWS
    except (YAMLError, ValueError, RecursionError) as error:
        reason = _one_line(getattr(error, "problem", None) or error)
        if reason.startswith("expected '<document start>'"):
            reason = FOLLOWS
    as_text = quote(f"{key}={json.dumps(text, ensure_ascii=False)}")
    raise RecipeError(
        f"--set {override}: this is not YAML: a value that begins with {text[0]} is read up to "
        f"its end, and {reason}. "
        f"To give it as text: --set {as_text}"
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object. Raises ValueError for a key that stands in it twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands in it twice")
    return found


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _tree(value: Any) -> Any:
    """Return JSON data as ruamel holds YAML, so that a later override can go on from it."""
    if isinstance(value, dict) and not isinstance(value, CommentedMap):
        return CommentedMap({key: _tree(below) for key, below in value.items()})
    if isinstance(value, list) and not isinstance(value, CommentedSeq):
        return CommentedSeq([_tree(below) for below in value])
    return value


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


class _Plain:
    """Turns YAML into plain JSON data, with every alias replaced by its value."""

    def __init__(self, source: Source) -> None:
        self._source, self._weight = source, 0

    def mapping(self, tree: CommentedMap) -> dict[str, Any]:
        """Return the data. Raises RecipeError for what JSON has not, or for too much of it."""
        data: dict[str, Any] = self._value(tree, (), 0)
        return data

    def _value(self, value: Any, loc: Loc, depth: int) -> Any:
        self._count(1)
        if depth > DEEPEST:
            raise self._mistake(
                loc, f"this is nested more than {DEEPEST} levels deep. Write it flatter."
            )
        if isinstance(value, Mapping):
            return {
                self._key(key, loc): self._value(below, (*loc, key), depth + 1)
                for key, below in value.items()
            }
        if isinstance(value, CommentedSeq):
            return [
                self._value(below, (*loc, number), depth + 1) for number, below in enumerate(value)
            ]
        if isinstance(value, TaggedScalar):
            value = value.value
        if isinstance(value, str):
            return self._text(value, loc)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return self._int(value, loc)
        if isinstance(value, float):
            return float(value)
        raise self._mistake(
            loc, f"a recipe has no values of type {type(value).__name__}. Write text."
        )

    def _key(self, key: Any, loc: Loc) -> str:
        if isinstance(key, int | float) and not isinstance(key, bool):
            return json.dumps(key)  # as JSON does
        if not isinstance(key, str):
            raise RecipeError(
                f"{self._source.path}: every key of a recipe must be plain text, not "
                f"{_one_line(key)}. Quote it."
            )
        return self._text(key, loc)

    def _text(self, text: str, loc: Loc) -> str:
        self._count(len(text))
        if _is_unicode(text):
            return str(text)
        try:  # JSON writes one character as two halves
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise self._mistake(
                loc, "this is not Unicode text: it has half a character. Write it anew."
            ) from None

    def _int(self, value: int, loc: Loc) -> int:
        if value.bit_length() > 64:
            raise self._mistake(loc, "this number has more than 64 bits. Write a smaller one.")
        return int(value)

    def _count(self, weight: int) -> None:
        self._weight += weight
        if self._weight > MOST:
            raise RecipeError(
                f"{self._source.path}: its aliases make more than {MOST:,} characters of it. "
                "Write values out."
            )

    def _mistake(self, loc: Loc, reason: str) -> RecipeError:
        key = ".".join(map(str, loc))[:100]
        return RecipeError(f"{self._source.path}: {self._source.where(loc)}: {key}: {reason}")
