"""`independent`: checks that are answered without the draft.

Chain-of-Verification, Dhuliawala et al. 2023, arXiv 2309.11495, in the variant that answers each
check by itself ("factored").
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, ClassVar

from annotated_types import Ge
from selfloop_plugins._shared.generation import claim_seed, generate_texts, texts_or_none
from selfloop_plugins._shared.meaning import meaning
from selfloop_plugins._shared.prompt_files import PROMPTS
from selfloop_plugins._shared.prompt_text import one_line
from selfloop_plugins._shared.rewording import distinct_rewordings

from selfloop import Claim, Completion, Component, Request, Sampling, VerifyContext, hookimpl
from selfloop.config.prompts import is_open
from selfloop.contradictions import agree
from selfloop.text.answers import content, declines

QUESTION_WORDS = frozenset(
    {"what", "which", "who", "whom", "whose", "where", "when", "how"},
)
# a rewording with one of these that the question lacks asks for an explanation
EXPLANATION_WORDS = frozenset({"how", "why"})


@dataclass(frozen=True, slots=True)
class Check:
    """A question about the draft.

    A `reversed` one begins with the draft's answer, and asks for something the question names.
    """

    text: str
    reversed: bool

    def supports(self, claim: Claim, answer: str) -> bool | None:
        """Return whether the check's answer supports the claim's; None if it shows nothing."""
        if declines(answer):
            return None
        answer_words = set(content(answer))
        check_words = set(content(self.text))
        if self.reversed:
            # another answer is no evidence against: many an answer has several questions
            named_elsewhere = set(content(claim.question.text)) - check_words
            return bool(answer_words & named_elsewhere) or None
        if agree(answer, claim.answer.text):
            return True
        is_echo = answer_words <= check_words
        return None if is_echo else False


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of checks: the prompt that plans them, how many are wanted, and which texts are."""

    prompt: str
    count: int
    usable: Callable[[Claim, Sequence[str]], list[Check]]


class Independent:
    """Plans checks of the draft, answers each alone in the prompt `answer`, and compares words.

    One kind of check is the question in other words (up to `rewordings`): it supports the draft if
    it gets the same answer, else it opposes it. The other kind is the question reversed (up to
    `reversals`): it asks, from the draft's answer, for something the question names. It supports
    the draft if it gets that, and shows nothing otherwise, because many an answer has several
    questions. Other texts are left out, and so are answers that decline, or echo their question.

    The critique lists the checks if at least one opposes the draft, and not more support it than
    oppose it; else it is empty. The paper's model plans freely and compares by itself; one of a few
    hundred million parameters can do neither.
    """

    revise_prompt: ClassVar[str] = "independent_revise"

    def __init__(
        self,
        *,
        rewordings: Annotated[int, Ge(0)] = 2,
        reversals: Annotated[int, Ge(0)] = 1,
        max_tokens: Annotated[int, Ge(1)] = 24,
    ) -> None:
        # the rewordings last: a model tends to repeat the end of its prompt, and theirs are
        # answers to the question
        self._kinds = (
            _Kind("independent_reverse", reversals, reversed_questions),
            _Kind("paraphrase", rewordings, rewordings_with_its_names),
        )
        self._planning = Sampling(0.7, top_p=0.95, max_tokens=48, stop=("\n",))
        self._answering = Sampling(max_tokens=max_tokens, stop=("\n",))

    def critique(self, claims: Sequence[Claim], context: VerifyContext) -> list[Completion]:
        """Return one critique for each claim.

        All checks are planned in one call, and answered in another.
        """
        plans = self._plan(claims, context)
        answers = self._answers(plans, context)
        critiques = []
        for claim, plan in zip(claims, plans, strict=True):
            answered = [(check, answers[check.text]) for check in plan if check.text in answers]
            critiques.append(Completion(_critique(claim, answered)))
        return critiques

    def _plan(self, claims: Sequence[Claim], context: VerifyContext) -> list[list[Check]]:
        """Return the checks of each claim; none where its answer is empty or declines."""
        wanted: list[tuple[int, _Kind]] = []
        for index, claim in enumerate(claims):
            if meaning(claim.answer.text):
                wanted += [(index, kind) for kind in self._kinds if kind.count]
        requests = [self._request(kind, claims[index], context) for index, kind in wanted]
        results = generate_texts(requests, context.backend)
        plans: list[list[Check]] = [[] for _ in claims]
        for (index, kind), result in zip(wanted, results, strict=True):
            checks = kind.usable(claims[index], texts_or_none(result))
            plans[index] += islice(checks, kind.count)
        return plans

    def _request(self, kind: _Kind, claim: Claim, context: VerifyContext) -> Request:
        """Return the request for a claim's checks: for twice as many, because many are unusable."""
        prompt = context.prompt(
            kind.prompt,
            question=one_line(claim.question.text),
            draft=one_line(claim.answer.text),
        )
        return Request(
            prompt,
            self._planning,
            n=2 * kind.count,
            seed=claim_seed(claim, context),
            open_turn=is_open(prompt),
        )

    def _answers(self, plans: Sequence[Sequence[Check]], context: VerifyContext) -> dict[str, str]:
        """Return the greedy answer to each check by its text; none where it was refused."""
        texts: dict[str, None] = {}
        for plan in plans:
            texts.update(dict.fromkeys(check.text for check in plan))
        requests = []
        for text in texts:
            prompt = context.prompt("answer", question=text)
            requests.append(Request(prompt, self._answering, open_turn=is_open(prompt)))
        answers: dict[str, str] = {}
        results = generate_texts(requests, context.backend)
        for text, result in zip(texts, results, strict=True):
            for answer in texts_or_none(result):
                answers[text] = one_line(answer)
        return answers


