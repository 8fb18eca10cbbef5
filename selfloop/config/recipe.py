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
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from selfloop.config import defaults
from selfloop.config.components import (
    LOOP_KEYS,
    ComponentSpec,
    ComponentUse,
    DetectorField,
    DetectorSpec,
    OptionalSpecField,
    OptionalTunerField,
    ScorerField,
    ScorerSpec,
    SourceField,
    SpecField,
    backend_capabilities,
    inner_in_long_form,
    long_form,
    with_inner,
)
from selfloop.config.options import options_model
from selfloop.config.yaml_source import Loc, Source
from selfloop.errors import RecipeError, SelfloopError, did_you_mean
from selfloop.records import ModelState
from selfloop.registry.manager import Catalog, load
from selfloop.storage.run_names import MAX_CHARACTERS, fitting, mistake
from selfloop.storage.store import upgraded_recipe_text
from selfloop.text.answers.bounded import checked

# words of pydantic's messages, and those of ours in their place, in this order
PYDANTIC_WORDS = {
    "should be": "must be",
    " should ": " must ",
    "valid array": "list",
    " after validation, not 0": "",
}
STRICT = ConfigDict(extra="forbid", strict=True, frozen=True)
M = TypeVar("M", bound=BaseModel)
MAX_LISTED = 40  # mistakes that a message lists
MAX_SHOWN = 60  # characters of a value or a key that a message shows
MUST_BE_TEXT = "must be text"
ROUNDING = 1e-9  # 1 - 0.8 is not quite 0.2


Unit = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Stop = Annotated[str, Field(min_length=1)]  # an empty one would end every answer before it begins
Regex = Annotated[str, Field(min_length=1), AfterValidator(checked)]


def _number_or_auto(value: Any) -> Any:
    # Without this, pydantic would report both halves of the union.
    is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if not is_number and value != "auto":
        raise ValueError(f"must be a whole number from 0 on, or auto, not {_short_json(value)}")
    return value


Samples = Annotated[int | Literal["auto"], BeforeValidator(_number_or_auto)]


class Ask(BaseModel):
    """The number of questions of a round, their sources, and their scorers.

    After a tune, sources and scorers still use the base: the model without its adapter. With
    `with: tuned` they use the tuned model.
    """

    model_config = STRICT
    questions: Count = 40
    sources: Annotated[list[SourceField], Field(min_length=1)]
    scorers: list[ScorerField] = [
        ScorerSpec(kind=kind, min_score=min_score) for kind, min_score in defaults.SCORERS.items()
    ]
    max_turns: Count = 6
    with_: Annotated[ModelState, Field(alias="with")] = "base"


class Answer(BaseModel):
    """The greedy draft, and the samples that detectors share. `decline_bias` nats make the draft
    decline more.

    With `samples: 0` the one answer is judged alone: by its probability, which tells about as well
    as samples do, at a ninth of the time. With `samples: auto` some questions of each round, drawn
    by chance, get eight samples, and beyond these only the questions whose one answer leaves the
    decision open.

    A model that begins with a marked thought ("<think>") gets up to `thought_tokens` to end it, and
    then answers. Neither `stop` nor `max_tokens` applies within a thought. With 0 an opened thought
    stays a text without an answer.

    An answer in which one of the patterns `declines` is found, ignoring case, says that there is
    none, beside those that say so in their own words (docs/evaluation.md).

    After a tune the tuned model answers: it writes the draft, the critique and the revision. The
    base judges: it draws the samples, and gives the draft its log-probabilities. With `with: base`
    the base answers too, so that nothing is lost that it had right. With `samples_with: tuned` the
    tuned model draws the samples and reads the draft. A detector has a key `with` of its own.
    """

    model_config = STRICT
    max_tokens: Count = 24
    samples: Samples = 8
    temperature: Annotated[float, Field(gt=0, le=5)] = 0.7
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    thought_tokens: Annotated[int, Field(ge=0)] = 512
    stop: list[Stop] = ["\n"]
    decline_bias: Annotated[float, Field(ge=-100, le=100)] = 0.0
    declines: list[Regex] = []
    with_: Annotated[ModelState, Field(alias="with")] = "tuned"
    samples_with: ModelState = "base"


