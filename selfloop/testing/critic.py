"""What a critic must do."""

from collections.abc import Sequence
from typing import Any

from selfloop.protocols import Judging
from selfloop.records import Claim, Completion
from selfloop.testing.contract import Contract, each, same
from selfloop.testing.told import CLAIMS


class CriticContract(Contract):
    """Subclass, set `component` (and `options`), run pytest."""

    methods = ("critique",)

    def critique(
        self, claims: Sequence[Claim], told: Judging, critic: Any = None
    ) -> list[Completion]:
        """Return the critiques of a new critic, or the one given, as a run would take them."""
        return each((critic or self.build()).critique, claims, told, Completion)

    def test_one_critique_a_claim(self) -> None:
        """Return as many critiques as claims, also for none."""
        for told in self.told():
            assert self.critique([], told) == []
            self.critique(CLAIMS, told)

    def test_it_names_a_prompt_that_there_is(self) -> None:
        """Have `revise`, the name of the prompt with which the model answers again."""
        for told in self.told():
            name = getattr(self.build(), "revise", None)
            assert isinstance(name, str) and name, (
                "it has no `revise`, the name of the prompt to answer again with"
            )
            try:
                asked = told.prompt(
                    name, question="the question", draft="the draft", critique="the critique"
                )
            except KeyError:
                raise AssertionError(
                    f"there is no prompt {name!r} for base and chat models, as `revise` says"
                ) from None
            whole = (
                asked if isinstance(asked, str) else "".join(message.content for message in asked)
            )
            assert "the question" in whole, f"the prompt {name!r} does not show {{question}}"

    def test_claims_are_criticised_apart(self) -> None:
        """Return the same critique for a claim alone as among others, in their order."""
        for told in self.told():
            alone = [self.critique([claim], told)[0] for claim in CLAIMS]
            among = self.critique(CLAIMS, told)
            same(
                alone,
                among,
                "a claim's critique depends on the claims beside it, or on their order",
            )

    def test_it_keeps_nothing_between_calls(self) -> None:
        """Return the same when asked again: a resumed run asks a new critic, and must get the same."""
        for told in self.told():
            critic = self.build()
            first = self.critique(CLAIMS, told, critic)
            same(
                first,
                self.critique(CLAIMS, told, critic),
                "the same claims get another critique the second time",
            )
