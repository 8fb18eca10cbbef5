"""Agreement: the share of samples that give the same answer (Wang et al. 2022, self-consistency, arXiv 2203.11171)."""

from collections.abc import Sequence

from selfloop import Claim, Component, Verdict, hookimpl
from selfloop.answers import declines, normalise
from selfloop.protocols import Backend


class Agreement:
    """Confidence is the share of the samples whose normalised text equals the answer's.

    Samples that decline count as disagreeing. Uncalibrated: a model that is sure of a mistake agrees with itself.
    """

    def verify(self, claims: Sequence[Claim], backend: Backend) -> list[Verdict]:
        """Return the share for each claim; abstain without samples, or where the answer is empty."""
        return [self._judge(claim) for claim in claims]

    def _judge(self, claim: Claim) -> Verdict:
        answer = normalise(claim.answer.text)
        if not claim.samples or not answer:
            return Verdict("agreement", None, "no samples" if answer else "the answer is empty")
        same = sum(normalise(s.text) == answer and not declines(s.text) for s in claim.samples)
        return Verdict("agreement", same / len(claim.samples), f"{same} of {len(claim.samples)} samples agree")


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifier."""
    doc = "share of the samples that say the same"
    return [Component("agreement", Agreement, doc=doc, paper="https://arxiv.org/abs/2203.11171")]