class Decide(BaseModel):
    """Confidence at or above `belief` is kept, at or below `declined` becomes "I don't know".

    To answer pays off above a confidence of t if a wrong answer costs t/(1 - t) right ones (Kalai
    et al. 2025, arXiv 2509.04664): with calibrated confidence, `belief` is that t. With `risk` the
    threshold is instead the lowest at which, going by their confidence, at most this share of a
    round's beliefs is wrong.
    """

    model_config = STRICT
    belief: Unit = 0.6
    declined: Unit = 0.3
    risk: Unit | None = None

    def threshold(self, confidences: Iterable[float]) -> float:
        """Return the lowest confidence that makes a belief, given those of a whole round."""
        if self.risk is None:
            return self.belief
        # Take answers from the surest on. `expected_wrong` is the number of wrong ones among the
        # `count` taken, going by their confidence. Answers of one confidence are taken together.
        threshold, expected_wrong, count = math.inf, 0.0, 0
        for confidence, equals in groupby(sorted(confidences, reverse=True)):
            size = len(list(equals))
            count += size
            expected_wrong += (1 - confidence) * size
            if expected_wrong <= self.risk * count + ROUNDING:
                threshold = confidence
        return threshold

    @model_validator(mode="after")
    def _in_order(self) -> "Decide":
        if self.declined >= self.belief:
            raise ValueError(
                f"declined ({self.declined}) must be below belief ({self.belief}), or nothing is "
                "undecided"
            )
        return self


# The keys of a recipe for kinds with one component, and for kinds with a list of them.
SINGLE_KEYS = {
    "backend": "backend",
    "critic": "critique",
    "few_shot": "few_shot",
    "tuner": "tuner",
}
LIST_KEYS: dict[str, tuple[str, ...]] = {
    "source": ("ask", "sources"),
    "scorer": ("ask", "scorers"),
    "detector": ("detectors",),
    "observer": ("observers",),
}


def _valid_run_name(name: str) -> str:
    reason = mistake(name)
    if reason:
        raise ValueError(f"{name!r} {reason}")
    return name


class Recipe(BaseModel):
    """A run, as its recipe says it."""

    model_config = STRICT
    name: Annotated[str, Field(max_length=MAX_CHARACTERS), AfterValidator(_valid_run_name)]
    seed: int = 0
    rounds: Count = 2
    plugins: list[str] = []
    backend: SpecField
    ask: Ask
    answer: Answer = Answer()
    critique: OptionalSpecField = None
    few_shot: OptionalSpecField = None
    detectors: Annotated[list[DetectorField], Field(min_length=1)] = [
        DetectorSpec(kind=kind) for kind in defaults.DETECTORS
    ]
    decide: Decide = Decide()
    tuner: OptionalTunerField = None
    observers: list[SpecField] = [ComponentSpec(kind=kind) for kind in defaults.OBSERVERS]
    prompts: dict[str, str] = {}

    def specs(self) -> Iterator[tuple[str, tuple[str | int, ...], ComponentSpec]]:
        """Yield every component as (its kind, its place in the recipe, its spec)."""
        for kind, key in SINGLE_KEYS.items():
            spec = getattr(self, key)
            if spec is not None:
                yield kind, (key,), spec
        for kind, path in LIST_KEYS.items():
            section = self.ask if len(path) > 1 else self
            for i, spec in enumerate(getattr(section, path[-1])):
                yield kind, (*path, i), spec


@dataclass(frozen=True)
class LoadedRecipe:
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
        _raise_mistakes(self.source, mistakes)


def read(
    path: Path,
    overrides: tuple[str, ...] = (),
    base: Path | None = None,
    name: str | None = None,
    text: str | None = None,
) -> LoadedRecipe:
    """Read and check a recipe.

    `base` is the folder that its paths are relative to (default: the recipe's). `name` is the
    run's, if the recipe gives none (default: the file's name, made fit for a folder). With `text`
    there is no file.

    Raises RecipeError that lists every mistake, or PluginError for a plugin file it names.
    """
    source = Source(path, overrides, upgraded_recipe_text(path) if text is None else text)
    base = base or path.parent
    default_name = name or path.stem
    source.data.setdefault("name", fitting(default_name))
    is_renamed = "name" not in source.written and fitting(default_name) != default_name
    # Plugin files come first: they have the components that the recipe is checked against.
    files = source.data.get("plugins")
    catalog = load(tuple(base / str(file) for file in files) if isinstance(files, list) else ())
    mistakes: list[tuple[Loc, str]] = []
    recipe = validated(Recipe, source.data, (), mistakes)
    _check_components(source.data, catalog, mistakes)
    _raise_mistakes(source, mistakes)
    assert recipe is not None  # or there would have been a mistake
    if "detectors" not in source.data:
        recipe = recipe.model_copy(update={"detectors": _usable_detectors(recipe, catalog)})
    return LoadedRecipe(recipe, source, catalog, base, default_name if is_renamed else "")


