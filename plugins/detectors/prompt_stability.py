"""Prompt stability: is the answer the same behind other few-shot examples?

Cf. Zhao et al. 2021, arXiv 2102.09690.
"""

from collections.abc import Sequence

from selfloop_plugins._shared.generation import generate_texts
from selfloop_plugins._shared.meaning import meaning
from selfloop_plugins._shared.prompt_files import PROMPTS

from selfloop import Claim, Component, Request, Sampling, Verdict, VerifyContext, hookimpl
from selfloop.config.prompts import is_open
from selfloop.errors import RequestError

from ._claims import DECLINED

# prompts like `answer`, each with other examples
OTHER_PROMPTS = ("answer_b", "answer_c", "answer_d")


class PromptStability:
    """Confidence is the share of greedy answers, each behind other examples, of the same meaning.

    The answer of a small model may depend on the examples in its prompt (Zhao et al. 2021). The
    question is asked in the prompts `answer_b`, `answer_c` and `answer_d`, which a recipe can
    replace like any other; it costs three more answers. A revision is judged like a draft.
    Uncalibrated. It abstains where the answer declines, and where no other answer came.
    """

    def __init__(self, *, max_tokens: int = 24) -> None:
        self._sampling = Sampling(max_tokens=max_tokens, stop=("\n",))

    def verify(self, claims: Sequence[Claim], context: VerifyContext) -> list[Verdict]:
        """Return one verdict for each claim; all questions are asked in one call."""
        requests = []
        for claim in claims:
            if not meaning(claim.answer.text):
                continue
            for name in OTHER_PROMPTS:
                prompt = context.prompt(name, question=claim.question.text)
                requests.append(Request(prompt, self._sampling, open_turn=is_open(prompt)))
        # each claim that was asked about has as many results in a row as there are prompts
        results = iter(generate_texts(requests, context.backend))
        verdicts = []
        for claim in claims:
            if meaning(claim.answer.text):
                own_results = [next(results) for _ in OTHER_PROMPTS]
                verdicts.append(_stability_verdict(claim, own_results))
            else:
                verdicts.append(Verdict("prompt_stability", None, DECLINED))
        return verdicts


def _stability_verdict(claim: Claim, results: Sequence[list[str] | RequestError]) -> Verdict:
    """Return the verdict from the answers behind other examples; those refused do not count."""
    answers: list[str] = []
    refusals: list[str] = []
    for result in results:
        if isinstance(result, RequestError):
            refusals.append(str(result))
        else:
            answers += result
    if not answers:
        reason = refusals[0] if refusals else "no other answer came"
        return Verdict("prompt_stability", None, reason)
    same = sum(meaning(answer) == meaning(claim.answer.text) for answer in answers)
    reason = f"{same} of {len(answers)} say it behind other examples"
    return Verdict("prompt_stability", same / len(answers), reason)


@hookimpl
def selfloop_detectors() -> list[Component]:
    """Offer the detector."""
    doc = "share of answers behind other demonstrations that say the same"
    paper = "https://arxiv.org/abs/2102.09690"
    return [Component("prompt_stability", PromptStability, doc=doc, paper=paper, prompts=PROMPTS)]
