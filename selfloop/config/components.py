"""The components that a recipe names: how each is written, and the ones that they wrap.

A component that wraps another (`Component.wraps`) names one of its options for it. A recipe writes
a component of the same kind there, which may wrap another in turn.
"""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from selfloop.config.yaml_source import Loc
from selfloop.protocols import Component
from selfloop.records import ModelState
from selfloop.registry.manager import Catalog


class ComponentSpec(BaseModel):
    """A component: its `kind`, and its options beside it.

    `kind` alone may be written as plain text.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    kind: str

    @property
    def options(self) -> dict[str, Any]:
        """Return the component's own options."""
        return self.model_extra or {}


class SourceSpec(ComponentSpec):
    """A question source; `weight` is its part of the questions, relative to the other weights."""

    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0


class ScorerSpec(ComponentSpec):
    """A scorer; a question below `min_score` is dropped before anything is spent on it."""

    min_score: Annotated[float, Field(allow_inf_nan=False)] | None = None


class DetectorSpec(ComponentSpec):
    """A detector; `with` is the model that it asks and reads. None: the base, or the tuned model
    for a detector that is about it."""

    with_: Annotated[ModelState | None, Field(alias="with")] = None


class TunerSpec(ComponentSpec):
    """A tuner; it runs at the end of every `every`-th round."""

    every: Annotated[int, Field(ge=1)] = 1


# The keys of a component that are the loop's, and not options of the component.
LOOP_KEYS = {
    "source": {"weight"},
    "scorer": {"min_score"},
    "detector": {"with"},
    "tuner": {"every"},
}


def long_form(value: Any) -> Any:
    """Return `{"kind": value}` for a component that is written as its kind alone."""
    return {"kind": value} if isinstance(value, str) else value


def long_form_or_none(value: Any) -> Any:
    """Return the long form of a component, or None where the recipe says `none`."""
    return None if value == "none" else long_form(value)


SpecField = Annotated[ComponentSpec, BeforeValidator(long_form)]
SourceField = Annotated[SourceSpec, BeforeValidator(long_form)]
ScorerField = Annotated[ScorerSpec, BeforeValidator(long_form)]
DetectorField = Annotated[DetectorSpec, BeforeValidator(long_form)]
OptionalSpecField = Annotated[ComponentSpec | None, BeforeValidator(long_form_or_none)]
OptionalTunerField = Annotated[TunerSpec | None, BeforeValidator(long_form_or_none)]


@dataclass(frozen=True)
class ComponentUse:
    """One place of a recipe that names a component, and the component of that name."""

    kind: str
    loc: Loc
    spec: ComponentSpec
    component: Component


def inner_in_long_form(component: Component, options: Mapping[str, Any]) -> Any:
    """Return the recipe's entry for the component that this one wraps; None where there is none.

    `none` is a component's name unless `build` can do without an inner component.
    """
    raw = options.get(component.wraps) if component.wraps else None
    if raw == "none":
        parameter = inspect.signature(component.build).parameters[component.wraps]
        if parameter.default is not parameter.empty:
            return None
    return long_form(raw)


def inner_spec(component: Component, spec: ComponentSpec) -> ComponentSpec | None:
    """Return the spec of the component that this one wraps, or None if it wraps none."""
    raw = inner_in_long_form(component, spec.options)
    return None if raw is None else ComponentSpec.model_validate(raw)


def with_inner(
    kind: str, loc: Loc, spec: ComponentSpec, catalog: Catalog
) -> Iterator[ComponentUse]:
    """Yield a component and those that it wraps, the outermost first.

    Raises RecipeError or PluginError for a name that the catalogue does not have once.
    """
    current: ComponentSpec | None = spec
    while current is not None:
        component = catalog.find(kind, current.kind)
        yield ComponentUse(kind, loc, current, component)
        current, loc = inner_spec(component, current), (*loc, component.wraps)


def backend_capabilities(spec: ComponentSpec, catalog: Catalog) -> frozenset[str]:
    """Return the capabilities of a backend as a recipe writes it.

    A backend that wraps another lets through those in its `gives` that the inner one has.
    """
    chain = with_inner("backend", ("backend",), spec, catalog)
    return frozenset.intersection(*(frozenset(use.component.gives) for use in chain))
