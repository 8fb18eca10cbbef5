"""YAML -> Recipe. Every mistake is reported at once, with its line, before any model loads.

The fields below are the recipe's keys; the options of a component are the keyword arguments of its
`build`, checked the same way from its signature.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from selfloop.answers.bounded import checked
from selfloop.errors import RecipeError, SelfloopError, did_you_mean
from selfloop.manager import Catalog, load
from selfloop.options import options_model
from selfloop.yaml_source import Loc, Source

STRICT = ConfigDict(extra="forbid", strict=True, frozen=True)
M = TypeVar("M", bound=BaseModel)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Spec(BaseModel):
    """A component: its `kind`, and its options beside it. `kind` alone may be written as plain text."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    kind: str

    @property
    def options(self) -> dict[str, Any]:
        """Return the component's own options."""
        return self.model_extra or {}


class SourceSpec(Spec):
    """A question source; `share` is its part of the questions, relative to the other sources' shares."""

    share: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0


class ScorerSpec(Spec):
    """A scorer; a question below `minimum` is dropped before anything is spent on it."""

    minimum: Annotated[float, Field(allow_inf_nan=False)] | None = None


class TunerSpec(Spec):
    """A tuner; it runs at the end of every `every`-th round."""

    every: Annotated[int, Field(ge=1)] = 1


