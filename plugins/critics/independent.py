"""`independent`: checks that are answered without the draft (Chain-of-Verification, Dhuliawala et
al. 2023).

arXiv 2309.11495, in the variant that answers each check by itself ("factored").
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, ClassVar

from annotated_types import Ge
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._shared.queries import line, seed, write
from selfloop_plugins.detectors._claims import meaning
from selfloop_plugins.detectors.paraphrase import different

from selfloop import Claim, Completion, Component, Judging, Request, Sampling, hookimpl
from selfloop.config.prompts import is_open
from selfloop.contradictions import agree
from selfloop.errors import RequestError
from selfloop.text.answers import content, declines


@dataclass(frozen=True, slots=True)
class Check:
    """A question about the draft; `turned`: it begins with the draft's answer, and asks for what the question names."""

    text: str
    turned: bool

    def tells(self, claim: Claim, answer: str) -> bool | None:
        """Return whether the check's answer speaks for the claim's or against it; None: it tells nothing."""
        said, asked = set(content(answer)), set(content(self.text))
        if declines(answer):
            return None
        if self.turned:
            return bool(said & (set(content(claim.question.text)) - asked)) or None
        return agree(answer, claim.answer.text) or (None if said <= asked else False)


class Independent:
    """Plans checks of the draft, answers each alone in the recipe's `answer` prompt, and compares
    their words.

    A check is the question in other words (up to `rewordings`): it speaks for the draft if it gets
    the same answer, else against it. Or it is the question turned around (up to `reversals`), from
    the draft's answer to what the question names: it speaks for the draft if it gets that, and else
    tells nothing, for many an answer has several questions. Texts that are no such check are left
    out; so are answers that decline, or echo their question. There is something to say if not more
    checks speak for the draft than against it, and at least one against. The paper's model plans
    freely and compares by itself; one of a few hundred million parameters can do neither.
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
        requests = [
            Request(prompt, self._answering, open_turn=is_open(prompt)) for prompt in prompts
        ]
        answers = dict(zip(texts, write(requests, judging.backend), strict=True))
        told = [
            [(check, line(text)) for check in plan for text in _texts(answers[check.text])]
            for plan in plans
        ]
        return [
            Completion(_critique(claim, each)) for claim, each in zip(claims, told, strict=True)
        ]

    def _plan(self, claims: Sequence[Claim], judging: Judging) -> list[list[Check]]:
        """Return the checks of each claim; none where it says nothing."""
        # the rewordings last: what the model reads last it likes to say, and theirs are answers to
        # the question
        kinds = [
            ("independent_reverse", self._reversals, turned),
            ("paraphrase", self._rewordings, reworded),
        ]
        wanted = [
            (i, *kind)
            for i, claim in enumerate(claims)
            if meaning(claim.answer.text)
            for kind in kinds
            if kind[1]
        ]
        requests = [self._request(name, claims[i], count, judging) for i, name, count, _ in wanted]
        plans: list[list[Check]] = [[] for _ in claims]
        for (i, _, count, read), found in zip(
            wanted, write(requests, judging.backend), strict=True
        ):
            plans[i] += islice(read(claims[i], _texts(found)), count)
        return plans

    def _request(self, name: str, claim: Claim, count: int, judging: Judging) -> Request:
        """Ask for twice as many checks as wanted: many are none."""
        prompt = judging.prompt(
            name, question=line(claim.question.text), draft=line(claim.answer.text)
        )
        own = seed(claim, judging)
        return Request(prompt, self._planning, n=2 * count, seed=own, open_turn=is_open(prompt))


def _texts(found: list[str] | RequestError) -> list[str]:
    return [] if isinstance(found, RequestError) else found


def reworded(claim: Claim, texts: Sequence[str]) -> list[Check]:
    """Return those that ask for the same: all its names and no others, about half of its words, and no new "how"."""
    question = claim.question.text
    about, names, first = content(question), _names(question), set(question.lower().split())
    return [
        Check(text, False)
        for text in different(claim, texts)
        if names <= set(own := content(text))
        and _names(text) <= set(about)
        and len(own) >= len(about) <= 2 * len(set(about) & set(own))
        and {"how", "why"}.isdisjoint(set(text.lower().split()) - first)
        and _asks(text)
    ]


def turned(claim: Claim, texts: Sequence[str]) -> list[Check]:
    """Return those that ask, from the draft's answer on, for something that the question names and they do not."""
    begun = [line(claim.answer.text + text) for text in texts]
    about = set(content(claim.question.text))
    return [
        Check(text, True)
        for text in dict.fromkeys(begun)
        if text.endswith("?") and about - set(content(text)) and _asks(text)
    ]


def _asks(text: str) -> bool:
    return not {"what", "which", "who", "whom", "whose", "where", "when", "how"}.isdisjoint(
        text.lower().split()
    )


def _names(text: str) -> set[str]:
    """Return the words that must not change: those with a digit, or, but for the first word, with a capital."""
    first, *rest = text.split() or [""]
    marked = (one for one in (first.lower(), *rest) if any(c.isupper() or c.isdigit() for c in one))
    return {word for one in marked for word in content(one)}


def _critique(claim: Claim, answered: Sequence[tuple[Check, str]]) -> str:
    """Return the checks that tell something, with their answers; nothing if they support the claim."""
    told = [
        (check, answer, good)
        for check, answer in answered
        if (good := check.tells(claim, answer)) is not None
    ]
    pro = sum(good for *_, good in told)
    if 2 * pro > len(told):
        return ""
    return "\n".join(f"Check: {check.text} {answer}" for check, answer, _ in told)


@hookimpl
def selfloop_critics() -> list[Component]:
    """Offer the critic."""
    doc = "checks answered without the draft in view, and compared with it"
    paper = "https://arxiv.org/abs/2309.11495"
    return [Component("independent", Independent, doc=doc, paper=paper, prompts=PROMPTS)]
