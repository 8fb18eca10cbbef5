"""`contrast`: the model's different answers, each with what speaks for it, side by side.

Like a debate between several runs of one model (Du et al. 2023, arXiv 2305.14325), with one round
and one judge.
"""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, ClassVar

from annotated_types import Ge
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._shared.queries import line, seed, write
from selfloop_plugins.detectors._claims import meaning

from selfloop import Claim, Completion, Component, Judging, Request, Sampling, hookimpl
from selfloop.config.prompts import is_open
from selfloop.contradictions import agree
from selfloop.errors import RequestError


class Contrast:
    """Lets the model argue for each of its answers without seeing the others, and lists them for it
    to choose.

    The answers are the draft's and the samples' commonest others, those that at least `least` of
    them give, `candidates` in all; of two that may be the same ("Rome", "Rome, Italy") only the
    commoner. Their order is drawn for each question, for a small model likes the first or the last.
    There is nothing to say where the draft declines, and where no other answer is left.
    """

    revise: ClassVar[str] = "contrast_revise"

    def __init__(
        self,
        *,
        candidates: Annotated[int, Ge(2)] = 3,
        least: Annotated[int, Ge(1)] = 2,
        max_tokens: Annotated[int, Ge(1)] = 32,
    ) -> None:
        self._candidates, self._least = candidates, least
        self._arguing = Sampling(max_tokens=max_tokens, stop=("\n",))

    def critique(self, claims: Sequence[Claim], judging: Judging) -> list[Completion]:
        """Return one critique for each claim; all arguments are written in one call."""
        sides = [self._sides(claim, judging) for claim in claims]
        pairs = [
            (line(claim.question.text), side)
            for claim, own in zip(claims, sides, strict=True)
            for side in own
        ]
        prompts = [
            judging.prompt("contrast_argument", question=asked, answer=side)
            for asked, side in pairs
        ]
        requests = [Request(prompt, self._arguing, open_turn=is_open(prompt)) for prompt in prompts]
        arguments = dict(zip(pairs, write(requests, judging.backend), strict=True))
        return [
            Completion(
                "\n".join(_shown(side, arguments[line(claim.question.text), side]) for side in own)
            )
            for claim, own in zip(claims, sides, strict=True)
        ]

    def _sides(self, claim: Claim, judging: Judging) -> list[str]:
        """Return the answers to choose from, in their order; none if there is only one."""
        if not (draft := meaning(claim.answer.text)):
            return []
        worded = {
            meaning(one.text): line(one.text) for one in (*reversed(claim.samples), claim.answer)
        }
        sides = [draft]
        for found, count in Counter(meaning(one.text) for one in claim.samples).most_common():
            # one that declines has no word that another lacks, so it is no side
            if count >= self._least and not any(agree(found, side) for side in sides):
                sides.append(found)
        if len(sides := sides[: self._candidates]) < 2:
            return []
        random.Random(seed(claim, judging)).shuffle(sides)
        return [worded[side] for side in sides]


def _shown(side: str, argument: list[str] | RequestError) -> str:
    spoken = "" if isinstance(argument, RequestError) else line(argument[0])
    return f"Candidate: {side}\nFor it: {spoken}".rstrip()


@hookimpl
def selfloop_critics() -> list[Component]:
    """Offer the critic."""
    doc = "the samples' answers side by side, each with what speaks for it"
    paper = "https://arxiv.org/abs/2305.14325"
    return [Component("contrast", Contrast, doc=doc, paper=paper, prompts=PROMPTS)]
