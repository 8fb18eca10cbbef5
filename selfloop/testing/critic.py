"""The requirements on a critic."""

from collections.abc import Sequence
from typing import Any

from selfloop.protocols import VerifyContext
from selfloop.records import Claim, Completion
from selfloop.testing.contexts import CLAIMS
from selfloop.testing.contract import Contract, assert_same, call_each, prompt_text


class CriticContract(Contract):
    """Subclass, set `component` (and `options`), run pytest."""

    methods = ("critique",)

    def critique(
        self, claims: Sequence[Claim], verify_context: VerifyContext, critic: Any = None
    ) -> list[Completion]:
        """Return the critiques of `critic`, or of a new one, as a run takes them."""
        return call_each((critic or self.build()).critique, claims, verify_context, Completion)

    def test_one_critique_a_claim(self) -> None:
        """Return as many critiques as claims, also for none."""
        for verify_context in self.contexts():
            assert self.critique([], verify_context) == []
            self.critique(CLAIMS, verify_context)

    def test_it_names_a_prompt_that_there_is(self) -> None:
        """Have `revise_prompt`, the name of the prompt with which the model answers again."""
        for verify_context in self.contexts():
            name = getattr(self.build(), "revise_prompt", None)
            assert isinstance(name, str) and name, (
                "it has no `revise_prompt`, the name of the prompt to answer again with"
            )
            values = {"question": "the question", "draft": "the draft", "critique": "the critique"}
            try:
                prompt = verify_context.prompt(name, **values)
            except KeyError:
                raise AssertionError(
                    f"there is no prompt {name!r} for base and chat models, as `revise_prompt` says"
                ) from None
            assert values["question"] in prompt_text(prompt), (
                f"the prompt {name!r} does not show {{question}}"
            )

    def test_claims_are_criticised_apart(self) -> None:
        """Return the same critique for a claim alone as among others, in their order."""
        why = "a claim's critique depends on the claims beside it, or on their order"
        for verify_context in self.contexts():
            alone = [self.critique([claim], verify_context)[0] for claim in CLAIMS]
            assert_same(alone, self.critique(CLAIMS, verify_context), why)

    def test_it_keeps_nothing_between_calls(self) -> None:
        """Return the same when asked again: a resumed run asks a new critic, and must get it."""
        why = "the same claims get another critique the second time"
        for verify_context in self.contexts():
            critic = self.build()
            first = self.critique(CLAIMS, verify_context, critic)
            assert_same(first, self.critique(CLAIMS, verify_context, critic), why)
