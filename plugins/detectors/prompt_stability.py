"""Prompt stability: is the answer the same behind other demonstrations (cf.

Zhao et al. 2021, arXiv 2102.09690).
"""

from collections.abc import Sequence

from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._shared.queries import write

from selfloop import Claim, Component, Judging, Request, Sampling, Verdict, hookimpl
from selfloop.config.prompts import is_open
from selfloop.errors import RequestError

from ._claims import DECLINED, meaning

OTHERS = ("answer_b", "answer_c", "answer_d")


class PromptStability:
    """Confidence is the share of greedy answers, each behind other demonstrations, that mean the
    same. Uncalibrated.

    What a small model says may hang on the examples that it was shown (Zhao et al. 2021). The
    question is asked in the prompts `answer_b`, `answer_c` and `answer_d`, which a recipe can
    replace like any other; it costs three more answers. It abstains where the answer declines, and
    where no other answer came. A revision is judged like a draft.
    """

    def __init__(self, *, max_tokens: int = 24) -> None:
        self._sampling = Sampling(max_tokens=max_tokens, stop=("\n",))

    def verify(self, claims: Sequence[Claim], judging: Judging) -> list[Verdict]:
        """Return one verdict for each claim; all questions are asked in one call."""
        asked = [i for i, claim in enumerate(claims) if meaning(claim.answer.text)]
        prompts = [
            judging.prompt(name, question=claims[i].question.text) for i in asked for name in OTHERS
        ]
        requests = [
            Request(prompt, self._sampling, open_turn=is_open(prompt)) for prompt in prompts
        ]
        answers = write(requests, judging.backend)
        found = {i: answers[k * len(OTHERS) : (k + 1) * len(OTHERS)] for k, i in enumerate(asked)}
        return [_judged(claim, found.get(i)) for i, claim in enumerate(claims)]


def _judged(claim: Claim, found: list[list[str] | RequestError] | None) -> Verdict:
    if found is None:
        return Verdict("prompt_stability", None, DECLINED)
    given = [text for texts in found if isinstance(texts, list) for text in texts]
    if not given:
        refused = [str(one) for one in found if isinstance(one, RequestError)]
        return Verdict("prompt_stability", None, refused[0] if refused else "no other answer came")
    same = sum(meaning(text) == meaning(claim.answer.text) for text in given)
    return Verdict(
        "prompt_stability",
        same / len(given),
        f"{same} of {len(given)} say it behind other examples",
    )


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifier."""
    doc = "share of answers behind other demonstrations that say the same"
    paper = "https://arxiv.org/abs/2102.09690"
    return [Component("prompt_stability", PromptStability, doc=doc, paper=paper, prompts=PROMPTS)]
