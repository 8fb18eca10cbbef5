"""First-token margin: how far ahead the answer's first token was (Wang & Zhou 2024, arXiv 2402.10200)."""

import math

from selfloop import Claim, Component, hookimpl

from ._claims import NOT_SAID, Abstain, OneByOne, repeats


class FirstTokenMargin(OneByOne):
    """Confidence is p(likeliest first token) − p(second likeliest). Uncalibrated.

    The paper averages the margin over an answer's tokens; the first one is where a short answer is
    chosen. What counts is what was said to the bare question; drafts have a margin, samples do not.
    """

    name = "first_token_margin"

    def judge(self, claim: Claim) -> tuple[float, str]:
        """Return the margin for the claim's answer."""
        found = next((one.margin for one in repeats(claim) if one.margin is not None), None)
        if found is None:
            raise Abstain(f"{NOT_SAID}, or without a margin")
        if math.isnan(found):
            raise Abstain("the margin is not a number")
        return min(
            max(found, 0.0), 1.0
        ), f"the first token was {found:.2f} ahead of the second likeliest"


@hookimpl
def selfloop_verifiers() -> list[Component]:
    """Offer the verifier."""
    doc, needs = "how far ahead the answer's first token was of the next", frozenset({"entropies"})
    paper = "https://arxiv.org/abs/2402.10200"
    return [Component("first_token_margin", FirstTokenMargin, doc=doc, needs=needs, paper=paper)]
