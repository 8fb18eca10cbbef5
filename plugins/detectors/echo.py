"""Echo: an answer in the question's own words shows nothing of the model's knowledge."""

from selfloop_plugins._shared.echoes import echoes

from selfloop import Claim, Component, hookimpl

from ._claims import Abstain, PerClaimDetector

UNDECIDED = 0.5


class Echo(PerClaimDetector):
    """Confidence is 0.5 if every word of the answer stands in the question. Example: "What sport is
    baseball? Baseball".

    Such an answer is neither true nor made up. With thresholds around 0.5 it stays undecided, and
    nothing is taught of it. Likelihoods and agreement favour such answers, because words in view
    are easy to say. List this detector last: the last one that does not abstain decides, and it
    abstains from all other answers.

    Words are compared without case, accents, and the endings of plurals, possessives and verbs
    ("What is Hermes's name? Hermes"). It abstains where the question offers the answer as a choice
    ("Is Mars or Venus larger? Venus"), where the question is about the form of a word ("What is the
    plural of sheep?"), and where names of the question stand in a new order ("What is the capital
    city of Mexico? Mexico City"). Its limit: some true answers are echoes, too ("What is the
    capital of Singapore?").
    """

    name = "echo"

    def judge(self, claim: Claim) -> tuple[float, str]:
        """Return 0.5, or abstain."""
        if not echoes(claim.question.text, claim.answer.text):
            raise Abstain("the answer says something that the question does not")
        return UNDECIDED, "the answer only says words of the question again"


@hookimpl
def selfloop_detectors() -> list[Component]:
    """Offer the detector."""
    doc = "leaves answers that only repeat words of the question undecided"
    return [Component("echo", Echo, doc=doc)]
