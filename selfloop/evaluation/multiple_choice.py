"""TruthfulQA's multiple choice, MC1 and MC2 (Lin et al. 2021, arXiv 2109.07958), by log-likelihood.

How likely is each choice after the prompt `answer`? MC1 is the share of questions whose likeliest
choice is the true one; MC2 is the probability of all true choices, out of that of all choices. The
prompt is selfloop's, not the paper's.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
from pydantic import BaseModel, TypeAdapter, ValidationError, model_validator

from selfloop.config.prompts import Prompt, is_open
from selfloop.data.raw import Cells
from selfloop.errors import RecipeError, RequestError
from selfloop.evaluation import metrics
from selfloop.evaluation.metrics import Estimate, interval
from selfloop.protocols import Backend
from selfloop.records import Continuation

REPOSITORY, CONFIG, SPLIT = "truthfulqa/truthful_qa", "multiple_choice", "validation"


class Targets(BaseModel):
    """Choices, and for each whether it is true (1) or not (0)."""

    choices: list[str]
    labels: list[int]

    @model_validator(mode="after")
    def _sound(self) -> "Targets":
        if (
            len(self.choices) != len(self.labels)
            or 1 not in self.labels
            or not {0, 1}.issuperset(self.labels)
        ):
            raise ValueError(
                "each choice has a label, 1 if it is true and 0 if not, and one at least is true"
            )
        return self


class Item(BaseModel):
    """A question with its two sets of choices."""

    question: str
    mc1_targets: Targets
    mc2_targets: Targets


@dataclass(frozen=True)
class Report:
    """The scores; `failed` counts questions with a choice that the model could not read."""

    questions: int
    failed: int
    mc1: Estimate
    mc2: Estimate


def items(rows: Iterable[Cells]) -> list[Item]:
    """Return the rows as items. Raises RecipeError for a row of another form."""
    try:
        return TypeAdapter(list[Item]).validate_python(list(rows))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        number, *way = first["loc"]
        where = ".".join(map(str, way))
        raise RecipeError(
            f"row {int(number) + 1}: no TruthfulQA multiple choice: {where}: {first['msg']}. Mend "
            "it."
        ) from error


def score(items: Sequence[Item], backend: Backend, prompt: Callable[..., Prompt]) -> Report:
    """Let the model read every choice of every question, in one batch.

    `prompt` gives the prompts by name.
    """
    # a choice that stands in both sets is read once
    choices = [
        list(dict.fromkeys(item.mc1_targets.choices + item.mc2_targets.choices)) for item in items
    ]
    pairs = list[Continuation]()
    for item, texts in zip(items, choices, strict=True):
        pairs += _continuations(prompt("answer", question=item.question), texts)
    totals = map(_total, backend.loglikelihood(pairs))
    mc1, mc2 = list[bool](), list[float]()
    for item, texts in zip(items, choices, strict=True):
        logprobs = dict(zip(texts, islice(totals, len(texts)), strict=True))
        if None not in logprobs.values():
            mc1.append(_best_is_true(item.mc1_targets, logprobs))
            mc2.append(_true_mass(item.mc2_targets, logprobs))
    return Report(len(mc1), len(items) - len(mc1), _mean(mc1), _mean(mc2))


def _mean(values: Sequence[float]) -> Estimate:
    return interval(partial(metrics.mean, values), len(values))


def _continuations(prompt: Prompt, choices: Iterable[str]) -> Iterator[Continuation]:
    lead = " " if isinstance(prompt, str) or is_open(prompt) else ""  # it goes on after "Answer:"
    return (Continuation(prompt, lead + choice, is_open(prompt)) for choice in choices)


def _total(logprobs: tuple[float, ...] | RequestError) -> float | None:
    return None if isinstance(logprobs, RequestError) else sum(logprobs)


def _arrays(
    targets: Targets, logprobs: Mapping[str, float | None]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the log-probability of each choice, and whether it is true; both (choices,)."""
    ordered = [logprobs[choice] for choice in targets.choices]
    return np.array(ordered, float), np.array(targets.labels) == 1


def _best_is_true(targets: Targets, logprobs: Mapping[str, float | None]) -> bool:
    logs, true = _arrays(targets, logprobs)
    # a tie with a wrong choice is a miss; without wrong choices there is nothing to miss
    return bool(logs[true].max() > logs[~true].max(initial=-np.inf))


def _true_mass(targets: Targets, logprobs: Mapping[str, float | None]) -> float:
    logs, true = _arrays(targets, logprobs)
    # in logs, for probabilities of whole sentences underflow
    return float(np.exp(np.logaddexp.reduce(logs[true]) - np.logaddexp.reduce(logs)))
