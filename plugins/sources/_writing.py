"""Helpers of sources: generating texts, reading questions out of them, and the earlier questions
of a run.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from operator import attrgetter

from selfloop import AskContext, Completion, Outcome, Question, Request, Sampling
from selfloop.config.prompts import Prompt, is_open
from selfloop.errors import RequestError
from selfloop.text.patterns import pattern

_QUESTION_MARK = pattern(r"[?？؟]")
_LIST_MARKS = "-*•0123456789.) \"'“"  # before a question in a list, with quotes around it


def first_question(text: str) -> str:
    """Return `text` up to its first question mark, without list marks and quotes around it."""
    text = text.strip()
    if mark := _QUESTION_MARK.search(text):
        text = text[: mark.end()].strip()
    return text.lstrip(_LIST_MARKS).strip()


def generate(
    context: AskContext,
    prompts: Sequence[Prompt],
    samplings: Sequence[Sampling],
    n: int = 1,
    open_turn: bool = False,
) -> list[list[Completion]]:
    """Return `n` completions for each prompt, in order, and none for one the backend refuses.

    All requests go out in one call. Each prompt has a seed of its own, that depends on
    `context.seed` and its place. Raises RequestError where the backend refuses all.
    """
    rng = random.Random(context.seed)
    requests = []
    for prompt, sampling in zip(prompts, samplings, strict=True):
        is_open_turn = open_turn or is_open(prompt)
        seed = rng.getrandbits(32)
        requests.append(Request(prompt, sampling, n=n, seed=seed, open_turn=is_open_turn))
    completions: list[list[Completion]] = [[] for _ in requests]
    refusals: list[RequestError] = []
    # a backend yields completions as they finish, in any order
    for index, result in context.backend.generate(requests):
        if isinstance(result, RequestError):
            refusals.append(result)
        else:
            completions[index].append(result)
    if refusals and not any(completions):
        raise refusals[0]
    return [sorted(samples, key=attrgetter("sample")) for samples in completions]


def generate_texts(
    context: AskContext,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    n: int = 1,
    open_turn: bool = False,
) -> list[list[str]]:
    """Do as `generate`, with one sampling for all prompts; return the texts only."""
    samplings = [sampling] * len(prompts)
    return [
        list(map(attrgetter("text"), samples))
        for samples in generate(context, prompts, samplings, n=n, open_turn=open_turn)
    ]


def texts_if_any(
    context: AskContext, prompts: Sequence[Prompt], sampling: Sampling, n: int
) -> list[list[str]]:
    """Do as `generate_texts`, but return no texts where the backend refuses all.

    For a step that the others can do without.
    """
    try:
        return generate_texts(context, prompts, sampling, n=n)
    except RequestError:
        return [[] for _ in prompts]


def shown_text(prompt: Prompt) -> str:
    """Return all that a prompt shows, in lower case: a small model often repeats it."""
    if isinstance(prompt, str):
        return prompt.lower()
    return " ".join(message.content for message in prompt).lower()


def reseeded(context: AskContext, *labels: str | int) -> AskContext:
    """Return `context` with another seed, for a second draw in the same call."""
    return replace(context, seed=random.Random(f"{context.seed} {labels}").getrandbits(32))


def earlier_outcomes(context: AskContext) -> list[Outcome]:
    """Return the last outcome of each question asked in an earlier round, in the order first asked.

    Questions that were dropped are left out.
    """
    last: dict[str, Outcome] = {}
    for outcome in context.history.outcomes:
        if outcome.round < context.round and outcome.decision != "dropped":
            last[outcome.question.text] = outcome
    return list(last.values())


def not_asked_yet(questions: Sequence[Question], context: AskContext) -> list[Question]:
    """Return the first `context.n` questions that were neither asked nor dropped in this run."""
    asked = {*context.history.questions, *context.history.dropped}
    return list(islice((q for q in questions if q.text not in asked), context.n))
