"""`independent`: checks that are answered without the draft (Chain-of-Verification, Dhuliawala et al. 2023).

arXiv 2309.11495, in the variant that answers each check by itself ("factored").
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, ClassVar

from annotated_types import Ge

from selfloop import Claim, Completion, Component, Judging, Request, Sampling, hookimpl
from selfloop.answers import content, declines
from selfloop.errors import RequestError
from selfloop.ledger import agree
from selfloop.prompts import is_open

from .asking import line, seed, write
from .evidence import PROMPTS, meaning
from .paraphrase import different


@dataclass(frozen=True, slots=True)
class Check:
    """A question whose answer speaks for the draft, or against it; `turned`: it asks from the answer's side."""

    text: str
    turned: bool

    def supports(self, claim: Claim, answer: str) -> bool:
        """Return whether the check's answer fits the claim's."""
        if not self.turned:
            return agree(answer, claim.answer.text)
        return bool(set(content(answer)) & (set(content(claim.question.text)) - set(content(self.text))))


class Independent:
    """Plans checks of the draft, answers each alone in the recipe's `answer` prompt, and compares their words.

    A check is the question in other words (up to `rewordings`), which must get the draft's answer; or the question
    turned around (up to `reversals`), which names the draft's answer, and must get what the question names. A text
    that is no such check is left out, and one whose answer declines tells nothing. There is something to say if at
    least as many checks speak against the draft as for it. The paper's model plans freely and compares by itself; at
    the size of a few hundred million parameters it can do neither.
    """

    revise: ClassVar[str] = "independent_revise"

    def __init__(
        self,
        *,
        rewordings: Annotated[int, Ge(0)] = 2,
        reversals: Annotated[int, Ge(0)] = 1,
        max_tokens: Annotated[int, Ge(1)] = 24,
    ) -> None:
        self._rewordings, self._reversals = rewordings, reversals
        self._planning = Sampling(0.7, top_p=0.95, max_tokens=48, stop=("\n",))
        self._answering = Sampling(max_tokens=max_tokens, stop=("\n",))

    def critique(self, claims: Sequence[Claim], judging: Judging) -> list[Completion]:
        """Return one critique for each claim; all are planned in one call and all checks answered in another."""
        plans = self._plan(claims, judging)
        texts = list(dict.fromkeys(check.text for plan in plans for check in plan))
        prompts = [judging.prompt("answer", question=text) for text in texts]
        requests = [Request(prompt, self._answering, open_turn=is_open(prompt)) for prompt in prompts]
        answers = dict(zip(texts, write(requests, judging.backend), strict=True))
        told = [
            [(check, line(found[0])) for check in plan if (found := _texts(answers[check.text]))] for plan in plans
        ]
        return [Completion(_critique(claim, each)) for claim, each in zip(claims, told, strict=True)]

    def _plan(self, claims: Sequence[Claim], judging: Judging) -> list[list[Check]]:
        """Return the checks of each claim; none where it says nothing."""
        kinds = [("paraphrase", self._rewordings, reworded), ("independent_reverse", self._reversals, turned)]
        wanted = [(i, *kind) for i, claim in enumerate(claims) if meaning(claim.answer.text) for kind in kinds if kind[1]]
        requests = [self._request(name, claims[i], count, judging) for i, name, count, _ in wanted]
        plans: list[list[Check]] = [[] for _ in claims]
        for (i, _, count, read), found in zip(wanted, write(requests, judging.backend), strict=True):
            plans[i] += islice(read(claims[i], _texts(found)), count)
        return plans

    def _request(self, name: str, claim: Claim, count: int, judging: Judging) -> Request:
        """Ask for twice as many checks as wanted: many are none."""
        prompt = judging.prompt(name, question=line(claim.question.text), draft=line(claim.answer.text))
        own = seed(claim, judging)
        return Request(prompt, self._planning, n=2 * count, seed=own, open_turn=is_open(prompt))


def _texts(found: list[str] | RequestError) -> list[str]:
    return [] if isinstance(found, RequestError) else found


def reworded(claim: Claim, texts: Sequence[str]) -> list[Check]:
    """Return those that ask for the same: they keep the names, the numbers and half of what the question is about."""
    about, names = set(content(claim.question.text)), _names(claim.question.text)
    found = [(text, set(content(text))) for text in different(claim, texts)]
    return [Check(text, False) for text, own in found if names <= own and 2 * len(about & own) >= len(about)]


def turned(claim: Claim, texts: Sequence[str]) -> list[Check]:
    """Return those that ask, from the draft's answer on, for something that the question names and they do not."""
    begun = [" ".join(f"{line(claim.answer.text)} {line(text)}".split()) for text in texts]
    about = set(content(claim.question.text))
    return [
        Check(text, True)
        for text in dict.fromkeys(begun)
        if text.endswith("?") and about - set(content(text)) and _asks(text)
    ]


def _asks(text: str) -> bool:
    return not {"what", "which", "who", "whom", "whose", "where", "when", "how"}.isdisjoint(text.lower().split())


def _names(question: str) -> set[str]:
    """Return the words of a question that must not change: with a capital, but for its first one, or a digit."""
    words = question.split()[1:]
    return set(content(" ".join(word for word in words if any(c.isupper() or c.isdigit() for c in word))))


def _critique(claim: Claim, told: Sequence[tuple[Check, str]]) -> str:
    """Return the checks that told something, with their answers; nothing if they support the claim."""
    told = [(check, answer) for check, answer in told if not declines(answer)]
    pro = sum(check.supports(claim, answer) for check, answer in told)
    return "" if 2 * pro > len(told) else "\n".join(f"Check: {check.text} {answer}" for check, answer in told)


@hookimpl
def selfloop_critics() -> list[Component]:
    """Offer the critic."""
    doc = "checks answered without the draft in view, and compared with it"
    paper = "https://arxiv.org/abs/2309.11495"
    return [Component("independent", Independent, doc=doc, paper=paper, prompts=PROMPTS)]
