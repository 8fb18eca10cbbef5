"""The options of a component: the keyword arguments of its `build`, with types and defaults."""

import inspect
import json
from collections.abc import Callable, Iterable
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, create_model

from selfloop.config.components import (
    ComponentSpec,
    DetectorSpec,
    OptionalSpecField,
    ScorerSpec,
    SourceSpec,
    SpecField,
    TunerSpec,
)
from selfloop.errors import PluginError


def options_model(build: Callable[..., Any], wraps: str = "") -> type[BaseModel]:
    """Return the model of the options that `build` takes: its keyword arguments, less `folder`.

    The option `wraps` is a component of its own in a recipe, whatever type `build` takes.

    Raises PluginError if they cannot be read, for then nothing could be checked.
    """
    try:
        return _options_model(build, wraps)
    except Exception as error:
        where = f"{getattr(build, '__module__', '')}.{getattr(build, '__qualname__', build)}"
        raise PluginError(
            f"{where}: its options cannot be read: {type(error).__name__}: {error}"
        ) from error


def _options_model(build: Callable[..., Any], wraps: str) -> type[BaseModel]:
    hints = _hints(build, wraps)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(build).parameters.items():
        if name == "folder" or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        if name == wraps:
            fields[name] = (SpecField if default is ... else OptionalSpecField, default)
            continue
        fields[name] = (hints.get(name, Any), default)
    config = ConfigDict(
        extra="forbid", strict=True, arbitrary_types_allowed=True, protected_namespaces=()
    )
    return create_model("Options", __config__=config, **fields)


def _hints(build: Callable[..., Any], wraps: str) -> dict[str, Any]:
    """Return the types of the parameters of `build`, less that of the component it wraps.

    That type, and the one returned, may be names that only type checkers import. So the other
    annotations alone are evaluated: `get_type_hints` takes any object that has annotations.
    """
    function: Any = build.__init__ if inspect.isclass(build) else build
    annotations = dict(getattr(function, "__annotations__", {}))
    for name in ("return", wraps):
        annotations.pop(name, None)
    holder = SimpleNamespace(__annotations__=annotations)
    names = getattr(function, "__globals__", {})
    return get_type_hints(holder, globalns=names, include_extras=True)


def describe_options(build: Callable[..., Any], wraps: str = "") -> list[dict[str, str]]:
    """Return name, type and default of every option, as text, for people."""
    rows = []
    for name, field in options_model(build, wraps).model_fields.items():
        default = "" if field.is_required() else f" = {describe_value(field.default)}"
        rows.append(
            {
                "name": name,
                "type": describe_type(field.annotation, field.metadata),
                "default": default,
            }
        )
    return rows


# types as recipes call them, and the attributes of bounds as signs
_NAMES = {
    str: "text",
    NoneType: "none",
    Any: "anything",
    ComponentSpec: "component",
    SourceSpec: "source",
    ScorerSpec: "scorer",
    DetectorSpec: "detector",
    TunerSpec: "tuner",
}
_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def describe_type(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """Return a type as a recipe's author would write it: `float > 0`, `list of text`.

    `metadata` are the bounds of `annotated_types` and pydantic that belong to it.
    """
    bounds, max_lengths, min_lengths = [], [], []
    for constraint in metadata:
        for attribute, sign in _SIGNS.items():
            if hasattr(constraint, attribute):
                bounds.append(f" {sign} {getattr(constraint, attribute)}")
        if getattr(constraint, "max_length", None):
            max_lengths.append(f", at most {constraint.max_length} long")
        if getattr(constraint, "min_length", None):
            min_lengths.append(f", at least {constraint.min_length}")
    return "".join([_plain_type(annotation), ",".join(bounds), *max_lengths, *min_lengths])


def _plain_type(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return describe_type(inner[0], inner[1:])
    if origin is Literal:
        return " | ".join(map(str, inner))
    if origin in (Union, UnionType):
        return " or ".join(map(describe_type, inner))
    if origin in (list, tuple, set, frozenset):
        return f"list of {describe_type(inner[0])}"
    if origin is dict:
        return f"mapping of {describe_type(inner[0])} to {describe_type(inner[1])}"
    return _NAMES.get(annotation) or getattr(annotation, "__name__", str(annotation)).lower()


def describe_value(value: Any, max_items: int = 4) -> str:
    """Return a default as it stands in a recipe; a long list is cut to `max_items`."""
    if isinstance(value, list | tuple):
        items = [describe_value(item) for item in value]
        if len(items) > max_items:
            # the count takes the place of the last item
            items = [*items[: max_items - 1], f"... {len(items)} in all"]
        return f"[{', '.join(items)}]"
    if value is None:
        return "none"
    return json.dumps(value, default=str, ensure_ascii=False)
