"""YAML with the line of every key, so that a message can name the line of a mistake.

A recipe may come from a stranger. So its size, its depth, and its size with all aliases written out
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
from ruamel.yaml.scanner import RoundTripScanner, ScannerError

from selfloop.errors import RecipeError

Loc = Sequence[str | int]  # a place in a recipe: ("ask", "sources", 0, "path")

MAX_BYTES = 1 << 19  # of a recipe; ruamel takes seconds for so many
MAX_DEPTH = 60  # levels of keys and lists
MAX_WEIGHT = 4 * MAX_BYTES  # values and characters, once every alias stands for its value
TAG_PREFIX = "tag:yaml.org,2002:"  # of every tag of YAML's own
PLAIN_TAGS = {
    f"{TAG_PREFIX}{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")
}
TRAILING_TEXT = "something follows after it"
TOO_DEEP = f"this is nested more than {MAX_DEPTH} levels deep"


class _Scanner(RoundTripScanner):
    """Stops at too many open brackets. ruamel looks at each of them again for every token, so that
    a thousand take seconds."""

    def fetch_flow_collection_start(self, TokenClass: Any, to_push: str) -> None:
        super().fetch_flow_collection_start(TokenClass, to_push)
        if self.flow_level > MAX_DEPTH:
            raise _DepthError(None, None, TOO_DEEP, self.reader.get_mark())


class _DepthError(ScannerError):
    pass


class _Constructor(RoundTripConstructor):
    """Leaves dates as they are written, as text: JSON has none, and no option takes one."""


class _Representer(RoundTripRepresenter):
    """Writes text in quotes where a reader of YAML could take a character for the end of a line."""


def _text_node(representer: _Representer, text: str) -> Any:
    return representer.represent_scalar(
        f"{TAG_PREFIX}str", text, style=None if text.isprintable() else '"'
    )


def _exact_float(constructor: _Constructor, node: Any) -> float:
    """Return the float nearest to the text. ruamel's own reader misses `1e-3` by one bit."""
    if "e" in node.value.lower():
        return float(node.value.replace("_", ""))
    value: float = constructor.construct_yaml_float(node)
    return value


_Constructor.add_constructor(f"{TAG_PREFIX}float", _exact_float)
_Constructor.add_constructor(f"{TAG_PREFIX}timestamp", lambda _, node: node.value)
_Representer.add_representer(str, _text_node)


def key_of(override: str) -> str:
    """Return the dotted key that an override (`dotted.key=value`) sets."""
    return override.partition("=")[0].strip()


def override(key: str, value: Any) -> str:
    """Return the override that sets `key` to a value. A type that JSON lacks becomes text.

    JSON is YAML but for one character: only JSON may have DEL as it is.
    """
    return f"{key}={json.dumps(value, default=str)}".replace("\x7f", "\\u007f")


def refuse_overrides(
    overrides: Sequence[str], keys: Sequence[str], *, only: bool, because: str
) -> None:
    """Raise RecipeError for an override of one of `keys` (with `only`, of any other key).

    Such an override would not be applied; `because` is the reason. A key stands for all below it:
    `ask` for `ask.sources.0.path` too.
    """
    for override in overrides:
        key = key_of(override)
        listed = any(key == name or key.startswith(f"{name}.") for name in keys)
        if listed != only:
            raise RecipeError(f"--set {override}: {because}")