def _long(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


def _long_or_none(value: Any) -> Any:
    return None if value == "none" else _long(value)


Part = Annotated[Spec, BeforeValidator(_long)]
SourcePart = Annotated[SourceSpec, BeforeValidator(_long)]
ScorerPart = Annotated[ScorerSpec, BeforeValidator(_long)]
OptionalPart = Annotated[Spec | None, BeforeValidator(_long_or_none)]
OptionalTunerPart = Annotated[TunerSpec | None, BeforeValidator(_long_or_none)]
Unit = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Regex = Annotated[str, Field(min_length=1), AfterValidator(checked)]


class Ask(BaseModel):
    """How many questions a round asks, where they come from, and what they must pass."""

    model_config = STRICT
    questions: Count = 40
    sources: Annotated[list[SourcePart], Field(min_length=1)]
    scorers: list[ScorerPart] = [ScorerSpec(kind="well_formed", minimum=1.0), ScorerSpec(kind="novelty", minimum=0.2)]
    turns: Count = 6


class Answer(BaseModel):
    """The greedy draft, and the samples that verifiers share. `careful` nats make the draft decline more.

    An answer in which one of the patterns `declines` is found, ignoring case, says that there is none, beside those
    that say so in their own words (docs/evaluation.md).
    """

    model_config = STRICT
    max_tokens: Count = 24
    samples: Count = 8
    temperature: Annotated[float, Field(gt=0, le=5)] = 0.7
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    stop: list[str] = ["\n"]
    careful: Annotated[float, Field(ge=-100, le=100)] = 0.0
    declines: list[Regex] = []


class Decide(BaseModel):
    """Confidence at or above `belief` is kept, at or below `declined` becomes "I don't know".

    To answer pays off above a confidence of t if a wrong answer costs t/(1 - t) right ones (Kalai et al. 2025, arXiv
    2509.04664): with calibrated confidence, `belief` is that t. With `risk` the threshold is instead the lowest at
    which, going by their confidence, at most this share of a round's beliefs is wrong.
    """

    model_config = STRICT
    belief: Unit = 0.6
    declined: Unit = 0.3
    risk: Unit | None = None

    def threshold(self, confidences: Iterable[float]) -> float:
        """Return the least confidence that makes a belief, given those of all answers of a round."""
        if self.risk is None:
            return self.belief
        found, doubt, count = math.inf, 0.0, 0
        for confidence, same in groupby(sorted(confidences, reverse=True)):
            count += (more := len(list(same)))
            doubt += (1 - confidence) * more
            if doubt <= self.risk * count + 1e-9:  # 1 - 0.8 is not quite 0.2
                found = confidence
        return found

    @model_validator(mode="after")
    def _in_order(self) -> "Decide":
        if self.declined >= self.belief:
            raise ValueError(
                f"declined ({self.declined}) must be below belief ({self.belief}), or nothing is undecided"
            )
        return self


# What a recipe has if it says nothing: three that any backend can serve, and one confidence out of them.
DETECTORS = ("agreement", "sequence_probability", "meaning_probability", "combined")

# Where a recipe has the one component of a kind, and where it lists those of the others.
ONES = {"backend": "backend", "critic": "critique", "demonstrator": "demonstrations", "tuner": "tuner"}
LISTS: dict[str, tuple[str, ...]] = {
    "source": ("ask", "sources"),
    "scorer": ("ask", "scorers"),
    "verifier": ("verifiers",),
    "observer": ("observers",),
}


class Recipe(BaseModel):
    """A run, as its recipe says it."""

    model_config = STRICT
    name: Annotated[str, Field(max_length=80)]
    seed: int = 0
    rounds: Count = 2
    plugins: list[str] = []
    backend: Part
    ask: Ask
    answer: Answer = Answer()
    critique: OptionalPart = None
    demonstrations: OptionalPart = None
    verifiers: Annotated[list[Part], Field(min_length=1)] = [Spec(kind=kind) for kind in DETECTORS]
    decide: Decide = Decide()
    tuner: OptionalTunerPart = None
    observers: list[Part] = [Spec(kind="console"), Spec(kind="jsonl"), Spec(kind="report")]
    prompts: dict[str, str] = {}

    @model_validator(mode="after")
    def _name_is_a_folder(self) -> "Recipe":
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name {self.name!r} becomes a folder: use letters, digits, '.', '_' and '-'")
        return self

    def specs(self) -> Iterator[tuple[str, tuple[str | int, ...], Spec]]:
        """Yield every component as (kind of component, where it stands in the recipe, what it says)."""
        for kind, key in ONES.items():
            if spec := getattr(self, key):
                yield kind, (key,), spec
        for kind, way in LISTS.items():
            here = self.ask if len(way) > 1 else self
            for i, spec in enumerate(getattr(here, way[-1])):
                yield kind, (*way, i), spec


@dataclass(frozen=True)
class Loaded:
    """A recipe that has been checked, its source, and the catalog its components come from."""

    recipe: Recipe
    source: Source
    catalog: Catalog
    base: Path

    def complain(self, mistakes: list[tuple[Loc, str]]) -> None:
        """Raise RecipeError listing the mistakes; do nothing if there are none."""
        _complain(self.source, mistakes)


def read(
    path: Path,
    overrides: tuple[str, ...] = (),
    base: Path | None = None,
    name: str | None = None,
    text: str | None = None,
) -> Loaded:
    """Read and check a recipe; `base` is the folder that its paths are relative to (default: the recipe's).

    `name` is what it is called if it does not say so itself (default: its file's name). With `text` there is no file.

    Raises RecipeError that lists every mistake, or PluginError for a plugin file it names.
    """
    source = Source(path, overrides, text)
    base = base or path.parent
    source.data.setdefault("name", name or path.stem)
    named = source.data.get("plugins")
    files = tuple(base / str(file) for file in named) if isinstance(named, list) else ()
    catalog = load(files)
    mistakes: list[tuple[Loc, str]] = []
    recipe = validated(Recipe, source.data, (), mistakes)
    _check_components(source.data, catalog, mistakes)
    _complain(source, mistakes)
    assert recipe is not None
    return Loaded(recipe, source, catalog, base)


def _complain(source: Source, mistakes: list[tuple[Loc, str]]) -> None:
    if mistakes:
        lines = [f"  {source.where(loc)}: {'.'.join(map(str, loc))}{': ' if loc else ''}{why}" for loc, why in mistakes]
        count = "1 mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
        raise RecipeError("\n".join([f"{source.path}: {count}", *lines]))


def _check_components(data: dict[str, Any], catalog: Catalog, mistakes: list[tuple[Loc, str]]) -> None:
    """Check every component on the raw data, so that a mistake elsewhere in the recipe hides none here."""
    ask = data.get("ask")
    for kind, way in LISTS.items():
        here = (ask if isinstance(ask, dict) else {}) if len(way) > 1 else data
        listed = here.get(way[-1])
        for i, raw in enumerate(listed if isinstance(listed, list) else []):
            _check_component(kind, (*way, i), raw, catalog, mistakes)
    for kind, key in ONES.items():
        if data.get(key) is not None and (kind == "backend" or data[key] != "none"):
            _check_component(kind, (key,), data[key], catalog, mistakes)


_RESERVED = {"source": {"kind", "share"}, "scorer": {"kind", "minimum"}, "tuner": {"kind", "every"}}


def _check_component(kind: str, loc: Loc, raw: Any, catalog: Catalog, mistakes: list[tuple[Loc, str]]) -> None:
    raw = _long(raw)
    if not isinstance(raw, dict) or not isinstance(raw.get("kind"), str):
        return  # the schema has said so already
    try:
        model = options_model(catalog.find(kind, raw["kind"]).build)
    except SelfloopError as error:
        mistakes.append(((*loc, "kind"), str(error)))
        return
    options = {key: value for key, value in raw.items() if key not in _RESERVED.get(kind, {"kind"})}
    validated(model, options, loc, mistakes)


def validated(model: type[M], data: Any, loc: Loc, mistakes: list[tuple[Loc, str]]) -> M | None:
    """Return `data` as a `model`, or None after adding each of its mistakes."""
    try:
        # through JSON, for there a list is good for a tuple and text for a path, and all else is strict
        return model.model_validate_json(json.dumps(data))
    except ValidationError as error:
        for one in error.errors(include_url=False):
            mistakes.append(((*loc, *one["loc"]), _explain(model, one)))
        return None


def _explain(model: type[BaseModel], error: Any) -> str:
    """Say in the recipe's own words what pydantic found."""
    kind, given, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "extra_forbidden":
        known = _known_keys(model, error["loc"][:-1])
        return f"unknown key.{did_you_mean(str(error['loc'][-1]), known)} Known: {', '.join(known) or 'none'}."
    if kind == "missing":
        return "is missing. Add it."
    if kind == "value_error":
        return f"{context['error']}."
    if kind == "model_type":
        return f"must be a mapping of keys to values, not {json.dumps(given)}."
    said = error["msg"].removeprefix("Input ").replace("should be", "must be").replace(" should ", " must ")
    said = said.replace("valid array", "list").replace(" after validation, not 0", "")
    return f"{said}, not {_short(given)}."


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _known_keys(model: type[BaseModel], way: tuple[str | int, ...]) -> list[str]:
    for part in way:
        field = model.model_fields.get(str(part))
        if field is not None and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            model = field.annotation
    return list(model.model_fields)
