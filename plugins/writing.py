"""What the sources that let the model write share: drawing texts, and reading questions out of them."""

import random
from collections.abc import Sequence

from selfloop import Asking, Completion, Request, Sampling
from selfloop.errors import RequestError
from selfloop.prompts import Prompt, is_open


def first_question(text: str) -> str:
    """Return `text` up to its first "?", without list marks and quotes around it."""
    head, mark, _ = text.strip().partition("?")
    return (head + mark).strip().lstrip("-*•0123456789.) \"'“").strip()


def draw(
    asking: Asking, prompts: Sequence[Prompt], sampling: Sampling, n: int = 1, open_turn: bool = False
) -> list[list[str]]:
    """Return `n` texts for each prompt, in order; a prompt the backend refuses raises its RequestError."""
    rng = random.Random(asking.seed)
    requests = [
        Request(prompt, sampling, n=n, seed=rng.getrandbits(32), open_turn=open_turn or is_open(prompt))
        for prompt in prompts
    ]
    found: list[list[Completion]] = [[] for _ in requests]
    for index, result in asking.backend.generate(requests):
        if isinstance(result, RequestError):
            raise result
        found[index].append(result)
    return [[c.text for c in sorted(got, key=lambda c: c.sample)] for got in found]