class Source:
    """A recipe as read: plain `data`, and the line of every part of it."""

    def __init__(self, path: Path, overrides: Sequence[str] = (), text: str | None = None) -> None:
        """Read `path` and apply `overrides` (`dotted.key=value`).

        With `text` there is no file: `text` is its content, and `path` its name in messages.

        Raises RecipeError for a file that cannot be read and for an override that cannot be
        applied.
        """
        self.path = path
        self._tree, has_aliases = _parse(_read_text(path) if text is None else text, path)
        self._lines = self._tree  # the source of the line numbers
        self._set: dict[tuple[str, ...], str] = {}  # overrides, by the key that they set
        self.overrides = tuple(overrides)
        if overrides and has_aliases:
            # Aliases are written out, or a change of one place would change the others. The copy
            # has no lines.
            self._tree = _as_tree(_Plain(self).mapping(self._tree))
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
        value = _as_tree(_override_value(override, key.strip(), text.strip()))
        node: Any = self._tree
        *parents, last = names
        for name in parents:
            node = self._child(node, name, key)
        if isinstance(node, CommentedSeq):
            node[self._position(last, node, key)] = value
        else:
            node[last] = value
        self._set[names] = override

    def _child(self, node: Any, name: str, key: str) -> Any:
        """Return the part `name` of `node`, which is made if need be."""
        if isinstance(node, CommentedSeq):
            place: Any = self._position(name, node, key)
            child = node[place]
        else:
            place = name
            child = node.get(place)
        if child is None:
            child = CommentedMap()
        elif isinstance(child, str):  # `kind: x` written short as `x`
            child = CommentedMap({"kind": str(child)})
        elif not isinstance(child, CommentedMap | CommentedSeq):
            raise RecipeError(
                f"--set {key}: {name} is {child!r}, which has no parts. Set it whole."
            )
        node[place] = child
        return child

    @staticmethod
    def _position(name: str, items: CommentedSeq, key: str) -> int:
        if not name.isdecimal() or int(name) >= len(items):
            raise RecipeError(
                f"--set {key}: {name} is no position in a list of {len(items)} (the first is 0)."
            )
        return int(name)

    def where(self, loc: Loc) -> str:
        """Return `line N` of the deepest part of `loc` that exists, or the override that set it."""
        override = self._override_of(loc)
        if override:
            return f"--set {override}"
        node, line = self._lines, 0
        for part in loc:
            try:
                # ruamel keeps (line, column) of each item and key, from 0
                is_list = isinstance(node, CommentedSeq)
                line = node.lc.item(part)[0] if is_list else node.lc.key(part)[0]
                node = node[part]
            except (KeyError, IndexError, TypeError, AttributeError):
                break
        return f"line {line + 1}"

    def in_quotes(self, loc: Loc) -> str:
        """Return the value at `loc` in quotes: as YAML has it, or as an override for a shell."""
        override = self._override_of(loc)
        if override:
            key, _, text = override.partition("=")
            return f"--set {quote(f'{key.strip()}={json.dumps(text.strip(), ensure_ascii=False)}')}"
        value: Any = self.data
        for part in loc:
            value = value[part]
        # once for `true` in place of `True`, and once for the quotes
        return json.dumps(json.dumps(value), ensure_ascii=False)

    def _override_of(self, loc: Loc) -> str:
        """Return the override that set `loc` or a part above it, or an empty string."""
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
    tree, _ = _parse(_read_text(path), path)
    change(tree)
    out = StringIO()
    _yaml().dump(tree, out)
    return out.getvalue()


def _yaml() -> YAML:
    yaml = YAML(typ="rt")
    yaml.Scanner, yaml.Constructor, yaml.Representer = _Scanner, _Constructor, _Representer
    yaml.width = MAX_BYTES  # long texts stay on their line
    return yaml