def rewordings_with_its_names(claim: Claim, texts: Sequence[str]) -> list[Check]:
    """Return the texts that ask for the same as the question, as checks."""
    return [
        Check(text, reversed=False)
        for text in distinct_rewordings(claim, texts)
        if _asks_the_same(claim.question.text, text)
    ]


def _asks_the_same(question: str, text: str) -> bool:
    """Return whether a rewording has a question's names and no others, and half of its words."""
    question_words, text_words = content(question), content(text)
    if not _names(question) <= set(text_words):
        return False  # it lost a name
    if not _names(text) <= set(question_words):
        return False  # it brought in another name
    if len(text_words) < len(question_words):
        return False  # a shorter text mostly asks for less
    common = set(question_words) & set(text_words)
    if len(question_words) > 2 * len(common):
        return False  # too little is left of the question
    added = set(text.lower().split()) - set(question.lower().split())
    if added & EXPLANATION_WORDS:
        return False  # it asks for an explanation
    return _has_question_word(text)


def reversed_questions(claim: Claim, texts: Sequence[str]) -> list[Check]:
    """Return the texts that ask, from the draft's answer on, for something the question names.

    The text alone must not name it. Each is a check.
    """
    question_words = set(content(claim.question.text))
    # the prompt ends with the draft's answer, which each text goes on with
    begun = [one_line(claim.answer.text + text) for text in texts]
    checks = []
    for text in dict.fromkeys(begun):
        names_less = bool(question_words - set(content(text)))
        if text.endswith("?") and names_less and _has_question_word(text):
            checks.append(Check(text, reversed=True))
    return checks


def _has_question_word(text: str) -> bool:
    return not QUESTION_WORDS.isdisjoint(text.lower().split())


def _names(text: str) -> set[str]:
    """Return the words that must not change: with a digit, or, after the first, with a capital."""
    first, *rest = text.split() or [""]
    names: set[str] = set()
    for word in (first.lower(), *rest):
        if any(char.isupper() or char.isdigit() for char in word):
            names.update(content(word))
    return names


def _critique(claim: Claim, answered: Sequence[tuple[Check, str]]) -> str:
    """Return the checks that show something, with their answers; "" if they support the claim."""
    lines = []
    supporting = 0
    for check, answer in answered:
        supports = check.supports(claim, answer)
        if supports is None:
            continue
        supporting += supports
        lines.append(f"Check: {check.text} {answer}")
    return "" if 2 * supporting > len(lines) else "\n".join(lines)


@hookimpl
def selfloop_critics() -> list[Component]:
    """Offer the critic."""
    doc = "checks answered without the draft in view, and compared with it"
    paper = "https://arxiv.org/abs/2309.11495"
    return [Component("independent", Independent, doc=doc, paper=paper, prompts=PROMPTS)]
