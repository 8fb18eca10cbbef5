"""YAML -> Recipe. Every mistake is reported at once, with its line, before any model loads.

The fields below are the recipe's keys; the options of a component are the keyword arguments of its
`build`, checked the same way from its signature.
"""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from selfloop.config import defaults
from selfloop.config.components import (
    LOOP_KEYS,
    ComponentUse,
    OptionalPart,
    OptionalTunerPart,
    Part,
    ScorerPart,
    ScorerSpec,
    SourcePart,
    Spec,
    backend_capabilities,
    inner_in_long_form,
    long_form,
    with_inner,
)
from selfloop.config.options import options_model
from selfloop.config.yaml_source import Loc, Source
from selfloop.errors import RecipeError, SelfloopError, did_you_mean
from selfloop.registry.manager import Catalog, load
from selfloop.storage.run_names import LONGEST, fitting, mistake
from selfloop.text.answers.bounded import checked

STRICT = ConfigDict(extra="forbid", strict=True, frozen=True)
M = TypeVar("M", bound=BaseModel)
LISTED = 40  # mistakes that a message lists
SHORT = 60  # characters of a value or a key that a message shows
IN_QUOTES = "must be text"


Unit = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Stop = Annotated[str, Field(min_length=1)]  # an empty one would end every answer before it begins
Regex = Annotated[str, Field(min_length=1), AfterValidator(checked)]


class Ask(BaseModel):
    """How many questions a round asks, where they come from, and what they must pass."""

    model_config = STRICT
    questions: Count = 40
    sources: Annotated[list[SourcePart], Field(min_length=1)]
    scorers: list[ScorerPart] = [
        ScorerSpec(kind=kind, minimum=minimum) for kind, minimum in defaults.SCORERS.items()
    ]
    turns: Count = 6


class Answer(BaseModel):
    """The greedy draft, and the samples that verifiers share. `careful` nats make the draft decline
    more.

    A model that begins with a marked thought ("<think>") gets up to `thought_tokens` to end it, and
    then answers. Neither `stop` nor `max_tokens` applies within a thought. With 0 an opened thought
    stays a text without an answer.

    An answer in which one of the patterns `declines` is found, ignoring case, says that there is
    none, beside those that say so in their own words (docs/evaluation.md).
    """

    model_config = STRICT
    max_tokens: Count = 24
    samples: Count = 8
    temperature: Annotated[float, Field(gt=0, le=5)] = 0.7
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    thought_tokens: Annotated[int, Field(ge=0)] = 512
    stop: list[Stop] = ["\n"]
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
                f"declined ({self.declined}) must be below belief ({self.belief}), or nothing is "
                "undecided"
            )
        return self


# Where a recipe has the one component of a kind, and where it lists those of the others.
ONES = {
    "backend": "backend",
    "critic": "critique",
    "demonstrator": "demonstrations",
    "tuner": "tuner",
}
LISTS: dict[str, tuple[str, ...]] = {
    "source": ("ask", "sources"),
    "scorer": ("ask", "scorers"),
    "verifier": ("verifiers",),
    "observer": ("observers",),
}


def _fit_for_a_folder(name: str) -> str:
    if why := mistake(name):
        raise ValueError(f"{name!r} {why}")
    return name


class Recipe(BaseModel):
    """A run, as its recipe says it."""

    model_config = STRICT
    name: Annotated[str, Field(max_length=LONGEST), AfterValidator(_fit_for_a_folder)]
    seed: int = 0
    rounds: Count = 2
    plugins: list[str] = []
    backend: Part
    ask: Ask
    answer: Answer = Answer()
    critique: OptionalPart = None
    demonstrations: OptionalPart = None
    verifiers: Annotated[list[Part], Field(min_length=1)] = [
        Spec(kind=kind) for kind in defaults.VERIFIERS
    ]
    decide: Decide = Decide()
    tuner: OptionalTunerPart = None
    observers: list[Part] = [Spec(kind=kind) for kind in defaults.OBSERVERS]
    prompts: dict[str, str] = {}

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
    file_name: str = ""  # that of the recipe's file, where the run's name had to differ from it

    def uses(self) -> Iterator[ComponentUse]:
        """Yield every component of the recipe, each followed by those that it wraps."""
        for kind, loc, spec in self.recipe.specs():
            yield from with_inner(kind, loc, spec, self.catalog)

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
    """Read and check a recipe; `base` is the folder that its paths are relative to (default: the
    recipe's).

    `name` is what it is called if it does not say so itself (default: its file's name, made fit for
    a folder). With `text` there is no file.

    Raises RecipeError that lists every mistake, or PluginError for a plugin file it names.
    """
    source = Source(path, overrides, text)
    base = base or path.parent
    usual = name or path.stem
    source.data.setdefault("name", fitting(usual))
    is_renamed = "name" not in source.written and fitting(usual) != usual
    named = source.data.get("plugins")
    files = tuple(base / str(file) for file in named) if isinstance(named, list) else ()
    catalog = load(files)
    mistakes: list[tuple[Loc, str]] = []
    recipe = validated(Recipe, source.data, (), mistakes)
    _check_components(source.data, catalog, mistakes)
    _complain(source, mistakes)
    assert recipe is not None
    if "verifiers" not in source.data:
        recipe = recipe.model_copy(update={"verifiers": _served(recipe, catalog)})
    return Loaded(recipe, source, catalog, base, usual if is_renamed else "")


