"""The requirements on a detector."""

from collections.abc import Sequence
from typing import Any

from selfloop.protocols import VerifyContext
from selfloop.records import Claim, Verdict
from selfloop.testing.contexts import CLAIMS
from selfloop.testing.contract import Contract, assert_same, call_each


class DetectorContract(Contract):
    """Subclass, set `component` (and `options`), run pytest."""

    methods = ("verify",)

    def judge(
        self, claims: Sequence[Claim], verify_context: VerifyContext, detector: Any = None
    ) -> list[Verdict]:
        """Return the verdicts of `detector`, or of a new one, as a run takes them."""
        return call_each((detector or self.build()).verify, claims, verify_context, Verdict)

    def test_one_verdict_a_claim(self) -> None:
        """Return as many verdicts as claims, also for none.

        Each is in [0, 1], or abstains with a reason.
        """
        for verify_context in self.contexts():
            assert self.judge([], verify_context) == []
            for claim, verdict in zip(CLAIMS, self.judge(CLAIMS, verify_context), strict=True):
                of = f"of the answer {claim.answer.text!r:.40}"
                assert verdict.confidence is not None or verdict.reason.strip(), (
                    f"it abstains without a reason {of}"
                )
                valid = verdict.confidence is None or 0 <= verdict.confidence <= 1
                assert valid, f"the confidence {of} is {verdict.confidence}, not in [0, 1]"

    def test_claims_are_judged_apart(self) -> None:
        """Return the same verdict for a claim alone as among others."""
        why = "a claim's verdict depends on the claims beside it, or on their order"
        for verify_context in self.contexts():
            alone = [self.judge([claim], verify_context)[0] for claim in CLAIMS]
            assert_same(alone, self.judge(CLAIMS, verify_context), why)

    def test_the_order_is_kept(self) -> None:
        """Return the verdicts in the order of the claims, whatever that is."""
        why = "verdicts do not come in the order of the claims"
        for verify_context in self.contexts():
            reversed_back = self.judge(CLAIMS[::-1], verify_context)[::-1]
            assert_same(self.judge(CLAIMS, verify_context), reversed_back, why)

    def test_it_keeps_nothing_between_calls(self) -> None:
        """Return the same when asked again: a resumed run asks a new one, and must get it."""
        why = "the same claims get another verdict the second time"
        for verify_context in self.contexts():
            detector = self.build()
            first = self.judge(CLAIMS, verify_context, detector)
            assert_same(first, self.judge(CLAIMS, verify_context, detector), why)
