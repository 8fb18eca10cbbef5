"""`contrast`: the model's different answers side by side, each with an argument for it.

Like a debate between several runs of one model (Du et al. 2023, arXiv 2305.14325), with one round
and one judge.
"""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, ClassVar

from annotated_types import Ge
from selfloop_plugins._shared.generation import claim_seed, generate_texts, texts_or_none
from selfloop_plugins._shared.meaning import meaning
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._shared.prompt_text import one_line

from selfloop import Claim, Completion, Component, Request, Sampling, VerifyContext, hookimpl
from selfloop.config.prompts import is_open
from selfloop.contradictions import agree

# a question and one of its answers, each as one line
QuestionAndSide = tuple[str, str]


class Contrast:
    """Lets the model argue for each of its answers alone, and lists them all for it to choose.

    The answers are the draft's and the commonest others of the samples, those that at least
    `min_samples` of them give, `candidates` in all. Of two that may be the same ("Rome", "Rome,
    Italy") only the commoner is used. Their order is drawn for each question, because a small model
    prefers the first or the last. The critique is empty where the draft declines, and where no
    other answer is left.
    """

    revise_prompt: ClassVar[str] = "contrast_revise"

    def __init__(
        self,
        *,
        candidates: Annotated[int, Ge(2)] = 3,
        min_samples: Annotated[int, Ge(1)] = 2,
        max_tokens: Annotated[int, Ge(1)] = 32,
    ) -> None:
        self._candidates, self._min_samples = candidates, min_samples
        self._arguing = Sampling(max_tokens=max_tokens, stop=("\n",))

    def critique(self, claims: Sequence[Claim], context: VerifyContext) -> list[Completion]:
        """Return one critique for each claim; all arguments are written in one call."""
        sides_of_claims = [self._sides(claim, context) for claim in claims]
        pairs: list[QuestionAndSide] = []
        for claim, sides in zip(claims, sides_of_claims, strict=True):
            question = one_line(claim.question.text)
            pairs += [(question, side) for side in sides]
        arguments = self._arguments(pairs, context)
        critiques = []
        for claim, sides in zip(claims, sides_of_claims, strict=True):
            question = one_line(claim.question.text)
            candidates = [_candidate(side, arguments[question, side]) for side in sides]
            critiques.append(Completion("\n".join(candidates)))
        return critiques

    def _arguments(
        self, pairs: Sequence[QuestionAndSide], context: VerifyContext
    ) -> dict[QuestionAndSide, str]:
        """Return an argument for each question and answer; "" where the request was refused."""
        requests = []
        for question, side in pairs:
            prompt = context.prompt("contrast_argument", question=question, answer=side)
            requests.append(Request(prompt, self._arguing, open_turn=is_open(prompt)))
        results = generate_texts(requests, context.backend)
        arguments: dict[QuestionAndSide, str] = {}
        for pair, result in zip(pairs, results, strict=True):
            # greedy, so that a request has one text
            texts = texts_or_none(result)
            arguments[pair] = one_line(texts[0]) if texts else ""
        return arguments

    def _sides(self, claim: Claim, context: VerifyContext) -> list[str]:
        """Return the answers to choose from, in their order; none if there is only one."""
        draft = meaning(claim.answer.text)
        if not draft:
            return []
        counts = Counter(meaning(sample.text) for sample in claim.samples)
        sides = [draft]
        for candidate, count in counts.most_common():
            # one that declines has no word that another lacks, so it is no side
            is_new = not any(agree(candidate, side) for side in sides)
            if count >= self._min_samples and is_new:
                sides.append(candidate)
        sides = sides[: self._candidates]
        if len(sides) < 2:
            return []
        random.Random(claim_seed(claim, context)).shuffle(sides)
        wordings = _wordings(claim)
        return [wordings[side] for side in sides]


def _wordings(claim: Claim) -> dict[str, str]:
    """Return how each meaning is worded: as in the draft, else as in the first sample with it."""
    wordings: dict[str, str] = {}
    for completion in (claim.answer, *claim.samples):
        wordings.setdefault(meaning(completion.text), one_line(completion.text))
    return wordings


def _candidate(side: str, argument: str) -> str:
    return f"Candidate: {side}\nFor it: {argument}".rstrip()


@hookimpl
def selfloop_critics() -> list[Component]:
    """Offer the critic."""
    doc = "the samples' answers side by side, each with the reasons for it"
    paper = "https://arxiv.org/abs/2305.14325"
    return [Component("contrast", Contrast, doc=doc, paper=paper, prompts=PROMPTS)]