def _served(recipe: Recipe, catalog: Catalog) -> list[Spec]:
    """Return the default verifiers that the recipe's backend can serve."""
    gives = backend_capabilities(recipe.backend, catalog)
    return [spec for spec in recipe.verifiers if catalog.find("verifier", spec.kind).needs <= gives]


def _complain(source: Source, mistakes: list[tuple[Loc, str]]) -> None:
    if mistakes:
        lines = [_line(source, loc, why) for loc, why in mistakes[:LISTED]]
        if len(mistakes) > LISTED:
            lines.append(f"  and {len(mistakes) - LISTED} more")
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        raise RecipeError("\n".join([f"{source.path}: {count}", *lines]))


def _line(source: Source, loc: Loc, why: str) -> str:
    """Return one mistake with its place; text that YAML reads as something else comes with its quotes."""
    key = ".".join(_cut(str(part)) for part in loc)
    advice = f" In quotes it is text: {source.in_quotes(loc)}" if why.startswith(IN_QUOTES) else ""
    return f"  {source.where(loc)}: {key}{': ' if key else ''}{why}{advice}"


def _check_components(
    data: dict[str, Any], catalog: Catalog, mistakes: list[tuple[Loc, str]]
) -> None:
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


def _check_component(
    kind: str,
    loc: Loc,
    raw: Any,
    catalog: Catalog,
    mistakes: list[tuple[Loc, str]],
    *,
    is_inner: bool = False,
) -> None:
    """Add the mistakes of a component's options, and of those of the component that it wraps."""
    raw = long_form(raw)
    if not isinstance(raw, dict) or not isinstance(raw.get("kind"), str):
        return  # the schema has said so already
    try:
        component = catalog.find(kind, raw["kind"])
        model = options_model(component.build, component.wraps)
    except SelfloopError as error:
        mistakes.append(((*loc, "kind"), str(error)))
        return
    # `share` and the like are keys of the place in the recipe, which an inner component has not.
    loop_keys = set() if is_inner else LOOP_KEYS.get(kind, set())
    options = {key: value for key, value in raw.items() if key not in {"kind", *loop_keys}}
    validated(model, options, loc, mistakes)
    inner = inner_in_long_form(component, options)
    if inner is not None:
        _check_component(kind, (*loc, component.wraps), inner, catalog, mistakes, is_inner=True)


def validated(model: type[M], data: Any, loc: Loc, mistakes: list[tuple[Loc, str]]) -> M | None:
    """Return `data` as a `model`, or None after adding each of its mistakes."""
    try:
        # through JSON, for there a list is good for a tuple and text for a path, and all else is
        # strict
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
        return f"must be a mapping of keys to values, not {_short(given)}."
    if kind == "string_type" and (given is None or isinstance(given, bool | int | float)):
        return f"{IN_QUOTES}, not {_short(given)}."
    said = (
        error["msg"]
        .removeprefix("Input ")
        .replace("should be", "must be")
        .replace(" should ", " must ")
    )
    said = said.replace("valid array", "list").replace(" after validation, not 0", "")
    return f"{said}, not {_short(given)}."


def _short(value: Any) -> str:
    return _cut(json.dumps(value))


def _cut(text: str) -> str:
    return text if len(text) <= SHORT else text[: SHORT - 3] + "..."


def _known_keys(model: type[BaseModel], way: tuple[str | int, ...]) -> list[str]:
    for part in way:
        field = model.model_fields.get(str(part))
        if (
            field is not None
            and isinstance(field.annotation, type)
            and issubclass(field.annotation, BaseModel)
        ):
            model = field.annotation
    return list(model.model_fields)