def _usable_detectors(recipe: Recipe, catalog: Catalog) -> list[DetectorSpec]:
    """Return the default detectors that the recipe's backend can serve."""
    gives = backend_capabilities(recipe.backend, catalog)
    return [spec for spec in recipe.detectors if catalog.find("detector", spec.kind).needs <= gives]


def _raise_mistakes(source: Source, mistakes: list[tuple[Loc, str]]) -> None:
    if mistakes:
        lines = [_mistake_line(source, loc, reason) for loc, reason in mistakes[:MAX_LISTED]]
        if len(mistakes) > MAX_LISTED:
            lines.append(f"  and {len(mistakes) - MAX_LISTED} more")
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        raise RecipeError("\n".join([f"{source.path}: {count}", *lines]))


def _mistake_line(source: Source, loc: Loc, reason: str) -> str:
    """Return one mistake with its place.

    Text that YAML reads as a number, say, comes with its quotes.
    """
    key = ".".join(_cut(str(part)) for part in loc)
    is_unquoted = reason.startswith(MUST_BE_TEXT)
    advice = f" In quotes it is text: {source.in_quotes(loc)}" if is_unquoted else ""
    return f"  {source.where(loc)}: {key}{': ' if key else ''}{reason}{advice}"


def _check_components(
    data: dict[str, Any], catalog: Catalog, mistakes: list[tuple[Loc, str]]
) -> None:
    """Check the options of every component.

    It works on the raw data, so that a mistake elsewhere in the recipe hides none here. A value of
    the wrong shape is skipped: the schema has reported it.
    """
    ask = data.get("ask")
    for kind, path in LIST_KEYS.items():
        section = data if len(path) == 1 else ask if isinstance(ask, dict) else {}
        listed = section.get(path[-1])
        for i, raw in enumerate(listed if isinstance(listed, list) else []):
            _check_component(kind, (*path, i), raw, catalog, mistakes)
    for kind, key in SINGLE_KEYS.items():
        # `none` is no component, but for the backend, which there must be
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
        return  # the schema has reported it
    try:
        component = catalog.find(kind, raw["kind"])
        model = options_model(component.build, component.wraps)
    except SelfloopError as error:
        mistakes.append(((*loc, "kind"), str(error)))
        return
    # `weight` and the like are keys of the place in the recipe, which an inner component has not.
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
        for details in error.errors(include_url=False):
            mistakes.append(((*loc, *details["loc"]), _explain(model, details)))
        return None


def _explain(model: type[BaseModel], error: Any) -> str:
    """Return an error of pydantic in the words of recipes: keys, mappings, lists and text."""
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "extra_forbidden":
        keys = _keys_at(model, error["loc"][:-1])
        suggestion = did_you_mean(str(error["loc"][-1]), keys)
        return f"unknown key.{suggestion} Known: {', '.join(keys) or 'none'}."
    if kind == "missing":
        return "is missing. Add it."
    if kind == "value_error":
        return f"{context['error']}."
    if kind == "model_type":
        return f"must be a mapping of keys to values, not {_short_json(value)}."
    if kind == "string_type" and (value is None or isinstance(value, bool | int | float)):
        return f"{MUST_BE_TEXT}, not {_short_json(value)}."
    message = error["msg"].removeprefix("Input ")
    for theirs, ours in PYDANTIC_WORDS.items():
        message = message.replace(theirs, ours)
    return f"{message}, not {_short_json(value)}."


def _short_json(value: Any) -> str:
    return _cut(json.dumps(value))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def _keys_at(model: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    """Return the keys of the part of a recipe that `path` leads to, as in `("ask",)`."""
    for part in path:
        field = model.model_fields.get(str(part))
        annotation = field.annotation if field is not None else None
        # any other annotation is a list or a plain value: stay where we are
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    # a key that is a word of Python has its name in the recipe as an alias
    return [field.alias or name for name, field in model.model_fields.items()]
