"""Echo: an answer in nothing but the question's own words says nothing of what the model knows."""

import re

from selfloop import Claim, Component, hookimpl
from selfloop.answers import declines, normalise

from .evidence import Abstain, OneByOne
from .patterns import pattern

UNTOLD = 0.5
_CHOICE = pattern(r"\bor\b|\bwhich of\b|\bbetween\b", re.IGNORECASE)


class Echo(OneByOne):
    """Confidence is 0.5 if every word of the answer stands in the question ("What sport is baseball? Baseball").

    Neither true nor made up: with thresholds around 0.5 it stays undecided, and nothing is taught of it. Likelihoods
    and agreement favour such answers, for words that are in view are easy to say. List it last, for the last verifier
    that can tell decides; it abstains from all other answers, and where the question offers answers to choose from.
    A right one goes as well ("What is the capital of Singapore?").
    """

    name = "echo"

    def judge(self, claim: Claim) -> tuple[float, str]:
        """Return 0.5, or abstain."""
        if not echoes(claim.question.text, claim.answer.text):
            raise Abstain("the answer says something that the question does not")
        return UNTOLD, "the answer only says words of the question again"


def echoes(question: str, answer: str) -> bool:
    """Return whether an answer has words, and no word that the question lacks or offers as a choice."""
    said = {_bare(word) for word in normalise(answer).split()}
    asked = {_bare(word) for word in normalise(question).split()}
    return bool(said) and said <= asked and not declines(answer) and not _CHOICE.search(question)


def _bare(word: str) -> str:
    """Return a word without the ending of a plural or a genitive, from which `normalise` has taken the apostrophe."""
    return re.sub(r"(?<=\w\w\w)s$", "", word)


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifier."""
    return [Component("echo", Echo, doc="leaves undecided what only says the question's words again")]
