"""`plain`: the model criticises its own draft (Self-Refine, Madaan et al.

2023, arXiv 2303.17651).
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar

from annotated_types import Ge
from selfloop_plugins._shared.queries import first, line

from selfloop import Claim, Completion, Component, Judging, Request, Sampling, hookimpl
from selfloop.config.prompts import is_open


class SelfRefine:
    """Shows the model question and draft, and asks what is wrong.

    Nothing else: no other signal (arXiv 2310.01798).
    """

    revise: ClassVar[str] = "revise"

    def __init__(self, *, max_tokens: Annotated[int, Ge(1)] = 48) -> None:
        self._sampling = Sampling(max_tokens=max_tokens, stop=("\n",))

    def critique(self, claims: Sequence[Claim], judging: Judging) -> list[Completion]:
        """Return one critique for each claim."""
        prompts = [
            judging.prompt(
                "critique", question=line(claim.question.text), draft=line(claim.answer.text)
            )
            for claim in claims
        ]
        requests = [
            Request(prompt, self._sampling, open_turn=is_open(prompt)) for prompt in prompts
        ]
        return [Completion(text) for text in first(requests, judging.backend)]


@hookimpl
def selfloop_critics() -> list[Component]:
    """Offer the critic."""
    doc = "the model says what is wrong with its draft"
    return [Component("plain", SelfRefine, doc=doc, paper="https://arxiv.org/abs/2303.17651")]
