"""First-token margin: how far ahead the answer's first token was.

Wang and Zhou 2024, arXiv 2402.10200.
"""

import math

from selfloop import Claim, Component, hookimpl

from ._claims import NOT_SAID, Abstain, PerClaimDetector, same_text_completions


class FirstTokenMargin(PerClaimDetector):
    """Confidence is p(likeliest first token) − p(second likeliest).

    The paper averages the margin over an answer's tokens; a short answer is chosen with its first.
    The margin is that of an answer to the bare question. Drafts have a margin and samples do not,
    so a revision is judged only where it repeats the draft's words. Uncalibrated.
    """

    name = "first_token_margin"

    def judge(self, claim: Claim) -> tuple[float, str]:
        """Return the margin for the claim's answer."""
        margins = (completion.margin for completion in same_text_completions(claim))
        margin = next((margin for margin in margins if margin is not None), None)
        if margin is None:
            raise Abstain(f"{NOT_SAID}, or without a margin")
        if math.isnan(margin):
            raise Abstain("the margin is not a number")
        # a backend that rounds may leave the range
        confidence = min(max(margin, 0.0), 1.0)
        return confidence, f"the first token was {margin:.2f} ahead of the second likeliest"


@hookimpl
def selfloop_detectors() -> list[Component]:
    """Offer the detector."""
    doc = "how far ahead the answer's first token was of the next"
    needs = frozenset({"entropies"})
    paper = "https://arxiv.org/abs/2402.10200"
    return [Component("first_token_margin", FirstTokenMargin, doc=doc, needs=needs, paper=paper)]
