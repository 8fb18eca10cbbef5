"""`plain`: the model criticises its own draft.

Self-Refine, Madaan et al. 2023, arXiv 2303.17651.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar

from annotated_types import Ge
from selfloop_plugins._shared.generation import generate_one
from selfloop_plugins._shared.prompt_text import one_line

from selfloop import Claim, Completion, Component, Request, Sampling, VerifyContext, hookimpl
from selfloop.config.prompts import is_open


class SelfRefine:
    """Shows the model question and draft, and asks for mistakes in the draft.

    The model gets no other signal, so its critique is often wrong (Huang et al. 2023, arXiv
    2310.01798).
    """

    revise_prompt: ClassVar[str] = "revise"

    def __init__(self, *, max_tokens: Annotated[int, Ge(1)] = 48) -> None:
        self._sampling = Sampling(max_tokens=max_tokens, stop=("\n",))

    def critique(self, claims: Sequence[Claim], context: VerifyContext) -> list[Completion]:
        """Return one critique for each claim; raise RequestError where a request was refused."""
        requests = []
        for claim in claims:
            prompt = context.prompt(
                "critique",
                question=one_line(claim.question.text),
                draft=one_line(claim.answer.text),
            )
            requests.append(Request(prompt, self._sampling, open_turn=is_open(prompt)))
        return [Completion(text) for text in generate_one(requests, context.backend)]


@hookimpl
def selfloop_critics() -> list[Component]:
    """Offer the critic."""
    doc = "the model names the errors of its draft"
    return [Component("plain", SelfRefine, doc=doc, paper="https://arxiv.org/abs/2303.17651")]
