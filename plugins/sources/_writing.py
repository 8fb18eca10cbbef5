"""What the sources that let the model write share: drawing texts, and reading questions out of them."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from selfloop_plugins._shared.patterns import pattern

from selfloop import Asking, Completion, Outcome, Request, Sampling
from selfloop.config.prompts import Prompt, is_open
from selfloop.errors import RecipeError, RequestError

_ENDS = pattern(r"[?？؟]")


def first_question(text: str) -> str:
    """Return `text` up to its first question mark, without list marks and quotes around it."""
    text = text.strip()
    found = _ENDS.search(text)
    return (text[: found.end()] if found else text).strip().lstrip("-*•0123456789.) \"'“").strip()


def draw(
    asking: Asking,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    n: int = 1,
    open_turn: bool = False,
) -> list[list[str]]:
    """Return `n` texts for each prompt, in order, and none for one the backend refuses; if it
    refuses all, it raises.

    Each prompt has a seed of its own, that depends on `asking.seed` and its place.
    """
    rng = random.Random(asking.seed)
    requests = [
        Request(
            prompt, sampling, n=n, seed=rng.getrandbits(32), open_turn=open_turn or is_open(prompt)
        )
        for prompt in prompts
    ]
    found: list[list[Completion]] = [[] for _ in requests]
    refused: list[RequestError] = []
    for index, result in asking.backend.generate(requests):
        if isinstance(result, RequestError):
            refused.append(result)
        else:
            found[index].append(result)
    if refused and not any(found):
        raise refused[0]
    return [[c.text for c in sorted(got, key=lambda c: c.sample)] for got in found]


def prompt_text(prompt: Prompt) -> str:
    """Return all that a prompt shows, in lower case: a small model likes to say it over again."""
    return (
        prompt if isinstance(prompt, str) else " ".join(message.content for message in prompt)
    ).lower()


def topic_lines(path: Path) -> list[str]:
    """Return the lines of a topics file; raise RecipeError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"ask.sources: cannot read the topics file {path}: {error}. Give UTF-8 text."
        ) from error


def again(asking: Asking, *what: str | int) -> Asking:
    """Return `asking` with another seed, for a second draw in the same call."""
    return replace(asking, seed=random.Random(f"{asking.seed} {what}").getrandbits(32))


def earlier(asking: Asking) -> list[Outcome]:
    """Return the last outcome of each question that was asked in an earlier round, in the order first asked."""
    last = {
        o.question.text: o
        for o in asking.past.outcomes
        if o.round < asking.round and o.decision != "dropped"
    }
    return list(last.values())
