"""The options of a component: the keyword arguments of its `build`, with their types and defaults."""

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, create_model

from selfloop.errors import PluginError


def options_model(build: Callable[..., Any]) -> type[BaseModel]:
    """Return the model of the options that `build` takes: its keyword arguments, less `folder`.

    Raises PluginError if a type cannot be resolved, for then nothing could be checked.
    """
    hints = _hints(build)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(build).parameters.items():
        if name == "folder" or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[name] = (hints.get(name, Any), default)
    config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True, protected_namespaces=())
    return create_model("Options", __config__=config, **fields)


def _hints(build: Callable[..., Any]) -> dict[str, Any]:
    """Return the types of the parameters; what is returned may be a name that only type checkers import."""
    target: Any = build.__init__ if inspect.isclass(build) else build  # type: ignore[misc]
    typed = SimpleNamespace(__annotations__={k: v for k, v in _annotations(target).items() if k != "return"})
    try:
        return get_type_hints(typed, globalns=getattr(target, "__globals__", {}), include_extras=True)
    except NameError as error:
        raise PluginError(
            f"{build.__module__}.{build.__qualname__}: the type of an option is unknown: {error}"
        ) from error


def _annotations(target: Any) -> dict[str, Any]:
    return getattr(target, "__annotations__", {})


def describe_options(build: Callable[..., Any]) -> list[dict[str, str]]:
    """Return name, type and default of every option, as text, for people."""
    rows = []
    for name, field in options_model(build).model_fields.items():
        bounds = "".join(f" {word}" for word in map(_bound, field.metadata) if word)
        default = "" if field.is_required() else f" = {field.default!r}"
        rows.append({"name": name, "type": _type(field.annotation) + bounds, "default": default})
    return rows


def _type(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "at least this many:"}


def _bound(constraint: Any) -> str:
    return " ".join(
        f"{sign} {value}" for key, sign in _SIGNS.items() if (value := getattr(constraint, key, None)) is not None
    )
