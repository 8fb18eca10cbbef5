"""What a verifier must do."""

from collections.abc import Sequence
from typing import Any

from selfloop.protocols import Judging
from selfloop.records import Claim, Verdict
from selfloop.testing.contract import Contract, each, same
from selfloop.testing.told import CLAIMS


class VerifierContract(Contract):
    """Subclass, set `component` (and `options`), run pytest."""

    methods = ("verify",)

    def judge(self, claims: Sequence[Claim], told: Judging, verifier: Any = None) -> list[Verdict]:
        """Return the verdicts of a new verifier, or the one given, as a run would take them."""
        return each((verifier or self.build()).verify, claims, told, Verdict)

    def test_one_verdict_a_claim(self) -> None:
        """Return as many verdicts as claims, also for none, each in [0, 1] or abstaining with a reason."""
        for told in self.told():
            assert self.judge([], told) == []
            for claim, verdict in zip(CLAIMS, self.judge(CLAIMS, told), strict=True):
                of = f"of the answer {claim.answer.text!r:.40}"
                assert verdict.confidence is not None or verdict.reason.strip(), (
                    f"it abstains without a reason {of}"
                )
                sure = verdict.confidence is None or 0 <= verdict.confidence <= 1
                assert sure, f"the confidence {of} is {verdict.confidence}, not in [0, 1]"

    def test_claims_are_judged_apart(self) -> None:
        """Return the same verdict for a claim alone as among others."""
        for told in self.told():
            alone = [self.judge([claim], told)[0] for claim in CLAIMS]
            same(
                alone,
                self.judge(CLAIMS, told),
                "a claim's verdict depends on the claims beside it, or on their order",
            )

    def test_the_order_is_kept(self) -> None:
        """Return the verdicts in the order of the claims, whatever that is."""
        for told in self.told():
            back = self.judge(CLAIMS[::-1], told)[::-1]
            same(self.judge(CLAIMS, told), back, "verdicts do not come in the order of the claims")

    def test_it_keeps_nothing_between_calls(self) -> None:
        """Return the same when asked again: a resumed run asks a new verifier, and must get the same."""
        for told in self.told():
            verifier = self.build()
            first = self.judge(CLAIMS, told, verifier)
            same(
                first,
                self.judge(CLAIMS, told, verifier),
                "the same claims get another verdict the second time",
            )