def _read_text(path: Path) -> str:
    """Return the text of a recipe, which may come through a pipe. Raises RecipeError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)  # one more, to see whether there is more
        text = content[:MAX_BYTES].decode("utf-8-sig")
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RecipeError(
            f"cannot read the recipe {path}: {reason}. Give the path of a YAML file."
        ) from error
    if len(content) > MAX_BYTES:
        raise RecipeError(
            f"cannot read the recipe {path}: it has more than {MAX_BYTES:,} bytes. Give the path "
            "of a YAML file."
        )
    return text


def _parse(text: str, path: Path) -> tuple[CommentedMap, bool]:
    """Return a recipe as ruamel holds it, and whether it has aliases. Raises RecipeError."""
    try:
        # The events come first: YAML that a recipe may not have is refused before it is loaded.
        has_aliases = _check_events(_yaml().parse(text), path)
        tree = _yaml().load(text)
    except _DepthError as error:
        raise _too_deep(f"{path}: line {error.problem_mark.line + 1}") from error
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


def _check_events(events: Iterator[Event], path: Path) -> bool:
    """Return whether there are aliases.

    Raises RecipeError, before anything is loaded, for a second document, a value that contains
    itself, too many levels, and tags.
    """
    documents, has_aliases = 0, False
    open_anchors: list[
        str | None
    ] = []  # of the collections around an event; None without an anchor
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
            if len(open_anchors) > MAX_DEPTH:
                raise _too_deep(line)
        elif isinstance(event, CollectionEndEvent):
            open_anchors.pop()
        if isinstance(event, NodeEvent):
            _check_tag(event, line)
    return has_aliases


def _too_deep(place: str) -> RecipeError:
    return RecipeError(
        f"{place}: this is nested more than {MAX_DEPTH} levels deep. Write it flatter."
    )


def _check_tag(event: NodeEvent, line: str) -> None:
    tag = getattr(event, "tag", None)
    if tag is None or str(tag) in (*PLAIN_TAGS, "!"):
        return
    raise RecipeError(
        f"{line}: a recipe has no tags such as {_one_line(tag)}. Leave it out, or quote the text."
    )


def _override_value(override: str, key: str, text: str) -> Any:
    """Return the value after `key=`: a number, true, false, null, the content of quotes or
    brackets, or else the text as it is.

    Raises RecipeError for quotes and brackets that are not closed, and for no value at all.
    """
    if not text:
        raise RecipeError(
            f"--set {override}: there is no value. For none: {key}=null. For an empty text: "
            f"{key}='\"\"'."
        )
    if not _is_unicode(text):
        raise RecipeError(f"--set {key}: the value is not UTF-8 text. Write it in UTF-8.")
    if text[0] in "\"'[{":
        return _quoted_value(override, key, text)
    try:
        events = [event for event in _yaml().parse(text) if isinstance(event, NodeEvent)]
    except (YAMLError, ValueError):
        return text
    # One plain scalar that is all of the text may be a number. Anything else (`a #1.txt`, `*`,
    # `a: b`) is text, whatever YAML would make of it.
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


def _quoted_value(override: str, key: str, text: str) -> Any:
    """Return the value in quotes or brackets, by JSON or by YAML.

    Raises RecipeError unless the text ends with them.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        pass  # YAML needs fewer quotes
    name = Path(f"--set {override}")
    try:
        events = list(_yaml().parse(text))
        _check_events(iter(events), name)
        values = [event for event in events if isinstance(event, NodeEvent | CollectionEndEvent)]
        # YAML would take a comment, or a second document, after the value
        if values and values[-1].end_mark.index == len(text):
            return _yaml().load(text)
        reason = TRAILING_TEXT
    except (YAMLError, ValueError, RecursionError) as error:
        reason = _one_line(getattr(error, "problem", None) or error)
        if reason.startswith("expected '<document start>'"):
            reason = TRAILING_TEXT
    as_text = quote(f"{key}={json.dumps(text, ensure_ascii=False)}")
    raise RecipeError(
        f"--set {override}: this is not YAML: a value that begins with {text[0]} is read up to "
        f"its end, and {reason}. "
        f"To give it as text: --set {as_text}"
    )


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object. Raises ValueError for a key that stands in it twice."""
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        raise ValueError("a key stands in it twice")
    return mapping


def _refuse_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _as_tree(value: Any) -> Any:
    """Return JSON data as ruamel holds YAML, so that a later override can change parts of it."""
    if isinstance(value, dict) and not isinstance(value, CommentedMap):
        return CommentedMap({key: _as_tree(child) for key, child in value.items()})
    if isinstance(value, list) and not isinstance(value, CommentedSeq):
        return CommentedSeq([_as_tree(child) for child in value])
    return value


def _is_unicode(text: str) -> bool:
    """Return whether a text has no halves of characters (surrogates), which UTF-8 cannot write."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


class _Plain:
    """Turns YAML into plain JSON data, with every alias replaced by its value."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._weight = 0  # values and characters so far

    def mapping(self, tree: CommentedMap) -> dict[str, Any]:
        """Return the data. Raises RecipeError for types that JSON lacks, and for too much data."""
        data: dict[str, Any] = self._value(tree, (), 0)
        return data

    def _value(self, value: Any, loc: Loc, depth: int) -> Any:
        self._count(1)
        if depth > MAX_DEPTH:
            raise self._mistake(loc, f"{TOO_DEEP}. Write it flatter.")
        if isinstance(value, Mapping):
            return {
                self._key(key, loc): self._value(child, (*loc, key), depth + 1)
                for key, child in value.items()
            }
        if isinstance(value, CommentedSeq):
            return [
                self._value(child, (*loc, number), depth + 1) for number, child in enumerate(value)
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
            # so that JSON and SQLite can have it too
            raise self._mistake(loc, "this number has more than 64 bits. Write a smaller one.")
        return int(value)

    def _count(self, weight: int) -> None:
        self._weight += weight
        if self._weight > MAX_WEIGHT:
            raise RecipeError(
                f"{self._source.path}: its aliases make more than {MAX_WEIGHT:,} characters of it. "
                "Write values out."
            )

    def _mistake(self, loc: Loc, reason: str) -> RecipeError:
        key = ".".join(map(str, loc))[:100]
        return RecipeError(f"{self._source.path}: {self._source.where(loc)}: {key}: {reason}")
